"""The answers of a trained model to images, which a student learns from."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hfprobe.data.pixels.store import ImageBatches, ImageSplit
from hfprobe.models.inference import BATCH_SIZE
from hfprobe.system import ranks
from hfprobe.system.progress import show_progress

if TYPE_CHECKING:  # slow to import
    from transformers import BaseImageProcessor, PreTrainedModel


@dataclass(frozen=True)
class Views:
    """How a model sees the images that it answers for.

    Attributes:
        numbers: of the crops, the epochs in which `ImageBatches` draws them.
        seed: of the crops.
        augmentation: see `hfprobe.models.base.ModelFamily.inputs`; None: each image as it is, in all views.
        precision: fp32 or bf16.
    """

    numbers: Sequence[int]
    seed: int
    augmentation: dict[str, Any] | None
    precision: str


@dataclass(frozen=True, eq=False)
class Solved:
    """What a model was trained with, of the images that it answers for.

    Attributes:
        positions: (M,) of all images that it was trained on.
        solution: what `ModelFamily.solve` returned; empty for a model that took gradient steps.
        class_weights: (C,) weights of the classes in the loss; None: all are 1.
    """

    positions: np.ndarray
    solution: Mapping[str, Any]
    class_weights: np.ndarray | None


def answer_views(
    model: PreTrainedModel, processor: BaseImageProcessor, split: ImageSplit, *, views: Views, name: str
) -> tuple[np.ndarray, float]:
    """Logits (V, N, C) float32 of a model for each view of each image, and the seconds that they took.

    In a run of several processes, all of them call this function together, and each one computes its share.

    Args:
        name: of the images, in the progress bar.
    """
    with ranks.together():
        share = _answer_share(model, processor, split, views=views, name=name)
    logits, seconds = zip(*ranks.gather(share), strict=True)
    return np.concatenate(logits, axis=1), max(seconds)


def _answer_share(
    model: PreTrainedModel, processor: BaseImageProcessor, split: ImageSplit, *, views: Views, name: str
) -> tuple[np.ndarray, float]:
    """The logits for this process's share of the images; the batches are those of one process."""
    batches = ImageBatches(split, processor=processor, augment=views.augmentation, seed=views.seed)
    device = next(model.parameters()).device
    start = time.perf_counter()
    positions = ranks.share_of(len(split), batch_size=BATCH_SIZE)
    found = np.empty((len(views.numbers), len(positions), model.config.num_labels), dtype=np.float32)
    stage = f"Teacher, {name}{ranks.name_share()}"
    with (
        show_progress(total=found[..., 0].size, desc=stage, unit="image") as progress,
        torch.inference_mode(),
        torch.autocast(device.type, dtype=torch.bfloat16, enabled=views.precision == "bf16"),
    ):
        for row, number in enumerate(views.numbers):
            batches.set_epoch(number)
            for first in range(0, len(positions), BATCH_SIZE):
                batch = positions[first : first + BATCH_SIZE]
                pixels = batches.__getitems__(batch)["pixel_values"].to(device)
                logits = model(pixel_values=pixels).logits.float().cpu().numpy()
                found[row, first : first + len(batch)] = logits
                progress.update(len(batch))
    return found, time.perf_counter() - start
