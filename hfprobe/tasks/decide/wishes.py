"""What a decision is asked for."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hfprobe.tasks.decide.verdict import MARGIN

MODELS = ("probe", "cnn")


@dataclass(frozen=True)
class Wishes:
    """What a decision is asked for.

    Attributes:
        folder: of its results.
        models: names of families, in the order of their training.
        settings: for `make_run`, each for the models that have it: backbone, backbone_weights, epochs.
        seeds: number of training runs of each model that takes gradient steps.
        margin: in [0, 1]; a smaller difference does not matter.
        budget: in seconds from `started` on; None: no limit.
        started: in seconds of `time.perf_counter`.
    """

    folder: Path
    models: tuple[str, ...] = MODELS
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 42
    seeds: int = 1
    margin: float = MARGIN
    budget: float | None = None
    hub_dir: str = "hub"
    started: float = field(default_factory=time.perf_counter)
