"""Models that were not trained, and what a model card says of one."""

import re
from dataclasses import replace

import pytest
import torch

from helpers.images import CLASSES
from hfprobe.models import build_model, find_family
from hfprobe.models.passport import Passport
from hfprobe.statistics.imbalance import Baseline
from hfprobe.system.errors import InputError
from hfprobe.training.record import RunResult

PASSPORT = Passport(
    recipe="fast", seed=42, split_seed=42, dataset="cifar10", classes=None, images={}, data_fingerprint="ab",
    membership=None, majority_class="cat", class_weights=None, precisions={}, seconds=1.5,
)  # fmt: skip
SMALL = "test_byobnet"  # has BatchNorm
PROBE = {"backbone": SMALL, "backbone_weights": "random"}


def build_probe(backbone=SMALL, weights="random", **values):
    torch.manual_seed(0)
    options = find_family("probe").recipe_options(backbone=backbone, backbone_weights=weights, **values)
    return build_model("probe", labels=CLASSES, options=options)


def save_model(folder, name="cnn", **shards):
    torch.manual_seed(0)
    options = find_family(name).recipe_options(**PROBE if name == "vit" else {})
    model, processor = build_model(name, labels=CLASSES, options=options)
    PASSPORT.stamp(model)
    model.config.calibration_temperature = 1.5
    model.save_pretrained(folder, **shards)
    processor.save_pretrained(folder)
    return folder


CARD = {
    "model": "cnn",
    "summary": "A model of a test.",
    "dataset": "uoft-cs/cifar10",
    "recipe": "fast",
    "seed": 1,
    "class_names": CLASSES,
    "source": "a test",
    "images": {"train": 8, "validation": 4},
    "data_fingerprint": "0" * 64,
    "parameters": 2_471_941,
    "trainable_parameters": 2_471_941,
    "settings": {"learning_rate": 0.002},
    "hardware": {"cores": 2},
    "versions": {"torch": "2"},
    "git_sha": None,
    "metrics": {"accuracy": "accuracy", "macro-F1": "macro_f1"},
    "solution": {},
    "result": RunResult(
        metrics={"accuracy": 0.9125, "macro_f1": 0.9, "balanced_accuracy": 0.91, "loss": 0.3},
        baseline=Baseline(answer="cat", accuracy=0.2, macro_f1=0.0667, balanced_accuracy=0.2),
        n_validation=4,
        images_per_class=[1, 1, 1, 1, 0],
        epochs=2.0,
        best_epoch=1.0,
        seconds=3.0,
    ),
}


def cat_model(labels=CLASSES, **options):
    """A SimpleCNN that says `cat` to every image."""
    torch.manual_seed(0)
    model, processor = build_model("cnn", labels=labels, options=find_family("cnn").recipe_options(**options))
    with torch.no_grad():
        model.classifier[-1].bias[labels.index("cat")] = 100
    return model.eval(), processor


def stamp(model, **values):
    """Write a passport of a run to a model that was not trained."""
    replace(PASSPORT, **values).stamp(model)


def refused(call, message):
    with pytest.raises(InputError, match=re.escape(message)):
        call()
