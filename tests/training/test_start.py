import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import PIL.Image
import pytest
import torch

from helpers.audited import save_audit
from helpers.image_folders import write_images
from helpers.images import CLASSES, draw_images
from helpers.processes import end_ranks, start_ranks
from helpers.runs import small_config
from hfprobe.data.arguments import DataArguments
from hfprobe.data.splits.images import load_images
from hfprobe.models.loading import load_model
from hfprobe.models.own_images import load_images_of
from hfprobe.models.simple_cnn.modeling import CIFAR10_MEAN
from hfprobe.system.errors import InputError
from hfprobe.tasks.evaluate.measure import evaluate_model
from hfprobe.training.start import run_training

TRAIN = str(Path(__file__).parents[2] / "scripts" / "train.py")


def test_a_run_from_python_returns_the_model_that_it_pushed(dataset_folder, tmp_path):
    run = run_training(small_config(dataset_folder, tmp_path))
    assert run.output_dir == tmp_path / "run"
    assert json.loads((run.output_dir / "run.json").read_text())["result"]["metrics"] == run.result.metrics
    assert (run.revision.name, run.revision.is_main, run.uploaded) == ("hfprobe/simple-cnn-small", True, None)
    pushed = type(run.model).from_pretrained(run.revision.path)
    for mine, theirs in zip(run.model.state_dict().values(), pushed.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    assert run.processor.size == type(run.processor).from_pretrained(run.revision.path).size


@pytest.mark.slow
def test_photographs_are_trained_and_evaluated_at_64_x_64_and_resumed_to_the_bit(tmp_path):
    classes = ["cat", "dog"]
    for split, count in (("train", 20), ("test", 6)):
        images, labels = draw_images(2 * count, classes=2, size=100)
        for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            folder = tmp_path / "photos" / split / classes[label]
            folder.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(pixels[:80]).save(folder / f"{number}.png")
    values = {"classes": classes, "per_device_train_batch_size": 16, "num_train_epochs": 2}
    run = run_training(small_config(tmp_path / "photos", tmp_path, **values))
    model, processor = load_model(run.revision.path)
    assert (model.config.image_size, processor.crop_size["height"]) == (64, 64)
    assert list(processor.image_mean) == list(run.processor.image_mean) != CIFAR10_MEAN
    record = json.loads((run.output_dir / "run.json").read_text())["config"]
    assert (record["model"]["image_size"], record["data"]["crop"]) == (64, "resized")
    assert "\nimage_size: 64\n" in (run.output_dir / "config.yaml").read_text()
    card = (run.revision.path / "README.md").read_text()
    assert "\n| image_size | 64 |\n" in card
    assert "\n| crop | resized |\n" in card
    splits = load_images_of(model).decode("test", processor=processor)
    assert splits.test.images.shape == (12, 64, 64, 3)
    result = evaluate_model(
        model=model, processor=processor, splits=splits, split="test", name="m", revision="r", dataset=""
    )
    assert len(result.labels) == 12

    weights = {name: value.clone() for name, value in run.model.state_dict().items()}
    shutil.rmtree(run.output_dir / "checkpoint-4")
    again = run_training(small_config(tmp_path / "photos", tmp_path, resume=True, **values))
    assert again.result.metrics == run.result.metrics
    assert all(torch.equal(value, weights[name]) for name, value in again.model.state_dict().items())


def test_images_that_are_passed_are_not_loaded_and_give_the_same_result(dataset_folder, tmp_path, monkeypatch):
    config = small_config(dataset_folder, tmp_path / "passed")
    images = load_images(config.data, seed=config.split_seed)
    expected = run_training(small_config(dataset_folder, tmp_path / "loaded"))
    monkeypatch.setattr("hfprobe.data.splits.images.load_images", lambda *_, **__: pytest.fail("images were loaded"))
    assert run_training(config, images=images).result.metrics == expected.result.metrics


def test_a_run_is_resumed_on_its_own_images_without_the_audit_that_it_was_started_with(tmp_path):
    photos = write_images(tmp_path / "photos", names=CLASSES, count=20)
    plain = load_images(DataArguments(dataset=str(photos)), seed=42)
    group = [("train", plain.parts[part]["index"][0]) for part in ("train", "validation")]
    audit = save_audit(tmp_path / "audit", plain, group)
    values = {"audit": audit, "num_train_epochs": 2}
    run = run_training(small_config(photos, tmp_path, **values))
    record = json.loads((run.output_dir / "run.json").read_text())
    assert record["edits"]["moved"] == {"train": {str(group[1][1]): "train"}}
    assert record["config"]["data"]["audit"] == audit
    assert f"\naudit: {audit}\n" in (run.output_dir / "config.yaml").read_text()
    shutil.rmtree(audit)
    shutil.rmtree(max(run.output_dir.glob("checkpoint-*")))
    again = run_training(small_config(photos, tmp_path, resume=True, **values))
    assert again.result.metrics == run.result.metrics
    with pytest.raises(InputError, match=re.escape(f"--audit was {audit}, is none")):
        run_training(small_config(photos, tmp_path, resume=True, num_train_epochs=2))


def test_a_process_other_than_the_main_one_trains_and_returns_nothing(dataset_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("hfprobe.training.publish.push_best", lambda *_, **__: pytest.fail("a model was pushed"))
    assert run_training(small_config(dataset_folder, tmp_path)) is None


PROBE = [
    "--model",
    "probe",
    "--backbone",
    "test_byobnet",
    "--backbone_weights",
    "random",
    "--feature_precision",
    "fp32",
]


def train_probe(count, folder, dataset, *, before="", name="run"):
    """Train a probe with `count` processes, after some code; what `end_ranks` returns."""
    folder.mkdir(exist_ok=True)
    script = folder / "train.py"
    shared = "from hfprobe.models.linear_probe import blocks\nblocks.BLOCK, blocks.LEAST_SHARED = 16, 0"  # of the head
    whole = f"import runpy\nrunpy.run_path({TRAIN!r}, run_name='__main__')"
    script.write_text("\n".join([shared, textwrap.dedent(before), whole, ""]))
    flags = ["--dataset", dataset, "--use_cpu", "--disable_tqdm", "true", "--output_dir", name, *PROBE, "--views", "2"]
    place = {"HF_DATASETS_CACHE": str(folder / "cache")}
    return end_ranks(start_ranks(count, script, *flags, cwd=folder, **place))


def results(folder):
    """Path -> content of the cached images and features, and the weights of the pushed model."""
    files = {path.relative_to(folder / "cache"): path for path in (folder / "cache" / "hfprobe").rglob("*.npy")}
    (weights,) = (folder / "hub").glob("*/snapshots/*/model.safetensors")
    return {path: file.read_bytes() for path, file in files.items() if file.name != "stamps.npy"}, weights.read_bytes()


@pytest.fixture(scope="module")
def one_process(dataset_folder, tmp_path_factory):
    """The folder of a probe that one process has trained."""
    folder = tmp_path_factory.mktemp("one process")
    ((code, _, log),) = train_probe(1, folder, dataset_folder)
    assert code == 0, log
    return folder


@pytest.mark.slow
def test_two_processes_cache_the_same_images_and_features_and_push_the_same_weights_as_one(
    dataset_folder, one_process, tmp_path
):
    for code, _, log in train_probe(2, tmp_path, dataset_folder):
        assert code == 0, log
    assert len(results(tmp_path)[0]) == 2 * 2 + 3 * 2  # images with digests; three views with digests
    assert results(tmp_path) == results(one_process)
    one, two = (json.loads((folder / "run" / "run.json").read_text()) for folder in (one_process, tmp_path))
    assert (two["processes"], one["processes"]) == (2, 1)
    assert (two["solution"], two["result"]["metrics"]) == (one["solution"], one["result"]["metrics"])


STRIKE = """
import os, signal
from hfprobe.models.linear_probe import features
compute, calls = features._compute, []
def strike(*args, **how):
    calls.append(1)
    if os.environ.get("RANK") == "1" and len(calls) == 2:
        {blow}
    return compute(*args, **how)
features._compute = strike
"""


@pytest.mark.faults
@pytest.mark.parametrize(
    ("blow", "code", "line"),
    [
        ("raise OSError(28, 'No space left on device')", 3, "error: Process 1 of 2: Cannot keep features in "),
        ("os.kill(os.getpid(), signal.SIGKILL)", -9, "error: Another of the 2 processes of this run has ended. "),
        ("raise ZeroDivisionError('a bug')", 1, "error: Process 1 of 2: ZeroDivisionError: a bug"),
    ],
)
def test_a_process_that_ends_during_the_extraction_ends_the_other_and_one_process_continues(
    dataset_folder, one_process, tmp_path, blow, code, line
):
    (first, _, log), (second, _, _) = train_probe(2, tmp_path, dataset_folder, before=STRIKE.format(blow=blow))
    assert second == code
    assert first == (3 if code == -9 else code)
    assert log.splitlines()[-1].startswith(line)
    assert "Traceback" not in log
    ((done, _, log),) = train_probe(1, tmp_path, dataset_folder, name="again")
    assert done == 0, log
    # Of five batches, the first process had the first two, and the second the others; a killed one notes nothing.
    assert f"Features of the training images, view 0: {64 if code == -9 else 96} of 160" in log
    assert results(tmp_path) == results(one_process)


@pytest.mark.slow
def test_a_folder_that_holds_another_run_is_refused_before_any_slow_import(dataset_folder, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(InputError, match=r"holds another run\. Continue it: --resume\."):
        run_training(small_config(dataset_folder, tmp_path))
    program = f"""
import sys
from hfprobe.settings.run_config import make_run
config = make_run(dataset="any", output_dir={str(tmp_path / "run")!r}, use_cpu=True)
slow = {{"datasets", "sklearn", "timm", "transformers.trainer"}} - set(sys.modules)  # older transformers import sklearn
from hfprobe.system.errors import InputError
from hfprobe.training.start import run_training
from hfprobe.training.seeds import train_seeds
for start in (lambda: run_training(config), lambda: train_seeds([config])):
    try:
        start()
    except InputError:
        print(*slow & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout == "\n\n", done.stdout + done.stderr
