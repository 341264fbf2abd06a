"""New images -> class probabilities, by the preprocessing that evaluation uses."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import PIL.Image
import torch
from datasets import Dataset, Image
from transformers import BaseImageProcessor, PreTrainedModel

from hfprobe.data.arguments import DataArguments
from hfprobe.data.memory import IMAGE_KINDS, describe, image_source
from hfprobe.data.pixels.image_files import MAX_PIXELS, convert_image, explain, pixel_limit, read_image
from hfprobe.data.pixels.image_paths import find_images
from hfprobe.data.pixels.reading import in_threads
from hfprobe.data.pixels.transforms import fit_images, normalize
from hfprobe.data.sources.columns import find_column
from hfprobe.models import class_names_of
from hfprobe.models.inference import BATCH_SIZE, calibration_temperature
from hfprobe.models.runtimes import Network, open_network
from hfprobe.models.thresholds import find_threshold
from hfprobe.system.errors import InputError, shorten
from hfprobe.system.progress import show_progress
from hfprobe.tasks.predict.result import Predictions
from hfprobe.tasks.predict.threshold import parse_threshold

logger = logging.getLogger(__name__)

# Images that may be decoded before the model reads them; it bounds the memory.
AHEAD = 2 * BATCH_SIZE
# What can be classified, see `hfprobe.data.memory.IMAGE_KINDS`.
ImageLike: TypeAlias = (
    str | os.PathLike[str] | bytes | BinaryIO | Mapping[str, Any] | PIL.Image.Image | np.ndarray | torch.Tensor
)
ALLOWED = f"Allowed: {IMAGE_KINDS}; folders; or several of these in a list, an array or a datasets.Dataset."


def predict_images(
    images: ImageLike | Dataset | Iterable[ImageLike],
    *,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    threshold: float | str = 0.5,
    temperature: bool = False,
    skip_unreadable: bool = False,
    max_pixels: int = MAX_PIXELS,
    network: Network | None = None,
) -> Predictions:
    """Classify images; see docs/images.md for how each kind of image is read.

    Threads decode images while the model classifies those before them. At most AHEAD decoded images wait, so that
    the memory does not grow with the number of images.

    Args:
        images: see `list_images`.
        processor: the image processor that belongs to the model.
        threshold: probability from which a prediction counts as sure; "auto" or "auto:0.98": the one that training
            chose for 95 % or another accuracy of such predictions.
        temperature: whether to divide the logits by the temperature that was fitted on validation.
        skip_unreadable: whether an image that cannot be read is listed in `Predictions.unreadable`.
        max_pixels: images with more pixels cannot be read.
        network: that answers for the model; None: the model in torch.

    Raises:
        InputError: there is no image; an image cannot be read, named with the reason; the model has no temperature, or
            no threshold for the wished accuracy.
    """
    limit, accuracy = parse_threshold(threshold)
    items = list_images(images)
    if accuracy is not None:
        limit = find_threshold(model, accuracy, temperature=temperature)
    assert limit is not None  # one of both
    divisor = calibration_temperature(model) if temperature else 1.0
    class_names = class_names_of(model)
    network = network or open_network(model)
    read: list[str] = []
    unreadable: dict[str, str] = {}
    notes: Counter[str] = Counter()
    waiting: list[torch.Tensor] = []  # each (1, 3, h, w) uint8
    # Allocated once: a small array kept after each batch would fragment the memory, which then grows.
    probabilities = np.empty((len(items), len(class_names)), dtype=np.float32)

    read_one = partial(_read, processor=processor, max_pixels=max_pixels)

    def classify() -> None:
        pixels = normalize(torch.cat(waiting), processor=processor).to(memory_format=torch.channels_last)
        logits = network.answer({"pixel_values": pixels}) / divisor
        probabilities[len(read) - len(waiting) : len(read)] = logits.softmax(-1).cpu().numpy()
        waiting.clear()

    with (
        show_progress(total=len(items), desc="Predicting", unit="image") as progress,
        torch.inference_mode(),
        pixel_limit(max_pixels),
        closing(in_threads(read_one, enumerate(items), ahead=AHEAD)) as outcomes,
    ):
        for outcome in outcomes:
            name = outcome.name
            progress.update()
            if isinstance(outcome, _Unreadable):
                if not skip_unreadable:
                    raise InputError(
                        f"'{shorten(name)}' cannot be read: {outcome.reason}. Replace it, or leave it out."
                    ) from outcome.error
                again = f" ({len(read) + len(unreadable)})" if name in unreadable else ""
                unreadable[name + again] = outcome.reason
                continue
            read.append(name)
            waiting.append(outcome.pixels)
            if outcome.note is not None:
                notes[outcome.note] += 1
            if len(waiting) == BATCH_SIZE:
                classify()
        if waiting:
            classify()
    for note, count in notes.items():
        logger.info("%s (%d of %d images).", note, count, len(items))
    return Predictions(
        class_names=class_names,
        names=read,
        probabilities=probabilities[: len(read)],
        unreadable=unreadable,
        threshold=limit,
        accuracy=accuracy,
    )


def list_images(images: ImageLike | Dataset | Iterable[ImageLike]) -> Sequence[ImageLike]:
    """One image or several, as a sequence of images.

    Args:
        images: an image, as `hfprobe.data.memory.image_source` takes it; a folder, which gives the images in it
            and in its subfolders, as in `hfprobe predict`; several of these, such as an array of shape (N, H, W, 3); a
            Dataset with a column of images, or this column.

    Raises:
        InputError: no image, or an object that is neither an image nor a sequence of images.
    """
    if isinstance(images, Dataset):
        return _undecoded(images)
    rows, column = getattr(images, "source", None), getattr(images, "column_name", None)
    if isinstance(rows, Dataset):
        return _undecoded(rows, column)
    single = str | os.PathLike | bytes | bytearray | memoryview | PIL.Image.Image
    is_file = isinstance(images, Mapping) and images.keys() <= {"bytes", "path"} and bool(images)
    if isinstance(images, single) or is_file or hasattr(images, "read"):
        items: list[Any] = [images]
    elif isinstance(images, np.ndarray | torch.Tensor) and images.ndim in (0, 2, 3):
        items = [images]
    elif isinstance(images, Iterable) and not isinstance(images, Mapping) and getattr(images, "ndim", 1) != 2:
        items = list(images)
    else:
        raise InputError(f"An image is {describe(images)}. {ALLOWED}")
    if any(isinstance(item, str | os.PathLike) and os.path.isdir(item) for item in items):
        items = [one for item in items for one in _expand(item)]
    if not items:
        raise InputError(f"There is no image to classify. {ALLOWED}")
    return items


def _expand(item: ImageLike) -> list[Any]:
    is_folder = isinstance(item, str | os.PathLike) and os.path.isdir(item)
    return find_images([str(item)]) if is_folder else [item]


def _undecoded(rows: Dataset, column: str | None = None) -> Sequence[ImageLike]:
    """The images of a Dataset, each read when it is needed.

    Args:
        column: of the images; None: the one that `find_column` or a feature of type Image says.
    """
    if column is None:
        by_feature = (name for name, feature in rows.features.items() if isinstance(feature, Image))
        column = find_column(rows.column_names, "image", DataArguments()) or next(by_feature, None)
    if column is None:
        raise InputError(
            f"The Dataset has no image column; its columns: {shorten(', '.join(rows.column_names))}. Pass one of them: "
            "dataset['<column>']."
        )
    if not len(rows):
        raise InputError(f"There is no image to classify. {ALLOWED}")
    rows = rows.with_format(None).select_columns([column])
    is_image = isinstance(rows.features[column], Image)
    return (rows.cast_column(column, Image(decode=False)) if is_image else rows)[column]


@dataclass(frozen=True)
class _Fitted:
    """An image after the geometric part of the image processor, (1, 3, h, w) uint8, and what `DecodedImage` notes."""

    name: str
    pixels: torch.Tensor
    note: str | None


@dataclass(frozen=True)
class _Unreadable:
    name: str
    reason: str
    error: Exception


def _read(numbered: tuple[int, ImageLike], *, processor: BaseImageProcessor, max_pixels: int) -> _Fitted | _Unreadable:
    number, item = numbered
    path = item.get("path") if isinstance(item, Mapping) else item
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else f"image {number}"
    note = None
    try:
        source = image_source(item)
        if isinstance(source, PIL.Image.Image):
            image = convert_image(source)
        else:
            content = source.read_bytes() if isinstance(source, Path) else source
            decoded = read_image(content, max_pixels=max_pixels)
            image, note = decoded.image, decoded.note
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises a dozen kinds for a damaged file
        return _Unreadable(name, explain(error), error)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    return _Fitted(name, fit_images(pixels, processor=processor), note)
