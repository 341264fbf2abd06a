"""Runs that are killed, stopped, starved and damaged end where the uninterrupted run ends: max |dw| = 0.

A few in the normal suite, all of them with `pytest -m faults`. Each test runs the harness in a process of its own,
because that process forks.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

from harness import POINTS, PROBE, TRAINER, difference, outcome  # noqa: E402

# What `blow` may be in a script handed to `laboratory`.
PREAMBLE = f"""
import os, shutil, signal, sys
sys.path.insert(0, {str(HERE)!r})
from pathlib import Path
from harness import POINTS, TRAINER, Laboratory, Point, kill, prepare
prepare()
lab = Laboratory(Path(sys.argv[1]))
def term(): os.kill(os.getpid(), signal.SIGTERM)
def interrupt_twice():
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
def full(): raise OSError(28, "No space left on device")
def at(function, count=1, kind="SimpleCNN"): return Point("", kind, f"{{TRAINER}}.{{function}}", count)
def told(*starts): return [line for line in lab.log().splitlines() if line.startswith(starts)]
"""


@pytest.fixture
def laboratory(tmp_path):
    """Run a script that has the harness at hand; what it prints."""

    def work(script):
        done = subprocess.run(
            [sys.executable, "-c", PREAMBLE + script, tmp_path],
            capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.strip().splitlines()

    return work


@pytest.mark.faults
@pytest.mark.parametrize("number", range(len(POINTS)), ids=lambda n: f"{POINTS[n].kind}: {POINTS[n].what}")
def test_every_kill(laboratory, number):
    assert laboratory(f"print(lab.try_point(POINTS[{number}]))") == ["None"]


@pytest.mark.slow
def test_a_kill_a_signal_and_a_full_disk(laboratory):
    found = laboratory("""
print(lab.try_point(at("training_step", 6)), told("Continuing"))
print(lab.try_point(at("training_step", 6), blow=term, code=143), told("Stopped", "Continuing"))
print(lab.try_point(at("_save_optimizer_and_scheduler", 2), blow=full, code=3), told("error", "Continuing"))
""")
    stopped = (
        "Stopped by SIGTERM at step 6 of 12; all is saved in run. To continue, run the same command with --resume."
    )
    full = (
        "error: checkpoint-8 could not be saved in 'run': No space left on device. Earlier checkpoints are intact. "
        "Free some space, then run the same command with --resume."
    )
    assert found == [
        f"None {['Continuing from run/checkpoint-4.']}",
        f"None {[stopped, 'Continuing from run/checkpoint-6.']}",
        f"None {[full, 'Continuing from run/checkpoint-4.']}",
    ]


@pytest.mark.faults
def test_a_signal_at_the_last_step_of_an_epoch_and_two_interrupts(laboratory):
    found = laboratory("""
print(lab.try_point(at("training_step", 8), blow=term, code=143), told("Continuing"))  # after the epoch's evaluation
print(lab.try_point(at("training_step", 6), blow=interrupt_twice, code=130), told("Stopped", "Continuing"))
""")
    assert found == [
        f"None {['Continuing from run/checkpoint-8.']}",
        f"None {['Continuing from run/checkpoint-4.']}",
    ]


@pytest.mark.faults
def test_a_run_that_had_stopped_early_says_so(laboratory):
    found = laboratory("""
from harness import KINDS
KINDS["impatient"] = ["--model", "cnn", "--epochs", "99", "--patience", "2", "--lr", "1e-9"]
KINDS["impatient"] += ["--muon_learning_rate", "1e-9"]
print(lab.try_point(Point("", "impatient", "hfprobe.training.fit:fit_temperature")))
print([line for line in lab.log().splitlines() if "early" in line])
""")
    assert found[0] == "None"
    assert re.fullmatch(r"\['The run had stopped early, after epoch \d+: nothing is left to train.'\]", found[1])


@pytest.mark.faults
@pytest.mark.parametrize("how", ["truncated", "emptied", "removed"])
def test_every_file_of_a_checkpoint_damaged_in_turn(laboratory, how):
    found = laboratory(f"""
