"""New pictures -> class probabilities, by the preprocessing that evaluation uses."""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from transformers import BaseImageProcessor, PreTrainedModel

from hfprobe.data.pictures import convert_picture, read_picture
from hfprobe.data.transforms import fit_images, normalize
from hfprobe.evaluation.evaluate import BATCH_SIZE, calibration_temperature, find_device
from hfprobe.evaluation.predictions import Predictions
from hfprobe.models import class_names_of
from hfprobe.system.errors import InputError, first_line, shorten
from hfprobe.system.machine import count_cores
from hfprobe.system.progress import show_progress

logger = logging.getLogger(__name__)

# Pictures that may be decoded before the model reads them; it bounds the memory.
AHEAD = 2 * BATCH_SIZE
# What can be classified: a path, an image of Pillow, an array of shape (H, W, 3) or (H, W) with uint8 values.
PictureLike = str | os.PathLike[str] | PIL.Image.Image | np.ndarray


def predict_pictures(
    pictures: PictureLike | Iterable[PictureLike],
    *,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    temperature: bool = False,
    skip_unreadable: bool = False,
) -> Predictions:
    """Classify pictures; see docs/pictures.md for how each kind of picture is read.

    Threads decode pictures while the model classifies those before them. At most AHEAD decoded pictures wait, so that
    the memory does not grow with the number of pictures.

    Args:
        pictures: a path, a PIL image or an array of shape (H, W, 3) or (H, W) with uint8 values; or a sequence of
            these, such as an array of shape (N, H, W, 3).
        processor: the image processor that belongs to the model.
        temperature: whether to divide the logits by the temperature that was fitted on validation.
        skip_unreadable: whether a picture that cannot be read is listed in `Predictions.unreadable`.

    Raises:
        InputError: there is no picture; a picture cannot be read, named with the reason; the model has no temperature.
    """
    items = list_pictures(pictures)
    divisor = calibration_temperature(model) if temperature else 1.0
    class_names = class_names_of(model)
    names = [str(item) if isinstance(item, str | os.PathLike) else f"picture {n}" for n, item in enumerate(items)]
    device = find_device()
    model.to(device).eval()
    read: list[str] = []
    unreadable: dict[str, str] = {}
    notes: Counter[str] = Counter()
    waiting: list[torch.Tensor] = []  # each (1, 3, h, w) uint8
    # Allocated once: a small array kept after each batch would fragment the memory, which then grows.
    probabilities = np.empty((len(items), len(class_names)), dtype=np.float32)

    def classify() -> None:
        pixels = normalize(torch.cat(waiting), processor=processor).to(device, memory_format=torch.channels_last)
        logits = model(pixel_values=pixels).logits.float() / divisor
        probabilities[len(read) - len(waiting) : len(read)] = logits.softmax(-1).cpu().numpy()
        waiting.clear()

    with (
        # Pillow decodes without holding Python's lock. More threads would need more memory: 200 MB for 12 megapixels.
        ThreadPoolExecutor(count_cores()) as threads,
        show_progress(total=len(items), desc="Predicting", unit="image") as progress,
        torch.inference_mode(),
    ):
        for name, outcome in zip(names, _read_ahead(items, processor=processor, threads=threads), strict=True):
            progress.update()
            if isinstance(outcome, _Unreadable):
                if not skip_unreadable:
                    threads.shutdown(wait=False, cancel_futures=True)
                    raise InputError(
                        f"'{shorten(name)}' cannot be read: {outcome.reason}. Replace it, or leave it out."
                    ) from outcome.error
                unreadable[name] = outcome.reason
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


def list_pictures(pictures: PictureLike | Iterable[PictureLike]) -> Sequence[PictureLike]:
    """One picture or several, as a sequence of pictures.

    Raises:
        InputError: no picture, or an object that is neither a picture nor a sequence of pictures.
    """
    if isinstance(pictures, str | os.PathLike | PIL.Image.Image) or getattr(pictures, "ndim", 4) in (2, 3):
        items: list[Any] = [pictures]
    elif isinstance(pictures, Iterable):
        items = list(pictures)
    else:
        raise InputError(f"A picture is {_kind(pictures)}. {ALLOWED}")
    if not items:
        raise InputError(f"There is no picture to classify. {ALLOWED}")
    return items


ALLOWED = "Allowed: paths, PIL images, or uint8 arrays of shape (H, W, 3) or (H, W)."


@dataclass(frozen=True)
class _Fitted:
    """A picture after the geometric part of the image processor, (1, 3, h, w) uint8, and the note of its Picture."""

    pixels: torch.Tensor
    note: str | None


@dataclass(frozen=True)
class _Unreadable:
    reason: str
    error: Exception


def _read_ahead(
    items: Iterable[PictureLike], *, processor: BaseImageProcessor, threads: ThreadPoolExecutor
) -> Iterator[_Fitted | _Unreadable]:
    """Read the pictures in their order, at most AHEAD of them before they are asked for."""
    pending: deque[Future[_Fitted | _Unreadable]] = deque()
    for item in items:
        pending.append(threads.submit(_read, item, processor=processor))
        if len(pending) == AHEAD:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _read(item: PictureLike, *, processor: BaseImageProcessor) -> _Fitted | _Unreadable:
    note = None
    try:
        if isinstance(item, str | os.PathLike):
            picture = read_picture(Path(item).read_bytes())
            image, note = picture.image, picture.note
        elif isinstance(item, PIL.Image.Image):
            image = convert_picture(item)
        else:
            image = convert_picture(PIL.Image.fromarray(_check_array(item)))
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises a dozen kinds for a damaged file
        reason = "not an image" if isinstance(error, PIL.UnidentifiedImageError) else first_line(error)
        return _Unreadable(error.strerror if isinstance(error, OSError) and error.strerror else reason, error)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    return _Fitted(fit_images(pixels, processor=processor), note)


def _check_array(item: Any) -> np.ndarray:
    array = np.asarray(item)
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)) or not array.size:
        raise ValueError(f"it is {_kind(item)}. {ALLOWED.rstrip('.')}")
    return array


def _kind(item: Any) -> str:
    if isinstance(item, np.ndarray):
        return f"an array of shape {item.shape} with {item.dtype} values"
    return f"an object of type {type(item).__name__}"
