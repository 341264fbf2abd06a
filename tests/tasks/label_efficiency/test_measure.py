import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import TrainerCallback, set_seed

from helpers.images import load_splits
from helpers.models import PROBE
from hfprobe.data.arguments import DataArguments
from hfprobe.data.splits.images import load_images
from hfprobe.models import build_model, find_family
from hfprobe.settings.run_config import make_run
from hfprobe.system.errors import InputError
from hfprobe.tasks.label_efficiency import measure as label_efficiency
from hfprobe.tasks.label_efficiency.cli import main
from hfprobe.tasks.label_efficiency.measure import measure_label_efficiency
from hfprobe.tasks.label_efficiency.page import write_label_efficiency
from hfprobe.tasks.label_efficiency.result import LabelEfficiency
from hfprobe.training import assembly
from hfprobe.training.fit import train

pytestmark = pytest.mark.usefixtures("narrow_network")


@pytest.fixture
def splits(dataset_folder):
    return load_splits(DataArguments(dataset=str(dataset_folder)), seed=1)


@pytest.fixture
def images(dataset_folder):
    return load_images(DataArguments(dataset=str(dataset_folder)), seed=1)


@pytest.fixture
def measure(images, tmp_path, monkeypatch):
    monkeypatch.setattr(label_efficiency, "LEAST_STEPS", 4)
    monkeypatch.setitem(find_family("cnn").RECIPES["fast"], "num_train_epochs", 2)
    arguments = {"models": {"cnn": {}, "probe": PROBE}, "images": images, "folder": tmp_path}
    return lambda **values: measure_label_efficiency(**arguments | values)


@pytest.mark.slow
def test_points_of_two_precisions_are_kept_apart(measure, monkeypatch):
    monkeypatch.setattr("hfprobe.settings.arguments.preferred_precision", lambda device: ("bf16", ""))
    bf16 = {"models": {"cnn": {"precision": "bf16"}, "probe": PROBE | {"precision": "bf16"}}}
    seen, fit = [], label_efficiency.fit

    def watch(trainer, **how):
        seen.append(trainer.args.mixed_precision)
        return fit(trainer, **how)

    monkeypatch.setattr(label_efficiency, "fit", watch)
    found = measure(shots=[2], seeds=[1], **bf16)
    assert seen == ["bf16", "no"]  # the head of the probe is in float32
    assert found.setting.options["cnn"]["precision"] == "bf16"
    assert "precision" not in found.setting.options["probe"]
    measure(shots=[2], seeds=[1], **bf16)
    assert len(seen) == 2
    with pytest.raises(InputError, match="contains points with other settings: its options is"):
        measure(shots=[2], seeds=[1])