how = {how!r}
names = None
def damage(run):
    global names
    names = sorted(path.name for path in (run / "checkpoint-8").iterdir())
    victim = run / "checkpoint-8" / name
    if how == "removed": victim.unlink()
    else: os.truncate(victim, victim.stat().st_size // 2 if how == "truncated" else 0)
name = "manifest.json"
print(lab.try_point(at("training_step", 10), damage=damage), "checkpoint-8 was passed over" in lab.log())
for name in names:
    print(lab.try_point(at("training_step", 10), damage=damage), "checkpoint-8 was passed over" in lab.log())
""")
    assert len(found) >= 10
    assert set(found) == {"None True"}


@pytest.mark.faults
@pytest.mark.parametrize("blow", ["kill", "interrupt"])
@pytest.mark.parametrize(
    ("script", "flags", "results", "functions"),
    [
        (
            "eval.py",
            ["--model", "simple-cnn-data", "--report_dir", "out"],
            ["metrics.json", "predictions.parquet", "mistakes.parquet", "report.html", "per_class_metrics.csv"],
            [
                ("hfprobe.data.pixels.decoded_rows:_decode", 20),
                ("hfprobe.data.pixels.decoding:os.rename", 1),
                ("hfprobe.models.simple_cnn.modeling:SimpleCNN.forward", 1),
                ("hfprobe.tasks.evaluate.result:pq.write_table", 2),
                ("hfprobe.tasks.evaluate.page:_write_per_class", 1),
                ("hfprobe.system.files:sync", 3),
                ("hfprobe.system.files:os.replace", 2),
                ("hfprobe.system.files:os.replace", 6),
            ],
        ),
        (
            "label_efficiency.py",
            ["--shots", "2", "4", "--seeds", "1", *PROBE[2:], "--report_dir", "out"],
            ["label_efficiency.json", "label_efficiency.md", "label_efficiency.png"],
            [
                ("hfprobe.data.pixels.decoded_rows:_decode", 20),
                ("hfprobe.models.linear_probe.modeling:LinearProbe.extract_features", 3),
                (f"{TRAINER}.training_step", 5),
                ("hfprobe.tasks.label_efficiency.measure:_fit", 2),
                ("hfprobe.models.linear_probe.head:Problem.solve", 4),
                # Of all calls: a note and the file of three splits of features, four points, two files of the page.
                ("hfprobe.system.files:os.replace", 8),
                ("hfprobe.system.files:os.replace", 12),
            ],
        ),
        (
            "profile_models.py",
            ["simple-cnn-data", "--rounds", "5", "--batch_sizes", "1", "--report_dir", "out"],
            ["profile.json", "profile.md", "throughput.png", "trace-simple-cnn-data.json"],
            [
                ("hfprobe.tasks.profile.measure:peak_memory", 1),
                ("hfprobe.tasks.profile.timing:_timed", 20),
                ("hfprobe.tasks.profile.measure:profile_operators", 1),
                ("hfprobe.system.files:os.replace", 1),
                ("hfprobe.system.files:os.replace", 2),
            ],
        ),
    ],
)
def test_a_command_that_is_stopped_and_typed_again(laboratory, script, flags, results, functions, blow):
    """It leaves no part of a result, continues where it can, and ends with the results of one that was not stopped."""
    found = laboratory(f"""
import json
import hfprobe.tasks.label_efficiency.measure
from harness import run, strike
hfprobe.tasks.label_efficiency.measure.LEAST_STEPS = 1
def interrupt(): os.kill(os.getpid(), signal.SIGINT)
script, flags, results, functions = {script!r}, {flags!r}, {results!r}, {functions!r}
if script == "label_efficiency.py": flags += ["--dataset", str(lab.dataset)]
hub = lab.folder / "hub maker"
assert run(hub, [*lab.arguments("SimpleCNN")]) == 0
def content(folder):
    assert set(results) <= {{path.name for path in (folder / "out").iterdir()}}, list((folder / "out").iterdir())
    if script == "profile_models.py": return None  # times differ
    kept = json.loads((folder / "out" / results[0]).read_text())
    kept.get("provenance", kept).pop("seconds", None)
    for point in kept.get("points", []): point.pop("seconds")
    return kept
def fresh(name):
    folder = lab.folder / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "hub").symlink_to(hub / "hub")
    return folder
