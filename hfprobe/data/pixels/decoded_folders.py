"""The folders of the cache that hold decoded images: how they are written, and how images are found in them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from hfprobe.data.cache import STAMP_BYTES
from hfprobe.data.pixels.image_files import DIGEST_BYTES
from hfprobe.data.pixels.transforms import describe_geometry, fit_images, input_size
from hfprobe.system.files import create_array, read_json

if TYPE_CHECKING:  # slow to import
    from transformers import BaseImageProcessor

FITTED_AT_ONCE = 100  # images
RECORD_FILE = "record.json"
STAMPS_FILE = "stamps.npy"


@dataclass(frozen=True)
class Decoded:
    """An image for a `Writer`: (H, W, 3) uint8 pixels, whether they are fitted, and what `DecodedImage` says of it."""

    pixels: np.ndarray
    fitted: bool
    digest: bytes
    note: str | None


@dataclass(frozen=True)
class Shard:
    """Consecutive images of a dataset in a folder, as a `Writer` has left them.

    Attributes:
        fitted: whether they are fitted.
    """

    folder: Path
    fitted: bool

    def read(self) -> Iterator[tuple[Decoded | str, np.ndarray]]:
        """What the writer was given: each image, or why it cannot be read, and its stamp."""
        images = np.load(self.folder / "images.npy", mmap_mode="r")
        digests, stamps = np.load(self.folder / "digests.npy"), np.load(self.folder / STAMPS_FILE)
        record = json.loads((self.folder / RECORD_FILE).read_text())
        unreadable = {int(position): reason for position, reason in record["unreadable"].items()}
        notes = {at: note for note, places in record["notes"].items() for at in places}
        row = 0
        for position in range(len(stamps) + len(unreadable)):
            if position in unreadable:
                yield unreadable[position], np.zeros(STAMP_BYTES, dtype=np.uint8)
            else:
                yield Decoded(images[row], self.fitted, digests[row].tobytes(), notes.get(row)), stamps[row]
                row += 1


def fit_pixels(pixels: np.ndarray, processor: BaseImageProcessor) -> np.ndarray:
    """Images (N, H, W, 3) uint8 at the size of the model's input."""
    images = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2)
    return fit_images(images, processor=processor).permute(0, 2, 3, 1).numpy()


class Writer:
    """Write images one by one into `images.npy`, `digests.npy`, STAMPS_FILE and RECORD_FILE of a folder.

    Images are stored unchanged until one differs in size from the first or is larger than the input of the model. From
    then on, images are fitted before they are stored, and those stored earlier are fitted too. An image that cannot be
    read takes no place; the places left over at the end of the files are not used.

    Args:
        count: of the images, N.
        processor: image processor of the model.
    """

    def __init__(self, folder: Path, *, count: int, processor: BaseImageProcessor):
        self.folder = folder
        self.count = count
        self.processor = processor
        self.fitted = False
        self.images: np.memmap | None = None
        self.digests = np.zeros((count, DIGEST_BYTES), dtype=np.uint8)
        self.stamps = np.zeros((count, STAMP_BYTES), dtype=np.uint8)
        self.notes: dict[str, list[int]] = defaultdict(list)
        self.unreadable: dict[int, str] = {}
        self.done = 0

    def add(self, found: Decoded | str, *, stamp: np.ndarray) -> None:
        """Write the next image.

        Args:
            found: the image, or why it cannot be read.
            stamp: (STAMP_BYTES,) uint8, see `find_known`.
        """
        if isinstance(found, str):
            self.unreadable[self.done + len(self.unreadable)] = found
            return
        if not self.fitted and (found.fitted or not self._keeps(found.pixels.shape)):
            self._fit_earlier()
        if self.images is None:
            self.images = self._create("originals.npy", found.pixels.shape)
        fit = self.fitted and not found.fitted
        self.images[self.done] = fit_pixels(found.pixels[None], self.processor)[0] if fit else found.pixels
        self.stamps[self.done] = stamp
        self.digests[self.done] = np.frombuffer(found.digest, dtype=np.uint8)
        if found.note is not None:
            self.notes[found.note].append(self.done)
        self.done += 1

    def finish(self) -> Shard:
        if self.images is None:  # no image could be read
            self._fit_earlier()
        else:
            self.images.flush()
        if not self.fitted:
            os.rename(self.folder / "originals.npy", self.folder / "images.npy")
        np.save(self.folder / "digests.npy", self.digests)
        np.save(self.folder / STAMPS_FILE, self.stamps[: self.done])
        (self.folder / RECORD_FILE).write_text(json.dumps({"notes": self.notes, "unreadable": self.unreadable}))
        return Shard(self.folder, self.fitted)

    def _keeps(self, shape: tuple[int, ...]) -> bool:
        return self.images is None or self.images.shape[1:] == shape

    def _fit_earlier(self) -> None:
        self.fitted = True
        side = input_size(self.processor)
        images = self._create("images.npy", (side, side, 3))
        if self.images is not None:
            for first in range(0, self.done, FITTED_AT_ONCE):
                last = min(first + FITTED_AT_ONCE, self.done)
                images[first:last] = fit_pixels(self.images[first:last], self.processor)
        self.images = images
        (self.folder / "originals.npy").unlink(missing_ok=True)

    def _create(self, name: str, shape: tuple[int, ...]) -> np.memmap:
        return create_array(self.folder / name, dtype=np.uint8, shape=(self.count, *shape))


