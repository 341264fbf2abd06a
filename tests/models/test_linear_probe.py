import json
import re

import pytest
import torch

from helpers.features import blobs
from helpers.images import CLASSES
from helpers.models import build_probe
from helpers.runs import read_splits
from hfprobe.cli.run_flags import parse_run
from hfprobe.models import build_model, find_family
from hfprobe.models.linear_probe.features import FeatureBatches
from hfprobe.models.loading import load_model
from hfprobe.settings.run_config import make_run
from hfprobe.system.errors import InputError
from hfprobe.training import assembly
from hfprobe.training.assembly import build_trainer, settle
from hfprobe.training.fit import train


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"views": 0}, "--views is 0; allowed: 1 to 100 ("),
        ({"feature_cache": "off"}, "--head exact needs the cached features. Add --head sgd to --feature_cache off."),
        ({"feature_cache": "off", "head": "sgd", "views": 2}, "--views counts cached views."),
        ({"head": "sgd", "refit": True}, "--refit needs a head that is solved. Pass --head exact, or leave it out."),
        ({"head": "sgd", "feature_cache": "off", "head_search": True}, "--head_search needs a head that is solved."),
    ],
)
def test_options_that_exclude_each_other_are_refused(values, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        find_family("probe").recipe_options(**values)


@pytest.mark.parametrize(
    ("words", "expected"),
    [("hub, timm/x", "timm/x"), ("random features, not pretrained", None), ("file hub, model.pth", None)],
)
def test_only_a_backbone_from_the_hub_is_a_base_model(words, expected):
    family, model = find_family("probe"), build_probe()[0]
    model.config.backbone_weights = words
    assert family.base_model(model) == expected


def run_probe(dataset_folder, folder, **values):
    config = make_run(
        model="vit", dataset=str(dataset_folder), output_dir=str(folder), backbone="test_byobnet",
        backbone_weights="random", disable_tqdm=True, use_cpu=True, **values,
    )  # fmt: skip
    torch.manual_seed(0)
    model, processor = build_model("vit", labels=CLASSES, options=config.model)
    splits = read_splits(config.data, seed=42)
    config = settle(config, splits)
    trainer = build_trainer(config=config, model=model, processor=processor, splits=splits)
    return trainer, train(trainer, config=config, splits=splits)


def test_a_run_records_the_frozen_backbone(dataset_folder, tmp_path):
    trainer, result = run_probe(dataset_folder, tmp_path)
    assert result.metrics["accuracy"] > 0.9
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["network"]["backbone_sha256"] == trainer.model.frozen_sha256()
    assert record["network"]["backbone_weights"] == "random features, not pretrained"
    assert (result.epochs, result.best_epoch) == (None, None)  # solved, which the command says instead of 0 epochs
    # The solved head is in the run folder, with the temperature that validation gave.
    model, _ = load_model(tmp_path / "model")
    assert torch.equal(model.head.weight, trainer.model.head.weight)
    assert model.config.calibration_temperature == trainer.model.config.calibration_temperature > 0


def test_run_logs_that_the_temperature_stays_at_one(dataset_folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("hfprobe.training.fit.fit_temperature", lambda **_: 1.0)
    with caplog.at_level("INFO", logger="hfprobe.training.fit"):
        trainer, _ = run_probe(dataset_folder, tmp_path)
    assert trainer.model.config.calibration_temperature == 1
    assert "The calibration temperature stays at 1: the validation images determine no other." in caplog.messages


@pytest.mark.slow
@pytest.mark.usefixtures("all_penalties")
def test_exact_and_sgd_heads_agree_on_the_same_features(dataset_folder, tmp_path, monkeypatch):
    data = [blobs(count=count, size=256, classes=5, noise=2.5, seed=count) for count in (6000, 5000)]
    for split in data:
        split.features[..., 1] /= 100  # SGD alone minds the scale
        split.features[..., 40:] = 0  # few enough for both to find the same optimum
    monkeypatch.setattr(assembly, "make_inputs", lambda **_: tuple(FeatureBatches(split) for split in data))
    _, exact = run_probe(dataset_folder, tmp_path / "exact")
    _, sgd = run_probe(dataset_folder, tmp_path / "sgd", head="sgd", recipe="reference", num_train_epochs=10)
    assert 0.8 < exact.metrics["accuracy"] < 0.99
    assert abs(exact.metrics["accuracy"] - sgd.metrics["accuracy"]) <= 0.005


def test_without_the_cache_every_step_runs_the_backbone(dataset_folder, tmp_path):
    trainer, result = run_probe(
        dataset_folder, tmp_path, head="sgd", feature_cache="off", num_train_epochs=1, per_device_train_batch_size=40,
        max_train_samples=40, max_eval_samples=20,
    )  # fmt: skip
    assert "pixel_values" in trainer.train_dataset[0]
    assert result.n_validation == 20
    assert trainer.model.frozen_sha256() == trainer.model.config.backbone_sha256


def test_flags_of_the_probe_are_checked():
    with pytest.raises(InputError, match=re.escape("Unknown argument '--backbon'. Did you mean --backbone?")):
        parse_run(["--model", "vit", "--backbon", "x"])
