"""Decode images once, with all cores, and cache them as uint8 in a memory-mapped file for each model."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset

from hfprobe.data import cache
from hfprobe.data.pixels.image_files import DIGEST_BYTES, MAX_PIXELS, pixel_limit, read_image
from hfprobe.data.pixels.reading import describe_error, in_chunks, in_threads, row_numbers, source_of
from hfprobe.data.pixels.store import ImageSplit
from hfprobe.data.pixels.transforms import describe_geometry, fit_images, input_size
from hfprobe.data.sources.columns import image_paths, label_numbers
from hfprobe.system.files import create_array, staging_folder
from hfprobe.system.progress import show_progress

if TYPE_CHECKING:  # slow to import
    from transformers import BaseImageProcessor

logger = logging.getLogger(__name__)

FITTED_AT_ONCE = 100  # images
RECORD_FILE = "record.json"


def is_decoded(
    rows: Dataset, *, split: str, processor: BaseImageProcessor, source_key: str, max_pixels: int = MAX_PIXELS
) -> bool:
    """Whether the cache holds what `decode_images` would return for these arguments."""
    places = _places(rows, split=split, processor=processor, source_key=source_key, max_pixels=max_pixels)
    return _find_kept(places, processor) is not None


def decode_images(
    rows: Dataset,
    *,
    part: str,
    split: str,
    processor: BaseImageProcessor,
    source_key: str,
    max_pixels: int = MAX_PIXELS,
) -> ImageSplit:
    """Decode every image of `rows` into the cache; a second call reads the cache.

    If all images have the same size and no more pixels than the input of the model, they are cached unchanged.
    Otherwise, the geometric part of the image processor is applied to each of them first. What the model sees of an
    image does not depend on the other images. Images that cannot be read are left out and named in the result.

    Args:
        rows: columns `image` (undecoded), `label` and `index`.
        part: `train`, `validation`, `test` or `all`, for the progress bar.
        split: split of the source, for messages.
        processor: image processor of the model.
        source_key: text that changes when a source file changes.
        max_pixels: images with more pixels cannot be read.

    Raises:
        InputError, MachineError: the cache cannot be written.
    """
    how: dict[str, Any] = {"split": split, "source_key": source_key, "max_pixels": max_pixels}
    places = _places(rows, processor=processor, **how)
    kept = _find_kept(places, processor)
    was_kept = kept is not None
    if kept is None:
        (kept,) = fill_cache(rows, part=part, processors=[processor], **how)
    labels = label_numbers(rows)
    index = row_numbers(rows)
    record = json.loads((kept / RECORD_FILE).read_text())
    for note, count in record["notes"].items():
        logger.info("%s (%d of %d %s images).", note, count, len(index), part)
    lost = {int(position): reason for position, reason in record["unreadable"].items()}
    if was_kept and lost and _can_read_one(rows.select(lost), processor=processor, max_pixels=max_pixels):
        # Then the reason was not in the file: too many open files, or no decoder for its format.
        shutil.rmtree(kept)
        return decode_images(rows, part=part, processor=processor, **how)
    readable = np.setdiff1d(np.arange(len(index)), list(lost))
    paths = image_paths(rows)
    return ImageSplit(
        images=np.load(kept / "images.npy", mmap_mode="r")[: len(index) - len(lost)],
        labels=labels[readable],
        index=index[readable],
        fitted=kept == places[1],
        digests=np.load(kept / "digests.npy")[: len(index) - len(lost)],
        files=tuple(paths[position] or "" for position in readable) if any(paths) else (),
        unreadable=tuple(f"image {index[position]} of split '{split}'{reason}" for position, reason in lost.items()),
    )


def fill_cache(
    rows: Dataset,
    *,
    part: str,
    split: str,
    processors: Sequence[BaseImageProcessor],
    source_key: str,
    max_pixels: int = MAX_PIXELS,
) -> list[Path]:
    """Decode every image of `rows` once, and keep it in the cache for each of several models.

    Args:
        processors: image processors of the models, for which the cache does not hold the images.
        rows, part, split, source_key, max_pixels: see `decode_images`.

    Returns:
        The folder of each model in the cache.

    Raises:
        InputError, MachineError: the cache cannot be written.
    """
    how: dict[str, Any] = {"split": split, "source_key": source_key, "max_pixels": max_pixels}
    places = [_places(rows, processor=processor, **how) for processor in processors]
    folder = places[0][0].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with staging_folder(folder, prefix="part-") as staging:
            writers = []
            for number, processor in enumerate(processors):
                work = staging / str(number)
                work.mkdir()
                writers.append(_Writer(work, count=len(rows), processor=processor))
            with show_progress(total=len(rows), desc=f"Decoding {part} images", unit="image") as progress:
                for found in _decode_all(rows, processors=processors, max_pixels=max_pixels):
                    for writer, one in zip(writers, found, strict=True):
                        writer.add(one)
                    progress.update()
            return [_keep(writer, *pair) for writer, pair in zip(writers, places, strict=True)]
    except OSError as error:
        raise cache.cannot_keep("decoded images", folder, error) from error


def _keep(writer: _Writer, original: Path, fitted: Path) -> Path:
    """Move what was written into the cache."""
    writer.finish()
    kept = fitted if writer.fitted else original
    if kept.exists() and not (kept / RECORD_FILE).is_file():
        shutil.rmtree(kept)  # incomplete: a part of it was removed
    try:
        os.rename(writer.folder, kept)
    except OSError:  # another process, or another model, has decoded the same images in the meantime
        if not (kept / RECORD_FILE).is_file():
            raise
    return kept


def decode_some(rows: Dataset, *, processor: BaseImageProcessor, max_pixels: int = MAX_PIXELS) -> ImageSplit:
    """Decode a few images, fitted to the input of the model; nothing is cached.

    Images that cannot be read are left out.

    Args:
        rows, processor, max_pixels: see `decode_images`.
    """
    found = [one for (one,) in _decode_all(rows, processors=[processor], max_pixels=max_pixels)]
    positions = [position for position, one in enumerate(found) if isinstance(one, _Decoded)]
    side = input_size(processor)
    fitted = [
        one.pixels if one.fitted else _fit(one.pixels[None], processor)[0] for one in found if isinstance(one, _Decoded)
    ]
    return ImageSplit(
        images=np.stack(fitted) if fitted else np.empty((0, side, side, 3), np.uint8),
        labels=label_numbers(rows)[positions],
        index=row_numbers(rows)[positions],
        fitted=True,
    )


def _places(
    rows: Dataset, *, split: str, processor: BaseImageProcessor, source_key: str, max_pixels: int
) -> tuple[Path, Path]:
    """The folders of the cache for images as they are, and for images that are fitted to the model."""
    index = row_numbers(rows)
    key = hashlib.sha256(f"{source_key} {split} {max_pixels} ".encode() + index.tobytes()).hexdigest()[:32]
    geometry = hashlib.sha256(describe_geometry(processor).encode()).hexdigest()[:16]
    folder = cache.cache_folder() / "decoded"
    return folder / key, folder / f"{key}-{geometry}"


def _find_kept(places: tuple[Path, Path], processor: BaseImageProcessor) -> Path | None:
    """The folder of the cache with decoded images for a model; None without one."""
    return next((place for place in places if _serves(place, processor)), None)


def _serves(place: Path, processor: BaseImageProcessor) -> bool:
    """Whether a folder holds decoded images that a model can use: no image has more pixels than its input."""
    if not (place / RECORD_FILE).is_file():
        return False
    height, width = np.load(place / "images.npy", mmap_mode="r").shape[1:3]
    return height * width <= input_size(processor) ** 2


@dataclass(frozen=True)
class _Decoded:
    """An image for the writer: (H, W, 3) uint8 pixels, whether they are fitted, and what `DecodedImage` says of it."""

    pixels: np.ndarray
    fitted: bool
    digest: bytes
    note: str | None


def _decode_all(
    rows: Dataset, *, processors: Sequence[BaseImageProcessor], max_pixels: int
) -> Iterator[list[_Decoded | str]]:
    """Each image in order, for each of the models, or why it cannot be read."""

    def decode(items: list[dict | None]) -> list[list[_Decoded | str]]:
        return [_decode(item, processors, max_pixels) for item in items]

    with pixel_limit(max_pixels):
        yield from chain.from_iterable(in_threads(decode, in_chunks(rows)))


def _can_read_one(rows: Dataset, *, processor: BaseImageProcessor, max_pixels: int) -> bool:
    found = _decode_all(rows, processors=[processor], max_pixels=max_pixels)
    return any(isinstance(one, _Decoded) for (one,) in found)


def _decode(item: dict | None, processors: Sequence[BaseImageProcessor], max_pixels: int) -> list[_Decoded | str]:
    try:
        source = source_of(item)
        content = source if isinstance(source, bytes) else source.read_bytes()
        decoded = read_image(content, max_pixels=max_pixels)
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises many types of errors for a damaged file
        return [describe_error(item, error)] * len(processors)
    pixels = np.asarray(decoded.image)
    found: list[_Decoded | str] = []
    for processor in processors:
        large = pixels.shape[0] * pixels.shape[1] > input_size(processor) ** 2
        one = _fit(pixels[None], processor)[0] if large else pixels
        found.append(_Decoded(one, large, decoded.digest, decoded.note))
    return found


def _fit(pixels: np.ndarray, processor: BaseImageProcessor) -> np.ndarray:
    """Images (N, H, W, 3) uint8 at the size of the model's input."""
    images = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2)
    return fit_images(images, processor=processor).permute(0, 2, 3, 1).numpy()


