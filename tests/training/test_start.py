import json
import re
import shutil
import subprocess
import sys

import PIL.Image
import pytest
import torch

from helpers.audited import save_audit
from helpers.image_folders import write_images
from helpers.images import CLASSES, draw_images
from helpers.runs import small_config
from hfprobe.data.arguments import DataArguments
from hfprobe.data.splits.images import load_images
from hfprobe.models.loading import load_model
from hfprobe.models.own_images import load_images_of
from hfprobe.models.simple_cnn.modeling import CIFAR10_MEAN
from hfprobe.system.errors import InputError
from hfprobe.tasks.evaluate.measure import evaluate_model
from hfprobe.training.start import run_training


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
