"""One picture -> the answers of several models, by the decoding and the preprocessing that `hfprobe predict` uses."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from transformers import BaseImageProcessor, PreTrainedModel

from hfprobe.data.pixels.image_files import MAX_PIXELS, explain, pixel_limit, read_image
from hfprobe.data.pixels.transforms import fit_images, input_size, normalize
from hfprobe.models import class_names_of
from hfprobe.models.inference import BATCH_SIZE
from hfprobe.models.loading import load_model
from hfprobe.models.thresholds import find_threshold
from hfprobe.system.errors import InputError
from hfprobe.system.machine import find_device
from hfprobe.system.ranges import USUAL_ACCURACY

# The picture is covered in a grid of so many squares along each side.
GRID = 8


class UnreadableError(ValueError):
    """Why a picture cannot be read, in one line."""


@dataclass(frozen=True)
class Answer:
    """What one model says of one picture.

    Attributes:
        model: its name.
        labels: C class names.
        probabilities: C numbers that sum to 1, not calibrated: those of `hfprobe predict`.
        threshold: probability from which an answer is sure, as of `hfprobe predict --threshold auto`; None if the model
            has none.
        sure: whether the largest probability reaches the threshold; True without a threshold.
        milliseconds: for resizing, normalisation and the network, without decoding.
        seen: the picture as the network reads it, before normalisation: the data URI of a PNG file.
        side: of `seen`, in pixels.
    """

    model: str
    labels: list[str]
    probabilities: list[float]
    threshold: float | None
    sure: bool
    milliseconds: float
    seen: str
    side: int


@dataclass(frozen=True)
class Answers:
    """The answers of all models to one picture of `width` x `height` pixels; `note` is that of `DecodedImage`."""

    width: int
    height: int
    note: str | None
    answers: list[Answer]


@dataclass(frozen=True)
class Decisive:
    """How much the probability of a model's answer falls when a square of the picture is covered.

    Attributes:
        label: the answer.
        falls: GRID rows of GRID numbers, each in [-1, 1]: the probability of the whole picture minus that of the
            picture with this square in grey.
    """

    model: str
    label: str
    falls: list[list[float]]


class LoadedModel:
    """A model on its device, with its image processor and its threshold."""

    def __init__(self, name: str, model: PreTrainedModel, processor: BaseImageProcessor):
        self.name, self.processor = name, processor
        self.model = model.to(find_device()).eval()
        self.labels = class_names_of(model)
        self.threshold: float | None = None
        with suppress(InputError):  # it has no such threshold, and the page says so
            self.threshold = find_threshold(model, USUAL_ACCURACY, temperature=False)

    def fit(self, pixels: torch.Tensor) -> torch.Tensor:
        """(1, 3, H, W) uint8 -> (1, 3, h, w) uint8, what the network reads before normalisation."""
        return fit_images(pixels, processor=self.processor)

    def classify(self, fitted: torch.Tensor) -> np.ndarray:
        """(B, 3, h, w) uint8 -> (B, C) float32 probabilities, as `hfprobe predict` computes them."""
        inputs = normalize(fitted, processor=self.processor)
        inputs = inputs.to(self.model.device, memory_format=torch.channels_last)
        return self.model(pixel_values=inputs).logits.float().softmax(-1).cpu().numpy()

    def answer(self, pixels: torch.Tensor) -> Answer:
        start = time.perf_counter()
        fitted = self.fit(pixels)
        (probabilities,) = self.classify(fitted)
        seconds = time.perf_counter() - start
        return Answer(
            model=self.name,
            labels=self.labels,
            probabilities=probabilities.tolist(),
            threshold=self.threshold,
            sure=self.threshold is None or bool(probabilities.max() >= self.threshold),
            milliseconds=1000 * seconds,
            seen=_data_uri(fitted[0]),
            side=fitted.shape[-1],
        )

    def find_decisive(self, pixels: torch.Tensor) -> Decisive:
        """Occlusion (Zeiler and Fergus 2014): one grey square after another covers the picture that the network reads.

        The squares have the mean colour of the training images of the network, which becomes 0 after normalisation.
        """
        fitted = self.fit(pixels)
        (whole,) = self.classify(fitted)
        covered = _cover(fitted[0], colour=np.multiply(255, self.processor.image_mean))
        shares = np.concatenate([self.classify(part) for part in covered.split(BATCH_SIZE)])[:, whole.argmax()]
        falls = (whole.max() - shares).reshape(GRID, GRID)
        return Decisive(self.name, self.labels[whole.argmax()], falls.tolist())


class Models:
    """Several models that answer one picture at a time, so that they do not disturb each other's times.

    Attributes:
        names: of the models.
        labels: the class names of all of them, each once.
    """

    def __init__(self, loaded: Sequence[LoadedModel], *, max_pixels: int = MAX_PIXELS):
        self._loaded, self._max_pixels, self._lock = loaded, max_pixels, threading.Lock()
        self.names = [one.name for one in loaded]
        self.labels = list(dict.fromkeys(label for one in loaded for label in one.labels))
        with torch.inference_mode():  # the first pass of a network is the slowest
            for one in loaded:
                one.answer(torch.zeros((1, 3, *2 * [input_size(one.processor)]), dtype=torch.uint8))

    def answer(self, content: bytes) -> Answers:
        """The answers to the picture in the bytes of a file.

        Raises:
            UnreadableError: it cannot be read, or has too many pixels.
        """
        with self._lock, torch.inference_mode():
            pixels, note = self._read(content)
            height, width = pixels.shape[2:]
            return Answers(width, height, note, [one.answer(pixels) for one in self._loaded])

    def find_decisive(self, content: bytes) -> list[Decisive]:
        """Which squares of the picture decided, for each model; see `LoadedModel.find_decisive`.

        Raises:
            UnreadableError: as in `answer`.
        """
        with self._lock, torch.inference_mode():
            pixels, _ = self._read(content)
            return [one.find_decisive(pixels) for one in self._loaded]

    def check(self, content: bytes) -> None:
        """Decode a picture, and raise UnreadableError as `answer` does."""
        with self._lock:
            self._read(content)

    def _read(self, content: bytes) -> tuple[torch.Tensor, str | None]:
        """(1, 3, H, W) uint8, and the note of `DecodedImage`."""
        try:
            with pixel_limit(self._max_pixels):
                decoded = read_image(content, max_pixels=self._max_pixels)
        except MemoryError:
            raise
        except Exception as error:  # Pillow raises a dozen kinds for a damaged file
            raise UnreadableError(f"This picture cannot be read: {explain(error)}. Choose another one.") from error
        return torch.from_numpy(np.array(decoded.image)).permute(2, 0, 1)[None], decoded.note


def load_models(names: Sequence[str], folders: Sequence[Path]) -> Models:
    """The models in these folders.

    Raises:
        InputError: a folder holds no model that hfprobe can load.
    """
    return Models([LoadedModel(name, *load_model(folder)) for name, folder in zip(names, folders, strict=True)])


def _cover(fitted: torch.Tensor, *, colour: np.ndarray) -> torch.Tensor:
    """GRID * GRID copies of a picture (3, h, w) uint8, row by row, each with one square in a colour (3,)."""
    rows, columns = (np.linspace(0, side, GRID + 1).round().astype(int) for side in fitted.shape[1:])
    covered = fitted.repeat(GRID * GRID, 1, 1, 1)
    paint = torch.from_numpy(colour.round().astype(np.uint8))[:, None, None]
    for number, copy in enumerate(covered):
        row, column = divmod(number, GRID)
        copy[:, rows[row] : rows[row + 1], columns[column] : columns[column + 1]] = paint
    return covered


def _data_uri(fitted: torch.Tensor) -> str:
    buffer = BytesIO()
    PIL.Image.fromarray(fitted.permute(1, 2, 0).numpy()).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