class _Writer:
    """Write images one by one into `images.npy`, `digests.npy` and RECORD_FILE of a folder.

    Images are stored unchanged until one differs in size from the first or is larger than the input of the model. From
    then on, images are fitted before they are stored, and those stored earlier are fitted too. An image that cannot be
    read takes no place; the places left over at the end of the files are not used.
    """

    def __init__(self, folder: Path, *, count: int, processor: BaseImageProcessor):
        self.folder = folder
        self.count = count
        self.processor = processor
        self.fitted = False
        self.images: np.memmap | None = None
        self.digests = np.zeros((count, DIGEST_BYTES), dtype=np.uint8)
        self.notes: Counter[str] = Counter()
        self.unreadable: dict[int, str] = {}
        self.done = 0

    def add(self, found: _Decoded | str) -> None:
        if isinstance(found, str):
            self.unreadable[self.done + len(self.unreadable)] = found
            return
        if not self.fitted and (found.fitted or not self._keeps(found.pixels.shape)):
            self._fit_earlier()
        if self.images is None:
            self.images = self._create("originals.npy", found.pixels.shape)
        fit = self.fitted and not found.fitted
        self.images[self.done] = _fit(found.pixels[None], self.processor)[0] if fit else found.pixels
        self.digests[self.done] = np.frombuffer(found.digest, dtype=np.uint8)
        if found.note is not None:
            self.notes[found.note] += 1
        self.done += 1

    def finish(self) -> None:
        if self.images is None:  # no image could be read
            self._fit_earlier()
        else:
            self.images.flush()
        if not self.fitted:
            os.rename(self.folder / "originals.npy", self.folder / "images.npy")
        np.save(self.folder / "digests.npy", self.digests)
        (self.folder / RECORD_FILE).write_text(json.dumps({"notes": self.notes, "unreadable": self.unreadable}))

    def _keeps(self, shape: tuple[int, ...]) -> bool:
        return self.images is None or self.images.shape[1:] == shape

    def _fit_earlier(self) -> None:
        self.fitted = True
        side = input_size(self.processor)
        images = self._create("images.npy", (side, side, 3))
        if self.images is not None:
            for first in range(0, self.done, FITTED_AT_ONCE):
                last = min(first + FITTED_AT_ONCE, self.done)
                images[first:last] = _fit(self.images[first:last], self.processor)
        self.images = images
        (self.folder / "originals.npy").unlink(missing_ok=True)

    def _create(self, name: str, shape: tuple[int, ...]) -> np.memmap:
        return create_array(self.folder / name, dtype=np.uint8, shape=(self.count, *shape))
