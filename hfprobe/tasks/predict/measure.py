"""New pictures -> class probabilities, by the preprocessing that evaluation uses."""

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
from hfprobe.data.pixels.picture_files import find_pictures
from hfprobe.data.pixels.pictures import MAX_PIXELS, convert_picture, explain, pixel_limit, read_picture
from hfprobe.data.pixels.reading import in_threads
from hfprobe.data.pixels.transforms import fit_images, normalize
from hfprobe.data.sources.columns import find_column
from hfprobe.models import class_names_of
from hfprobe.models.inference import BATCH_SIZE, calibration_temperature
from hfprobe.system.errors import InputError, shorten
from hfprobe.system.machine import find_device
from hfprobe.system.progress import show_progress
from hfprobe.tasks.predict.result import Predictions

logger = logging.getLogger(__name__)

# Pictures that may be decoded before the model reads them; it bounds the memory.
AHEAD = 2 * BATCH_SIZE
# What can be classified, see `hfprobe.data.memory.IMAGE_KINDS`.
PictureLike: TypeAlias = (
    str | os.PathLike[str] | bytes | BinaryIO | Mapping[str, Any] | PIL.Image.Image | np.ndarray | torch.Tensor
)
ALLOWED = f"Allowed: {IMAGE_KINDS}; folders; or several of these in a list, an array or a datasets.Dataset."


def predict_pictures(
    pictures: PictureLike | Dataset | Iterable[PictureLike],
    *,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    temperature: bool = False,
    skip_unreadable: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Predictions:
    """Classify pictures; see docs/pictures.md for how each kind of picture is read.

    Threads decode pictures while the model classifies those before them. At most AHEAD decoded pictures wait, so that
    the memory does not grow with the number of pictures.

    Args:
        pictures: see `list_pictures`.
        processor: the image processor that belongs to the model.
        temperature: whether to divide the logits by the temperature that was fitted on validation.
        skip_unreadable: whether a picture that cannot be read is listed in `Predictions.unreadable`.
        max_pixels: pictures with more pixels cannot be read.

    Raises:
        InputError: there is no picture; a picture cannot be read, named with the reason; the model has no temperature.
    """
    items = list_pictures(pictures)
    divisor = calibration_temperature(model) if temperature else 1.0
    class_names = class_names_of(model)
    device = find_device()
    model.to(device).eval()
    read: list[str] = []
    unreadable: dict[str, str] = {}
    notes: Counter[str] = Counter()
    waiting: list[torch.Tensor] = []  # each (1, 3, h, w) uint8
    # Allocated once: a small array kept after each batch would fragment the memory, which then grows.
    probabilities = np.empty((len(items), len(class_names)), dtype=np.float32)

    read_one = partial(_read, processor=processor, max_pixels=max_pixels)

    def classify() -> None:
        pixels = normalize(torch.cat(waiting), processor=processor).to(device, memory_format=torch.channels_last)
        logits = model(pixel_values=pixels).logits.float() / divisor
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
        logger.info("%s (%d of %d pictures).", note, count, len(items))
    return Predictions(
        class_names=class_names, names=read, probabilities=probabilities[: len(read)], unreadable=unreadable
    )


def list_pictures(pictures: PictureLike | Dataset | Iterable[PictureLike]) -> Sequence[PictureLike]:
    """One picture or several, as a sequence of pictures.

    Args:
        pictures: a picture, as `hfprobe.data.memory.image_source` takes it; a folder, which gives the pictures in it
            and in its subfolders, as in `hfprobe predict`; several of these, such as an array of shape (N, H, W, 3); a
            Dataset with a column of images, or this column.

    Raises:
        InputError: no picture, or an object that is neither a picture nor a sequence of pictures.
    """
    if isinstance(pictures, Dataset):
        return _undecoded(pictures)
    rows, column = getattr(pictures, "source", None), getattr(pictures, "column_name", None)
    if isinstance(rows, Dataset):
        return _undecoded(rows, column)
    single = str | os.PathLike | bytes | bytearray | memoryview | PIL.Image.Image
    is_file = isinstance(pictures, Mapping) and pictures.keys() <= {"bytes", "path"} and bool(pictures)
    if isinstance(pictures, single) or is_file or hasattr(pictures, "read"):
        items: list[Any] = [pictures]
    elif isinstance(pictures, np.ndarray | torch.Tensor) and pictures.ndim in (0, 2, 3):
        items = [pictures]
    elif isinstance(pictures, Iterable) and not isinstance(pictures, Mapping) and getattr(pictures, "ndim", 1) != 2:
        items = list(pictures)
    else:
        raise InputError(f"A picture is {describe(pictures)}. {ALLOWED}")
    if any(isinstance(item, str | os.PathLike) and os.path.isdir(item) for item in items):
        items = [one for item in items for one in _expand(item)]
    if not items:
        raise InputError(f"There is no picture to classify. {ALLOWED}")
    return items


def _expand(item: PictureLike) -> list[Any]:
    is_folder = isinstance(item, str | os.PathLike) and os.path.isdir(item)
    return find_pictures([str(item)]) if is_folder else [item]


def _undecoded(rows: Dataset, column: str | None = None) -> Sequence[PictureLike]:
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
        raise InputError(f"There is no picture to classify. {ALLOWED}")
    rows = rows.with_format(None).select_columns([column])
    is_image = isinstance(rows.features[column], Image)
    return (rows.cast_column(column, Image(decode=False)) if is_image else rows)[column]


@dataclass(frozen=True)
class _Fitted:
    """A picture after the geometric part of the image processor, (1, 3, h, w) uint8, and the note of its Picture."""

    name: str
    pixels: torch.Tensor
    note: str | None


@dataclass(frozen=True)
class _Unreadable:
    name: str
    reason: str
    error: Exception


def _read(
    numbered: tuple[int, PictureLike], *, processor: BaseImageProcessor, max_pixels: int
) -> _Fitted | _Unreadable:
    number, item = numbered
    path = item.get("path") if isinstance(item, Mapping) else item
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else f"picture {number}"
    note = None
    try:
        source = image_source(item)
        if isinstance(source, PIL.Image.Image):
            image = convert_picture(source)
        else:
            content = source.read_bytes() if isinstance(source, Path) else source
            picture = read_picture(content, max_pixels=max_pixels)
            image, note = picture.image, picture.note
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises a dozen kinds for a damaged file
        return _Unreadable(name, explain(error), error)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    return _Fitted(name, fit_images(pixels, processor=processor), note)
