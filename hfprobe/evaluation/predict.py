"""New pictures -> class probabilities, by the preprocessing that evaluation uses."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from hfprobe.system.errors import InputError, first_line, shorten
from hfprobe.system.html import render_table
from hfprobe.system.progress import show_progress

# Rows of the table that a notebook shows.
SHOWN = 20
# What can be classified: a path, an image of Pillow, an array of shape (H, W, 3) or (H, W) with uint8 values.
PictureLike = str | os.PathLike[str] | PIL.Image.Image | np.ndarray


@dataclass(frozen=True)
class Predictions:
    """The predictions of a model for N pictures.

    Attributes:
        class_names: C names, in the order of the columns of `probabilities`.
        names: N texts that name the pictures: the path, or the position in the list for a picture without a path.
        probabilities: (N, C) float32; each row sums to 1.
    """

    class_names: list[str]
    names: list[str]
    probabilities: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    @property
    def labels(self) -> list[str]:
        """N names, the most probable class of each picture."""
        return [self.class_names[number] for number in self.probabilities.argmax(axis=1)]

    @property
    def confidences(self) -> np.ndarray:
        """(N,) float32 in [0, 1], the probability of `labels`."""
        return self.probabilities.max(axis=1)

    def __repr__(self) -> str:
        told = zip(self.names[:SHOWN], self.labels, self.confidences, strict=False)
        lines = [f"{name}: {label} ({confidence:.1%})" for name, label, confidence in told]
        return "\n".join([*lines, f"... and {len(self) - SHOWN:,} more"] if len(self) > SHOWN else lines)

    def _repr_html_(self) -> str:
        rows = [
            (name, label, *(f"{share:.1%}" for share in shares))
            for name, label, shares in zip(self.names[:SHOWN], self.labels, self.probabilities, strict=False)
        ]
        caption = f"The first {SHOWN} of {len(self):,} pictures" if len(self) > SHOWN else ""
        return render_table(["picture", "class", *self.class_names], rows, caption=caption)


def predict_pictures(
    pictures: PictureLike | Iterable[PictureLike],
    *,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    temperature: bool = False,
) -> Predictions:
    """Classify pictures; see docs/pictures.md for how each kind of picture is read.

    Args:
        pictures: a path, a PIL image or an array of shape (H, W, 3) or (H, W) with uint8 values; or a sequence of
            these, such as an array of shape (N, H, W, 3).
        processor: the image processor that belongs to the model.
        temperature: whether to divide the logits by the temperature that was fitted on validation.

    Raises:
        InputError: there is no picture; a picture cannot be read, named with the reason; the model has no temperature.
    """
    items = list_pictures(pictures)
    divisor = calibration_temperature(model) if temperature else 1.0
    names = [str(item) if isinstance(item, str | os.PathLike) else f"picture {n}" for n, item in enumerate(items)]
    device = find_device()
    model.to(device).eval()
    found = []
    with (
        ThreadPoolExecutor() as threads,  # Pillow decodes without holding Python's lock
        show_progress(total=len(items), desc="Predicting", unit="image") as progress,
        torch.inference_mode(),
    ):
        for first in range(0, len(items), BATCH_SIZE):
            batch, called = items[first : first + BATCH_SIZE], names[first : first + BATCH_SIZE]
            fitted = threads.map(lambda item, name: _fit(item, name=name, processor=processor), batch, called)
            pixels = normalize(torch.cat(list(fitted)), processor=processor)
            pixels = pixels.to(device, memory_format=torch.channels_last)
            logits = model(pixel_values=pixels).logits.float() / divisor
            found.append(logits.softmax(-1).cpu().numpy())
            progress.update(len(batch))
    class_names = [model.config.id2label[number] for number in range(model.config.num_labels)]
    return Predictions(class_names=class_names, names=names, probabilities=np.concatenate(found))


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


def _fit(item: PictureLike, *, name: str, processor: BaseImageProcessor) -> torch.Tensor:
    """(1, 3, h, w) uint8: a picture after the geometric part of the image processor.

    Raises:
        InputError: it cannot be read.
    """
    try:
        if isinstance(item, str | os.PathLike):
            image = read_picture(Path(item).read_bytes()).image
        elif isinstance(item, PIL.Image.Image):
            image = convert_picture(item)
        else:
            image = convert_picture(PIL.Image.fromarray(_check_array(item)))
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises a dozen kinds for a damaged file
        reason = "not an image" if isinstance(error, PIL.UnidentifiedImageError) else first_line(error)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else reason
        raise InputError(f"'{shorten(name)}' cannot be read: {reason}. Replace it, or leave it out.") from error
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    return fit_images(pixels, processor=processor)


def _check_array(item: Any) -> np.ndarray:
    array = np.asarray(item)
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)) or not array.size:
        raise ValueError(f"it is {_kind(item)}. {ALLOWED.rstrip('.')}")
    return array


def _kind(item: Any) -> str:
    if isinstance(item, np.ndarray):
        return f"an array of shape {item.shape} with {item.dtype} values"
    return f"an object of type {type(item).__name__}"
