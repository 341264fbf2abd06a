"""A user's own folder of images on the whole road: train, eval, profile, compare, label efficiency, sanity check and
predict.

The images are scikit-learn's digits (8 x 8 pixels, ten classes) and cut-outs of two photographs that scikit-learn's
package holds (china.jpg and flower.jpg, 640 x 427 pixels); the cut-outs have many sizes.
"""

import json
import re
import sys
from functools import partial

import numpy as np
import PIL.Image
import pytest
from sklearn.datasets import load_digits, load_sample_image

from hfprobe.cli import main as console
from hfprobe.data.sources.file_kinds import IMAGE_ENDINGS
from hfprobe.models import find_family
from hfprobe.tasks.profile import measure

PROBE = ["--backbone", "test_byobnet", "--backbone_weights", "random"]


def write_digits(folder):
    """One folder per digit: 30 images of 8 x 8 pixels each."""
    digits = load_digits()
    for label in range(10):
        (folder / f"digit {label}").mkdir(parents=True)
        for number, image in enumerate(digits.images[digits.target == label][:30]):
            PIL.Image.fromarray((image * 15.9).astype(np.uint8)).save(folder / f"digit {label}" / f"{number}.png")
    return folder


def write_photographs(folder):
    """train/ and val/ with JPEG cut-outs of 100 to 250 pixels; those of the right third of a photograph are in val/."""
    generator = np.random.default_rng(0)
    for name in ("china", "flower"):
        photograph = load_sample_image(f"{name}.jpg")  # (427, 640, 3)
        for split, left, right, count in (("train", 0, 420, 40), ("val", 420, 640, 15)):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                height, width = generator.integers(100, 250), generator.integers(100, 200)
                top, start = generator.integers(0, 427 - height), generator.integers(left, right - width)
                cut = photograph[top : top + height, start : start + width]
                PIL.Image.fromarray(cut).save(folder / split / name / f"{number}.jpg", quality=90)
    (folder / "train" / "china" / "IMG_0001.heic").write_bytes(b"x")
    return folder


pytestmark = pytest.mark.usefixtures("narrow_network")


def short_timing(timing, steps, **values):
    return timing(steps, **values | {"seconds": 0.001})


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a console command in this process, in an empty folder; its standard output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hfprobe.data.sources.file_kinds.readable_endings", lambda: IMAGE_ENDINGS)  # no HEIC
    monkeypatch.setattr("hfprobe.tasks.label_efficiency.measure.LEAST_STEPS", 4)
    # Small batches for a short time, and no process that measures memory: tests/tasks/profile/test_measure.py has one.
    for name in ("cnn", "probe"):
        monkeypatch.setattr(find_family(name), "profile_batch_size", 2)
    monkeypatch.setattr(measure, "time_in_turn", partial(short_timing, measure.time_in_turn))
    monkeypatch.setattr(measure, "peak_memory", lambda folder, model, **_: 4 * model.num_parameters() + 1)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["hfprobe", *map(str, words)])
        console.run()
        return capsys.readouterr().out

    return call


def train_and_check(run, tmp_path, *, side, classes):
    """Train SimpleCNN on `photos`; its name in the hub folder."""
    quick = ["--dataset", "photos", "--epochs", 2, "--batch_size", 16]
    out = run("train", "--model", "cnn", *quick, "--output_dir", "runs/cnn")
    assert "Validation accuracy" in out
    record = json.loads((tmp_path / "runs" / "cnn" / "run.json").read_text())
    assert record["class_names"] == classes
    assert record["config"]["model"]["image_size"] == side
    return re.search(r"--model (hfprobe/\S+)", out)[1]


def evaluate_and_check(run, tmp_path, *, model, report, parts):
    """Evaluate a model; the text of its report."""
    assert f"n = {parts['test']}" in run("eval", "--model", model, "--report_dir", report)
    metrics = json.loads((tmp_path / report / "metrics.json").read_text())
    assert {split: sum(counts) for split, counts in metrics["provenance"]["image_counts"].items()} == parts
    page = (tmp_path / report / "report.html").read_text()
    assert "of the training images" in page or "its images are divided" in page
    return page


@pytest.mark.slow
def test_a_folder_of_small_images_is_divided_trained_on_and_evaluated(run, tmp_path):
    write_digits(tmp_path / "photos")
    parts = {"train": 192, "validation": 48, "test": 60}
    cnn = train_and_check(run, tmp_path, side=32, classes=[f"digit {label}" for label in range(10)])
    evaluate_and_check(run, tmp_path, model=cnn, report="reports/cnn", parts=parts)


def test_a_folder_of_photographs_takes_every_command(run, tmp_path):
    folder = write_photographs(tmp_path / "photos")
    parts = {"train": 64, "validation": 30, "test": 16}
    cnn = train_and_check(run, tmp_path, side=64, classes=["china", "flower"])
    out = run("train", "--model", "probe", *PROBE, "--dataset", "photos", "--output_dir", "runs/probe")
    probe = re.search(r"--model (hfprobe/\S+)", out)[1]
    evaluate_and_check(run, tmp_path, model=probe, report="reports/probe", parts=parts)
    page = evaluate_and_check(run, tmp_path, model=cnn, report="reports/cnn", parts=parts)
    assert "HEIC cannot be read without pillow-heif" in page
    assert "china/IMG_0001.heic" in page
    run("profile", cnn, probe, "--rounds", 5, "--batch_sizes", 1, "--report_dir", "reports/profile")
    assert "images/s" in run("compare", "reports/cnn", "reports/probe", "--profile", "reports/profile")
    table = run("label-efficiency", "--dataset", "photos", "--shots", 4, "--seeds", 1, *PROBE)
    assert "| images per class | cnn | probe |" in table
    assert "cnn overfitted " in run("sanity-check", "--dataset", "photos")
    lines = run("predict", folder, "--model", cnn, "--output", "predictions.csv").splitlines()
    assert [line.split("\t")[0] for line in lines[: sum(parts.values())]] == sorted(
        map(str, folder.rglob("*.[pj][np]g"))
    )
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == sum(parts.values()) + 1
