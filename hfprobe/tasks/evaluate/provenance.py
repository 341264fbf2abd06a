"""Which model was evaluated on which images. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hfprobe.models.network import Network
from hfprobe.models.runtimes import Runtime, add_runtime
from hfprobe.statistics.selective import ChosenThreshold
from hfprobe.system.provenance import Hardware


@dataclass(frozen=True)
class Leaks:
    """Evaluated images that have a duplicate among those of training.

    Attributes:
        audit: folder of the audit that found them.
        parts: in which the duplicates are.
        rows: of the evaluated images in the source.
    """

    audit: str
    parts: list[str]
    rows: list[int]


@dataclass(frozen=True)
class Provenance:
    """Which model was evaluated on which images, how and where.

    Attributes:
        run: how the model was trained, from its config.
        facts: what its family says about it, such as the backbone.
        dataset: of the evaluated images, as an absolute path if it is local.
        split_changes: a sentence, if the split has changed since training.
        division: how the parts were made.
        left_out: reason -> what was left out for it.
        identical_images: sentences on images that are in two parts.
        image_counts: part -> images per class.
        split_fingerprint: of the images with their labels and the order of the classes; `images_fingerprint`: of the
            images alone.
        temperature: by which the logits were divided; None: they were not.
        thresholds: of the model, chosen on validation for wished accuracies; None: it has none for these probabilities.
        test_time_augmentation: the images that were averaged with the original; None: none.
        max_eval_samples: the limit of the number of images; None: all were evaluated.
        seconds: duration of the evaluation.
        leaks: None without an audit of the images.
        runtime: torch, or that of the exported file that answered.
    """

    model: str
    model_revision: str
    run: dict[str, Any]
    facts: dict[str, Any]
    network: Network
    parameters: int
    trainable_parameters: int
    dataset: str
    split: str
    split_changes: str | None
    source: str
    division: str
    left_out: dict[str, list[str]]
    identical_images: list[str]
    image_counts: dict[str, list[int]]
    split_fingerprint: str
    images_fingerprint: str
    temperature: float | None
    thresholds: list[ChosenThreshold] | None
    test_time_augmentation: str | None
    seconds: float
    versions: dict[str, str]
    hardware: Hardware
    leaks: Leaks | None = None
    max_eval_samples: int | None = None
    runtime: Runtime = "torch"

    @property
    def title(self) -> str:
        """The name of the model, with its runtime unless that is torch."""
        return add_runtime(self.model, self.runtime)