def keep(shard: Shard, original: Path, fitted: Path) -> Path:
    """Move what a writer has written into the cache, where it is all of a dataset."""
    kept = fitted if shard.fitted else original
    if kept.exists() and not (kept / RECORD_FILE).is_file():
        shutil.rmtree(kept)  # incomplete: a part of it was removed
    try:
        os.rename(shard.folder, kept)
    except OSError:  # another process, or another model, has decoded the same images in the meantime
        if not (kept / RECORD_FILE).is_file():
            raise
    return kept


def find_kept(places: tuple[Path, Path], processor: BaseImageProcessor) -> Path | None:
    """The folder of the cache with decoded images for a model; None without one."""
    return next((place for place in places if _serves(place, processor)), None)


def _serves(place: Path, processor: BaseImageProcessor) -> bool:
    """Whether a folder holds decoded images that a model can use: no image has more pixels than its input."""
    if not (place / RECORD_FILE).is_file():
        return False
    height, width = np.load(place / "images.npy", mmap_mode="r").shape[1:3]
    return height * width <= input_size(processor) ** 2


def find_known(folder: Path, stamps: np.ndarray, processors: Sequence[BaseImageProcessor]) -> dict[int, list[Decoded]]:
    """Position -> the image for each model, of the images that folders of the cache hold for all of the models.

    Args:
        folder: of the cache, with the folders of decoded images.
        stamps: (N, B) uint8; the same for the same image file, see `hfprobe.data.cache.stamp_rows`.
    """
    found = [_find_known(folder, stamps, processor) for processor in processors]
    return {
        position: [images[position] for images in found]
        for position in found[0]
        if all(position in images for images in found)
    }


def _find_known(folder: Path, stamps: np.ndarray, processor: BaseImageProcessor) -> dict[int, Decoded]:
    positions = {stamp.tobytes(): position for position, stamp in enumerate(stamps)}
    found: dict[int, Decoded] = {}
    for place in sorted(folder.glob("*")):
        fitted = "-" in place.name
        if fitted and not place.name.endswith(f"-{name_geometry(processor)}"):
            continue
        try:
            theirs = np.load(place / STAMPS_FILE)
            digests = np.load(place / "digests.npy")
            images = np.load(place / "images.npy", mmap_mode="r")
            notes = {at: note for note, places in read_json(place / RECORD_FILE)["notes"].items() for at in places}
        except (OSError, ValueError, KeyError):  # incomplete: not a folder of decoded images, or a file was removed
            continue
        for row, stamp in enumerate(theirs):
            position = positions.get(stamp.tobytes())
            if position is not None and position not in found:
                large = not fitted and images[row].size > 3 * input_size(processor) ** 2
                pixels = fit_pixels(images[row][None], processor)[0] if large else images[row]
                found[position] = Decoded(pixels, fitted or large, digests[row].tobytes(), notes.get(row))
    return found


def name_geometry(processor: BaseImageProcessor) -> str:
    """16 hex digits of the geometric part of an image processor."""
    return hashlib.sha256(describe_geometry(processor).encode()).hexdigest()[:16]
