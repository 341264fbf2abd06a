"""The answers of ONNX files to test images, read from their files, beside those of the model in torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from transformers import BaseImageProcessor, PreTrainedModel

from hfprobe.data.pixels.image_files import MAX_PIXELS, pixel_limit, read_image
from hfprobe.data.pixels.reading import in_chunks, in_threads, row_numbers, source_of
from hfprobe.data.pixels.store import ImageBatches, ImageSplit
from hfprobe.data.splits.images import Images
from hfprobe.models.inference import BATCH_SIZE
from hfprobe.models.onnx_files import answer_pixels, open_session
from hfprobe.statistics.paired import Difference, mcnemar_exact, paired_score_interval
from hfprobe.system.progress import show_progress
from hfprobe.tasks.export.result import Parity

PART = "test"


@dataclass(frozen=True)
class Answers:
    """To N images: `logits` and `probabilities`, each (N, C) float32."""

    logits: np.ndarray
    probabilities: np.ndarray


def answer_in_torch(
    model: PreTrainedModel, processor: BaseImageProcessor, split: ImageSplit, *, temperature: float
) -> Answers:
    """The answers of the model on the processor in float32."""
    batches = ImageBatches(split, processor=processor)
    logits = np.empty((len(split), model.config.num_labels), dtype=np.float32)
    with (
        show_progress(total=len(split), desc="Answering in torch", unit="image") as progress,
        torch.inference_mode(),
    ):
        for first in range(0, len(split), BATCH_SIZE):
            positions = range(first, min(first + BATCH_SIZE, len(split)))
            pixels = batches.__getitems__(positions)["pixel_values"]
            logits[positions] = model(pixel_values=pixels.to(memory_format=torch.channels_last)).logits.numpy()
            progress.update(len(positions))
    return Answers(logits, (torch.from_numpy(logits) / temperature).softmax(-1).numpy())


def answer_from_files(file: Path, images: Images, split: ImageSplit) -> Answers:
    """The answers of a graph that reads images: each is read from its file and goes in alone, at its own size."""
    session = open_session(file)
    found = []
    stage = f"Answering by {file.name}"
    with show_progress(total=len(split), desc=stage, unit="image") as progress:
        for image in read_pixels(images, split):
            found.append(session.run(["logits", "probabilities"], {"image": image}))
            progress.update()
    logits, probabilities = (np.concatenate(part) for part in zip(*found, strict=True))
    return Answers(logits, probabilities)


def answer_in_batches(file: Path, processor: BaseImageProcessor, split: ImageSplit, *, temperature: float) -> Answers:
    """The answers of a graph that reads `pixel_values`."""
    session, batches, found = open_session(file), ImageBatches(split, processor=processor), []
    with show_progress(total=len(split), desc=f"Answering by {file.name}", unit="image") as progress:
        for first in range(0, len(split), BATCH_SIZE):
            positions = range(first, min(first + BATCH_SIZE, len(split)))
            found.append(answer_pixels(session, batches.__getitems__(positions)["pixel_values"]).numpy())
            progress.update(len(positions))
    logits = np.concatenate(found)
    return Answers(logits, (torch.from_numpy(logits) / temperature).softmax(-1).numpy())


def read_pixels(images: Images, split: ImageSplit) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8 of each image of the split, decoded from its file; unreadable images are not in the split."""
    rows = images.parts[PART]
    rows = rows.select(np.flatnonzero(np.isin(row_numbers(rows), split.index)))
    limit = images.arguments.max_pixels or MAX_PIXELS

    def read(items: list[dict | None]) -> list[np.ndarray]:
        found = []
        for item in items:
            source = source_of(item)
            content = source if isinstance(source, bytes) else source.read_bytes()
            found.append(np.asarray(read_image(content, max_pixels=limit).image))
        return found

    with pixel_limit(limit):
        yield from chain.from_iterable(in_threads(read, in_chunks(rows)))


def compare_answers(own: Answers, exported: Answers, labels: np.ndarray, *, rounding: float) -> Parity:
    """How answers of an exported file differ from those of the model.

    Args:
        labels: (N,) of the images.
        rounding: see `Export`.
    """
    first, second = own.logits.argmax(1), exported.logits.argmax(1)
    two = np.sort(own.logits, axis=1)[:, -2:]
    differs = first != second
    only_own = int(((first == labels) & (second != labels)).sum())
    only_exported = int(((first != labels) & (second == labels)).sum())
    return Parity(
        n=len(labels),
        differing=int(differs.sum()),
        clear=int((differs & (two[:, 1] - two[:, 0] > rounding)).sum()),
        largest=float(np.abs(own.probabilities - exported.probabilities).max()),
        accuracy=float((second == labels).mean()),
        difference=Difference(
            value=(only_exported - only_own) / len(labels),
            interval=paired_score_interval(only_own, only_exported, len(labels)),
            p=mcnemar_exact(only_own, only_exported),
        ),
    )
