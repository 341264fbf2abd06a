"""Test images are for evaluation alone: no weight, no choice and no score of a training run depends on them."""

import datasets
import PIL.Image
import pytest
import torch

from helpers.images import draw_images, make_dataset
from helpers.models import PROBE
from helpers.runs import small_config
from hfprobe.training.start import run_training

PROBES = {"model": "probe", "max_train_samples": 60, **PROBE}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two datasets with the same training images; the second has other test images, all of one class."""
    places = [tmp_path_factory.mktemp("data") / name for name in ("one", "other")]
    found = make_dataset(train=100, test=30)
    found.save_to_disk(places[0])
    images = [PIL.Image.fromarray(image) for image in draw_images(20, classes=5, seed=9)[0]]
    found["test"] = datasets.Dataset.from_dict({"img": images, "label": [0] * 20}, features=found["test"].features)
    found.save_to_disk(places[1])
    return places


@pytest.mark.slow
@pytest.mark.parametrize(
    "runs",
    [
        [{"augment": True}],
        [PROBES | {"head_search": True}],
        [PROBES | {"refit": True}],
        [PROBES, {"recipe": "distill", "max_train_samples": 60}],
    ],
    ids=["cnn", "head_search", "refit", "distill"],
)
def test_a_run_is_the_same_to_the_bit_whatever_the_test_images_are(folders, tmp_path, runs):
    ends = []
    for folder in folders:
        places = {"hub_dir": str(tmp_path / folder.name / "hub")}
        for values in runs:
            model = values.get("model", "cnn")
            run = run_training(small_config(folder, tmp_path / folder.name / model, **places | values))
        ends.append(run)
    assert ends[0].result.metrics == ends[1].result.metrics
    first, second = (run.model.state_dict() for run in ends)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
