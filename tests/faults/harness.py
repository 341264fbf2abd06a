"""Kill a run at a chosen point, resume it, and compare with the run that nobody killed.

    python tests/faults/harness.py        # the table of docs/reliability.md; some minutes

Each run is a process forked from this one, so that the imports are paid once. It kills itself with SIGKILL when a
function is called for the n-th time: a marker, no clock.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import runpy
import shutil
import signal
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

TRAIN = str(ROOT / "scripts" / "train.py")
# Four steps an epoch, three epochs; dropout and augmentation as in the recipe.
COMMON = ["--use_cpu", "--batch_size", "40", "--epochs", "3", "--disable_tqdm", "true", "--output_dir", "run"]
STEPS = ["--save_strategy", "steps", "--save_steps", "3", "--eval_strategy", "steps", "--eval_steps", "3"]
PROBE = ["--model", "vit", "--backbone", "test_byobnet", "--backbone_weights", "random"]
KINDS = {
    "SimpleCNN": ["--model", "cnn"],
    "SimpleCNN, reference recipe": ["--model", "cnn", "--recipe", "reference", "--epochs", "3"],
    "SimpleCNN, saved in mid-epoch": ["--model", "cnn", *STEPS],
    "SimpleCNN, 2 loader workers": ["--model", "cnn", *STEPS, "--dataloader_num_workers", "2"],
    "SimpleCNN, persistent workers": [
        *["--model", "cnn", *STEPS, "--dataloader_num_workers", "2", "--dataloader_persistent_workers", "true"]
    ],
    "probe, exact head": [*PROBE, "--views", "2"],
    "probe, SGD head": [*PROBE, "--head", "sgd"],
    "probe, no cache": [*PROBE, "--head", "sgd", "--feature_cache", "off", *STEPS],
}


@dataclass(frozen=True)
class Point:
    """Where a run is killed: when `function` is called for the `count`-th time."""

    what: str
    kind: str
    function: str
    count: int = 1


TRAINER = "hfprobe.training.trainer:ProbeTrainer"
POINTS = [
    Point("before the first step", "SimpleCNN", f"{TRAINER}.training_step", 1),
    Point("in the first epoch, nothing saved", "SimpleCNN", f"{TRAINER}.training_step", 3),
    Point("in mid-epoch", "SimpleCNN", f"{TRAINER}.training_step", 6),
    Point("in mid-epoch", "SimpleCNN, reference recipe", f"{TRAINER}.training_step", 11),
    Point("in mid-epoch", "SimpleCNN, saved in mid-epoch", f"{TRAINER}.training_step", 5),
    Point("in mid-epoch", "SimpleCNN, saved in mid-epoch", f"{TRAINER}.training_step", 8),
    Point("in mid-epoch", "SimpleCNN, 2 loader workers", f"{TRAINER}.training_step", 8),
    Point("in mid-epoch", "SimpleCNN, persistent workers", f"{TRAINER}.training_step", 5),
    Point("in mid-epoch", "SimpleCNN, persistent workers", f"{TRAINER}.training_step", 11),
    Point("at an epoch's edge", "SimpleCNN", "hfprobe.training.callbacks.epochs:SetEpoch.on_epoch_begin", 2),
    Point("during an evaluation", "SimpleCNN", f"{TRAINER}.evaluation_loop", 2),
    Point("after an evaluation, before its save", "SimpleCNN", f"{TRAINER}._save_checkpoint", 2),
    Point("in a save, before the weights", "SimpleCNN", f"{TRAINER}.save_model", 2),
    Point("in a save, before the optimizer", "SimpleCNN", f"{TRAINER}._save_optimizer_and_scheduler", 2),
    Point("in a save, before the random state", "SimpleCNN", f"{TRAINER}._save_rng_state", 2),
    Point("in a save, before the manifest", "SimpleCNN", "hfprobe.training.checkpoints:sha256", 10),
    Point("in a save, while syncing", "SimpleCNN", "hfprobe.training.checkpoints:sync", 15),
    Point("in a save, before the rename", "SimpleCNN", "hfprobe.training.checkpoints:os.rename", 2),
    Point("in a save, before old ones go", "SimpleCNN", "hfprobe.training.checkpoints:delete_old", 3),
    Point("in a save, while old ones go", "SimpleCNN", "hfprobe.training.checkpoints:shutil.rmtree", 4),
    Point("after the last step", "SimpleCNN", f"{TRAINER}._finalize_training", 1),
    Point("before the result is written", "SimpleCNN", "hfprobe.training.fit:fit_temperature", 1),
    Point("during the push", "SimpleCNN", "hfprobe.hub.local:sync", 3),
    Point("during the push, before main moves", "SimpleCNN", "hfprobe.hub.local:os.rename", 1),
    Point(
        "during feature extraction",
        "probe, exact head",
        "hfprobe.models.linear_probe.modeling:LinearProbe.extract_features",
        3,
    ),
    Point("between two views", "probe, exact head", "hfprobe.models.linear_probe.features:_extract", 2),
    Point("while the head is solved", "probe, exact head", "hfprobe.models.linear_probe.head:Problem.solve", 4),
    Point("during the push", "probe, exact head", "hfprobe.hub.local:_publish", 1),
    Point("in mid-epoch", "probe, SGD head", f"{TRAINER}.training_step", 6),
    Point("in a save, before the rename", "probe, SGD head", "hfprobe.training.checkpoints:os.rename", 2),
    Point("in mid-epoch", "probe, no cache", f"{TRAINER}.training_step", 8),
    Point("during an evaluation", "probe, no cache", f"{TRAINER}.evaluation_loop", 2),
]

# What the table counts together: how the descriptions of points begin.
STAGES = {
    "in training: first steps, mid-epoch, an epoch's edge, evaluation": (
        "before the first",
        "in the first",
        "in mid",
        "at an",
        "during an",
    ),
    "in a save: before each of its parts, syncing, renaming, removing old ones": ("in a save", "after an evaluation"),
    "in feature extraction and while the head is solved": ("during feature", "between", "while"),
    "at the end: best epoch, result, push": ("after the last", "before the result", "during the push"),
}


def strike(target: str, count: int, blow) -> None:
    """Call `blow` when a function, `module:name.name`, is called for the `count`-th time."""
    module, names = target.split(":")
    *path, last = names.split(".")
    owner = importlib.import_module(module)
    for name in path:
        owner = getattr(owner, name)
    original, calls = getattr(owner, last), []

    def counted(*arguments, **values):
        calls.append(None)
        if len(calls) == count:
            blow()
        return original(*arguments, **values)

    setattr(owner, last, counted)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run(folder: Path, arguments: list[str], *, before=lambda: None, script: str = "train.py") -> int:
    """A script in a forked process, in `folder`: its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            folder.mkdir(parents=True, exist_ok=True)
            os.chdir(folder)
            sys.argv = [script, *arguments]
            import torch

            from hfprobe.data import cache

            torch.set_num_threads(1)
            cache.cache_folder = lambda: folder / "cache"
            before()
            with open("log.txt", "a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                os.dup2(log.fileno(), 2)  # an interrupt is told past sys.stderr
                logging.basicConfig(format="%(message)s", stream=log, force=True)
                runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")
        except SystemExit as end:
            code = end.code
        except BaseException:
            with open(folder / "log.txt", "a") as log:
                traceback.print_exc(file=log)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def outcome(folder: Path) -> dict:
    """What is compared: the pushed weights, the evaluations and the best epoch."""
    from safetensors.numpy import load_file

    repository = next((folder / "hub").glob("models--*"))
    snapshot = repository / "snapshots" / (repository / "refs" / "main").read_text()
    record = json.loads((folder / "run" / "run.json").read_text())["result"]
    record.pop("seconds")
    state = folder / "run" / "trainer_state.json"
    history = json.loads(state.read_text())["log_history"] if state.exists() else []
    clock = {"eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}
    entries = [
        {key: value for key, value in entry.items() if key not in clock}
        for entry in history
        if "train_runtime" not in entry
    ]
    return {"weights": load_file(snapshot / "model.safetensors"), "result": record, "history": entries}


def difference(folder: Path, expected: dict) -> str | None:
    """How a run's outcome differs from the expected one; None where it is the same to the bit."""
    import numpy as np

    found = outcome(folder)
    for name, weight in expected["weights"].items():
        if not np.array_equal(weight, found["weights"][name]):
            return f"{name}: max |dw| = {np.abs(weight.astype(float) - found['weights'][name]).max():.3g}"
    for what in ("result", "history"):
        if found[what] != expected[what]:
            return f"{what}: {found[what]} instead of {expected[what]}"
    return None


def prepare() -> None:
    """The imports that every run shares; no tensor is made, because threads do not survive a fork."""
    import hfprobe.data.splits.images
    import hfprobe.tasks.evaluate.measure
    import hfprobe.training.assembly
    import hfprobe.training.publish  # noqa: F401
    from hfprobe.models import register_models

    register_models()


class Laboratory:
    """Runs in a folder of their own; the uninterrupted run of each kind is made once."""

    def __init__(self, folder: Path):
        from helpers.images import make_dataset

        self.folder = folder
        self.dataset = folder / "data"
        make_dataset().save_to_disk(self.dataset)
        self.whole: dict[str, dict] = {}

    def arguments(self, kind: str) -> list[str]:
        return ["--dataset", str(self.dataset), *COMMON, *KINDS[kind]]

    def expected(self, kind: str) -> dict:
        if kind not in self.whole:
            folder = self.folder / f"whole {kind}"
            code = run(folder, self.arguments(kind))
            if code != 0:
                raise RuntimeError((folder / "log.txt").read_text())
            self.whole[kind] = outcome(folder)
        return self.whole[kind]

    def try_point(self, point: Point, *, blow=kill, code: int = -signal.SIGKILL, damage=None) -> str | None:
        """Strike at the point, resume, compare: what went wrong, None where nothing did.

        Args:
            blow: what happens at the point.
            code: that the struck run is to end with.
            damage: called with the run folder before the run is resumed.
        """
        expected = self.expected(point.kind)
        folder = self.folder / "tried"
        shutil.rmtree(folder, ignore_errors=True)
        arguments = self.arguments(point.kind)
        found = run(folder, arguments, before=lambda: strike(point.function, point.count, blow))
        if found != code:
            return f"ended with {found} instead of {code}: {self.log()}"
        if damage is not None:
            damage(folder / "run")
        found = run(folder, [*arguments, *(["--resume"] if (folder / "run" / "run.json").exists() else [])])
        if found != 0:
            return f"the resumed run ended with exit code {found}: {self.log()}"
        return difference(folder, expected)

    def log(self) -> str:
        """What the last two runs printed, its end."""
        return (self.folder / "tried" / "log.txt").read_text()[-2000:]


def main() -> None:
    prepare()
    from tqdm import tqdm

    with tempfile.TemporaryDirectory() as folder:
        laboratory = Laboratory(Path(folder))
        found = {point: laboratory.try_point(point) for point in tqdm(POINTS, desc="Kills", unit="kill")}
    print("\n| SIGKILL | tries | survived: max dw = 0 |\n|---|---|---|")
    for stage, marks in STAGES.items():
        faults = [fault for point, fault in found.items() if point.what.startswith(marks)]
        print(f"| {stage} | {len(faults)} | {faults.count(None)} |")
    for point, fault in found.items():
        if fault is not None:
            print(f"\n{point}: {fault}", file=sys.stderr)
    sys.exit(any(found.values()))


if __name__ == "__main__":
    main()