def test_every_point_is_measured_once(measure, tmp_path, monkeypatch):
    trained = []
    fit = label_efficiency.fit
    monkeypatch.setattr(label_efficiency, "fit", lambda *a, **k: trained.append(k) or fit(*a, **k))
    first = measure(shots=[2], seeds=[1, 2])
    assert [(point.model, point.shots, point.seed) for point in first.points] == [
        ("cnn", 2, 1), ("cnn", 2, 2), ("probe", 2, 1), ("probe", 2, 2),
    ]  # fmt: skip
    assert all(0 <= point.accuracy <= 1 and point.n == 60 for point in first.points)
    again = measure(shots=[2, 4], seeds=[1, 2], models={"probe": PROBE})
    assert again.points[:4] == first.points
    assert [(point.shots, point.seed) for point in again.points[4:]] == [(4, 1), (4, 2)]
    assert len(trained) == len(again.points) == 6
    assert LabelEfficiency.load(tmp_path) == again
    text = write_label_efficiency(again, tmp_path).read_text()
    point = again.curves["probe"][4]
    assert f"{100 * point.mean:.2f}\u00a0% +/- {100 * point.std:.2f} (n = 2)" in text
    assert (tmp_path / "label_efficiency.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_point_does_not_depend_on_what_was_measured_before(measure, tmp_path):
    alone = measure(shots=[4], seeds=[2], folder=tmp_path).points
    (tmp_path / "label_efficiency.json").unlink()
    together = measure(shots=[4], seeds=[1, 2], folder=tmp_path).points
    accuracy = {(point.model, point.shots, point.seed): point.accuracy for point in together}
    for point in alone:
        assert accuracy[point.model, 4, 2] == point.accuracy


class FirstEpoch(TrainerCallback):
    """Keeps the weights after the first epoch."""

    def on_epoch_end(self, args, state, control, model=None, **kwargs):
        if state.epoch == 1:
            self.weights = {name: value.clone() for name, value in model.state_dict().items()}


def test_a_measured_network_is_bit_identical_to_the_one_that_train_trains(images, splits, tmp_path, monkeypatch):
    """The recipe's model, and after an epoch the same weights to the bit, for the same images and seed."""
    monkeypatch.setattr(label_efficiency, "LEAST_STEPS", 1)
    monkeypatch.setitem(find_family("cnn").RECIPES["fast"], "num_train_epochs", 2)
    trainers = []
    original = label_efficiency.assemble_trainer

    def watch(**arguments):
        trainers.append(original(**arguments))
        trainers[-1].add_callback(FirstEpoch)
        return trainers[-1]

    for module in (label_efficiency, assembly):
        monkeypatch.setattr(module, "assemble_trainer", watch)
    measure_label_efficiency(models={"cnn": {}}, images=images, shots=[8], seeds=[3], folder=tmp_path)

    # As scripts/train.py does it.
    dataset = images.arguments.dataset
    config = make_run(seed=3, dataset=dataset, output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True)
    set_seed(3)
    model, processor = build_model("cnn", labels=splits.class_names, options=config.model)
    positions = label_efficiency._positions(splits.train.labels, count=8, seed=3)
    few = replace(splits, train=splits.train.take(positions))
    config = assembly.settle(config, few)
    trainer = assembly.build_trainer(config=config, model=model, processor=processor, splits=few)
    train(trainer, config=config, splits=few)

    measured, trained = trainers
    for trainer in trainers:
        assert trainer.model.classifier[3].p == config.model.dropout == 0.2
    found, expected = (trainer.pop_callback(FirstEpoch).weights for trainer in (measured, trained))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_points_of_a_model_that_is_not_requested_are_kept(measure):
    measure(models={"probe": PROBE}, shots=[2], seeds=[1])
    both = measure(shots=[2], seeds=[1])
    assert [point.model for point in both.points] == ["probe", "cnn"]
    assert both.setting.options["cnn"]["dropout"] == 0.2
    assert measure(models={"probe": PROBE}, shots=[2], seeds=[1]).setting == both.setting


def test_points_of_a_model_with_unknown_options_are_refused(measure, tmp_path):
    measured = measure(models={"cnn": {}}, shots=[2], seeds=[1])
    measured.setting.options.clear()
    measured.save(tmp_path)
    with pytest.raises(InputError, match=re.escape("contains points with other settings: its options is {}, but ")):
        measure(models={"cnn": {}}, shots=[2], seeds=[1])


def test_each_class_gets_its_number_of_images_and_larger_subsets_contain_smaller_ones():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(3), (30, 50, 80)))
    few, more = (label_efficiency._positions(labels, count=count, seed=3) for count in (5, 12))
    assert np.bincount(labels[few]).tolist() == [5, 5, 5]
    assert np.bincount(labels[more]).tolist() == [12, 12, 12]
    assert set(few) < set(more)
    assert set(few) != set(label_efficiency._positions(labels, count=5, seed=4))


def test_impossible_numbers_of_images_other_settings_and_a_damaged_file_are_refused(measure, tmp_path):
    with pytest.raises(
        InputError, match=re.escape("--shots is 33; allowed: at most 32, the training images of the smallest class.")
    ):
        measure(shots=[2, 33], seeds=[1])
    measure(models={"probe": PROBE}, shots=[2], seeds=[1])
    with pytest.raises(InputError, match=re.escape("contains points with other settings: its options is {'probe': ")):
        measure(models={"probe": PROBE | {"views": 2}}, shots=[2], seeds=[1])
    (tmp_path / "label_efficiency.json").write_text("{")
    with pytest.raises(InputError, match=r"is damaged: .+\. Delete it, or pass another --report_dir\.$"):
        measure(models={"probe": PROBE}, shots=[2], seeds=[1])


@pytest.mark.slow
def test_a_student_learns_from_all_images_and_from_the_labels_of_its_own_alone(measure, monkeypatch):
    lessons = []
    make = label_efficiency._make_lesson
    monkeypatch.setattr(label_efficiency, "_make_lesson", lambda *a, **k: lessons.append(make(*a, **k)) or lessons[-1])
    monkeypatch.setitem(find_family("cnn").RECIPES["distill"], "num_train_epochs", 2)
    # The probe is solved in float32: transformers and accelerate have one precision at a time in a process.
    monkeypatch.setattr("hfprobe.settings.arguments.preferred_precision", lambda device: ("bf16", ""))
    found = measure(shots=[4, 32], seeds=[1], models={"probe": PROBE, "student": {"precision": "bf16"}})
    assert [(point.model, point.shots) for point in found.points] == [
        ("probe", 4), ("student", 4), ("probe", 32), ("student", 32),
    ]  # fmt: skip
    few, whole = lessons
    assert [len(part) for part in few.parts] == [20, 140]
    assert (few.parts[1].labels == -1).all()
    assert [len(part) for part in whole.parts] == [160]
    assert few.answers.shape == whole.answers.shape == (1, 160, 5)
    assert found.setting.options["student"]["teacher"] == found.setting.options["probe"]


def test_a_student_needs_the_probe_before_images_are_read(monkeypatch):
    words = ["label-efficiency", "--dataset", "nowhere", "--models", "cnn", "student"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(InputError, match=r"The model student is taught by the model probe. Add probe to --models."):
        main()
