"""What a decision is asked for."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from hfprobe.tasks.decide.verdict import MARGIN

MODELS = ("probe", "cnn")
AUTO = ("auto",)  # all backbones that can be had


@dataclass(frozen=True)
class Wishes:
    """What a decision is asked for.

    Attributes:
        folder: of its results.
        models: names of families, in the order of their training.
        backbones: see `ModelFamily.list_variants`.
        epochs: of models that take gradient steps; None: those of their recipes.
        drop_leaks: leave out training images that have a duplicate in validation or test, and validation images that
            have one in test.
        label_efficiency: train the models that take gradient steps with few images too, for the curve over labels.
        unlabelled: images for the probe to label, for a student of it; see `hfprobe.models.student`. None: no student.
        seeds: number of training runs of each model that takes gradient steps.
        margin: in [0, 1]; a smaller difference does not matter.
        budget: in seconds from `started` on; None: no limit.
        started: in seconds of `time.perf_counter`.
    """

    folder: Path
    models: tuple[str, ...] = MODELS
    backbones: tuple[str, ...] = AUTO
    epochs: float | None = None
    drop_leaks: bool = False
    label_efficiency: bool = False
    unlabelled: str | None = None
    seed: int = 42
    seeds: int = 1
    margin: float = MARGIN
    budget: float | None = None
    hub_dir: str = "hub"
    started: float = field(default_factory=time.perf_counter)