whole = fresh("whole command")
assert run(whole, flags, script=script) == 0, (whole / "log.txt").read_text()
for function, count in functions:
    folder = fresh("tried")
    code = run(folder, flags, script=script, before=lambda: strike(function, count, {blow}))
    assert code == {-9 if blow == "kill" else 130}, (function, code, lab.log())
    lines = (folder / "log.txt").read_text().splitlines()
    if code == 130: assert lines[-1].startswith("Interrupted. ") and "Traceback" not in lab.log(), lab.log()
    if code == 130: assert not [*folder.rglob(".writing-*"), *folder.rglob("part-*")]
    code = run(folder, flags, script=script)
    assert code == 0, (function, lab.log())
    assert content(folder) == content(whole), function
    assert not [*folder.rglob(".writing-*"), *folder.rglob("part-*"), *folder.rglob("*.part")]
    print(function)
""")
    assert found == [function for function, _ in functions]


@pytest.mark.faults
@pytest.mark.parametrize("function", ["training_step", "_save_rng_state"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_kill_of_one_of_two_processes(dataset_folder, tmp_path, function, rank):
    worker = tmp_path / "worker.py"
    worker.write_text(f"""
import os, runpy, sys
sys.path.insert(0, {str(HERE)!r})
from harness import TRAIN, TRAINER, kill, strike
if sys.argv.pop(1) == os.environ["RANK"]:
    strike(f"{{TRAINER}}.{function}", {6 if function == "training_step" else 2}, kill)
runpy.run_path(TRAIN, run_name="__main__")
""")

    def work(folder, *, struck="nobody", resume=()):
        folder.mkdir(exist_ok=True)
        return subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29617", worker,
             struck, "--dataset", dataset_folder, "--use_cpu", "--batch_size", "20", "--epochs", "3", "--output_dir",
             "run", "--disable_tqdm", "true", *resume],
            capture_output=True, text=True, check=False, cwd=folder, timeout=300,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip

    assert work(tmp_path / "whole").returncode == 0
    assert work(tmp_path / "struck", struck=str(rank)).returncode != 0
    done = work(tmp_path / "struck", resume=["--resume"])
    assert done.returncode == 0, done.stderr[-3000:]
    assert difference(tmp_path / "struck", outcome(tmp_path / "whole")) is None


@pytest.mark.slow
def test_a_signal_to_the_launcher_reaches_the_run(dataset_folder, tmp_path):
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--config_file", ROOT / "accelerate_config.yaml",
        ROOT / "scripts" / "train.py", "--use_cpu", "--dataset", dataset_folder, "--epochs", "500", "--patience", "500",
        "--output_dir", "run",
    ]  # fmt: skip
    with (tmp_path / "log.txt").open("w") as log:
        launcher = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 120
        while not list((tmp_path / "run").glob("checkpoint-*")):
            assert launcher.poll() is None, (tmp_path / "log.txt").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        launcher.send_signal(signal.SIGTERM)
        launcher.wait(timeout=120)
        deadline = time.monotonic() + 120
        while session(launcher.pid):
            assert time.monotonic() < deadline, "a child is left"
            time.sleep(0.1)
    assert "Stopped by SIGTERM at step" in (tmp_path / "log.txt").read_text()


def session(leader: int) -> list[str]:
    """Processes of a session."""
    done = subprocess.run(["ps", "-o", "pid=,stat=", "-s", str(leader)], capture_output=True, text=True, check=False)
    return [line for line in done.stdout.splitlines() if " Z" not in line]
