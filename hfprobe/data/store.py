"""Images that are decoded once, cached as uint8 in a memory-mapped file, and read one batch at a time."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
import torch
from datasets import Dataset

from hfprobe.data import cache
from hfprobe.data.pictures import DIGEST_BYTES, Picture, read_picture
from hfprobe.data.transforms import crop_and_flip, describe_geometry, fit_images, input_size, normalize
from hfprobe.system.errors import InputError, first_line
from hfprobe.system.files import create_array, staging_folder
from hfprobe.system.progress import show_progress

if TYPE_CHECKING:  # slow to import
    from transformers import BaseImageProcessor

logger = logging.getLogger(__name__)

FITTED_AT_ONCE = 100  # images
RECORD_FILE = "record.json"


@dataclass(frozen=True)
class ImageSplit:
    """Decoded images of one split.

    Attributes:
        images: (N, H, W, 3) uint8, memory-mapped.
        labels: (N,) int64.
        index: (N,) int64, the row number of each image in the split of the source.
        fitted: whether the geometric part of an image processor has already been applied to `images`.
        digests: (N, DIGEST_BYTES) uint8, which identify each image at whatever size it was decoded. Default: digests of
            the pixels.
    """

    images: np.ndarray
    labels: np.ndarray
    index: np.ndarray
    fitted: bool = False
    digests: np.ndarray = field(default_factory=lambda: np.empty((0, DIGEST_BYTES), dtype=np.uint8))

    def __post_init__(self) -> None:
        if len(self.digests) < len(self.images):
            found = [hashlib.sha256(image.tobytes()).digest()[:DIGEST_BYTES] for image in self.images]
            digests = np.frombuffer(b"".join(found), dtype=np.uint8).reshape(-1, DIGEST_BYTES)
            object.__setattr__(self, "digests", digests)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: np.ndarray) -> ImageSplit:
        """The images at `positions`, (B,) integers."""
        parts = {name: getattr(self, name)[positions] for name in ("images", "labels", "index", "digests")}
        return ImageSplit(**parts, fitted=self.fitted)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the digests, labels and row numbers of the images; it is the same at every resolution."""
        digest = hashlib.sha256()
        for part in (self.digests, self.labels, self.index):
            digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()

    @property
    def pictures_fingerprint(self) -> str:
        """SHA-256 of the digests and row numbers of the images; it does not depend on the numbering of the classes."""
        digest = hashlib.sha256(np.ascontiguousarray(self.digests).data)
        digest.update(np.ascontiguousarray(self.index).data)
        return digest.hexdigest()


class ImageBatches(torch.utils.data.Dataset):
    """A split as the Trainer reads it: `__getitems__` returns a complete batch, so the collator has nothing to do.

    A batch is `pixel_values` (B, 3, H, W) float32 and `labels` (B,) int64.

    Args:
        split: the images.
        processor: the image processor saved with the model, which resizes and normalises.
        augment: keyword arguments of `crop_and_flip`, which samples for each (seed, epoch, index); None: no
            augmentation.
        seed: seed of the augmentation.
        mirror: whether every image is mirrored.
    """

    preparation_seconds = 0.0

    def __init__(
        self,
        split: ImageSplit,
        *,
        processor: BaseImageProcessor,
        augment: dict[str, Any] | None = None,
        seed: int = 0,
        mirror: bool = False,
    ):
        self.split = split
        self.processor = processor
        self.augment = augment
        self.seed = seed
        self.mirror = mirror
        # In shared memory, so that persistent loader workers see a new epoch too.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the augmentation depends on."""
        self._epoch.fill_(epoch)

    def take(self, positions: np.ndarray) -> ImageBatches:
        """The images at `positions`, (B,) integers, with the same augmentation."""
        subset = self.split.take(positions)
        return ImageBatches(subset, processor=self.processor, augment=self.augment, seed=self.seed, mirror=self.mirror)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        return {key: value[0] for key, value in self.__getitems__([position]).items()}

    def fitted(self, positions: Sequence[int] | np.ndarray) -> torch.Tensor:
        """(B, h, w, 3) uint8: images at the size of the model's input, before augmentation and normalisation."""
        images = torch.from_numpy(self.split.images[positions])
        if self.split.fitted:
            return images
        return fit_images(images.permute(0, 3, 1, 2), processor=self.processor).permute(0, 2, 3, 1)

    def __getitems__(self, positions: Sequence[int] | np.ndarray) -> dict[str, torch.Tensor]:
        images = self.fitted(positions)
        if self.augment is not None:
            index = self.split.index[positions]
            images = crop_and_flip(images, seed=self.seed, epoch=int(self._epoch), index=index, **self.augment)
        if self.mirror:
            images = images.flip(2)
        return {
            "pixel_values": normalize(images.permute(0, 3, 1, 2), processor=self.processor),
            "labels": torch.from_numpy(self.split.labels[positions]),
        }


def decode_images(
    rows: Dataset, *, part: str, split: str, processor: BaseImageProcessor, source_key: str
) -> ImageSplit:
    """Decode every image of `rows` into the cache; a second call reads the cache.

    If all images have the same size and no more pixels than the input of the model, they are cached unchanged.
    Otherwise, the geometric part of the image processor is applied to each of them first. What the model sees of an
    image does not depend on the other images.

    Args:
        rows: columns `image` (undecoded), `label` and `index`.
        part: `train`, `validation` or `test`, for the progress bar.
        split: split of the source, for error messages.
        processor: image processor of the model.
        source_key: text that changes when a source file changes.

    Raises:
        InputError: an image cannot be read; the message names it.
        InputError, MachineError: the cache cannot be written.
    """
    labels = np.asarray(rows.with_format("numpy")["label"][:], dtype=np.int64)
    index = np.asarray(rows.with_format("numpy")["index"][:], dtype=np.int64)
    key = hashlib.sha256(f"{source_key} {split} ".encode() + index.tobytes()).hexdigest()[:32]
    geometry = hashlib.sha256(describe_geometry(processor).encode()).hexdigest()[:16]
    folder = cache.cache_folder() / "decoded"
    original, fitted = folder / key, folder / f"{key}-{geometry}"
    kept = next((place for place in (original, fitted) if _serves(place, processor)), None)
    if kept is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with staging_folder(folder, prefix="part-") as staging:
                work = staging / "images"
                work.mkdir()
                writer = _Writer(work, count=len(rows), processor=processor)
                with show_progress(total=len(rows), desc=f"Decoding {part} images", unit="image") as progress:
                    for item, number in zip(_items(rows), index, strict=True):
                        writer.add(_read(item, split=split, number=number))
                        progress.update()
                writer.finish()
                kept = fitted if writer.fitted else original
                if kept.exists() and not (kept / RECORD_FILE).is_file():
                    shutil.rmtree(kept)  # incomplete: a part of it was removed
                try:
                    os.rename(work, kept)
                except OSError:  # another process has decoded the same images in the meantime
                    if not (kept / RECORD_FILE).is_file():
                        raise
        except OSError as error:
            raise cache.cannot_keep("decoded images", folder, error) from error
    for note, count in json.loads((kept / RECORD_FILE).read_text())["notes"].items():
        logger.info("%s (%d of %d %s images).", note, count, len(index), part)
    return ImageSplit(
        images=np.load(kept / "images.npy", mmap_mode="r"),
        labels=labels,
        index=index,
        fitted=kept == fitted,
        digests=np.load(kept / "digests.npy"),
    )


def _serves(place: Path, processor: BaseImageProcessor) -> bool:
    """Whether a folder holds decoded images that a model can use: no image has more pixels than its input."""
    if not (place / RECORD_FILE).is_file():
        return False
    height, width = np.load(place / "images.npy", mmap_mode="r").shape[1:3]
    return height * width <= input_size(processor) ** 2


class _Writer:
    """Write images one by one into `images.npy`, `digests.npy` and RECORD_FILE of a folder.

    Images are stored unchanged until one differs in size from the first or is larger than the input of the model. From
    then on, images are fitted before they are stored, and those stored earlier are fitted too.
    """

    def __init__(self, folder: Path, *, count: int, processor: BaseImageProcessor):
        self.folder = folder
        self.count = count
        self.processor = processor
        self.fitted = False
        self.images: np.memmap | None = None
        self.digests = np.zeros((count, DIGEST_BYTES), dtype=np.uint8)
        self.notes: Counter[str] = Counter()
        self.done = 0

    def add(self, picture: Picture) -> None:
        pixels = np.asarray(picture.image)  # (H, W, 3) uint8
        if not self.fitted and not self._keeps(pixels.shape):
            self._fit_earlier()
        if self.images is None:
            self.images = self._create("originals.npy", pixels.shape)
        self.images[self.done] = self._fit(pixels[None])[0] if self.fitted else pixels
        self.digests[self.done] = np.frombuffer(picture.digest, dtype=np.uint8)
        if picture.note is not None:
            self.notes[picture.note] += 1
        self.done += 1

    def finish(self) -> None:
        if self.images is not None:
            self.images.flush()
        if not self.fitted:
            os.rename(self.folder / "originals.npy", self.folder / "images.npy")
        np.save(self.folder / "digests.npy", self.digests)
        (self.folder / RECORD_FILE).write_text(json.dumps({"notes": self.notes}))

    def _keeps(self, shape: tuple[int, ...]) -> bool:
        small = shape[0] * shape[1] <= input_size(self.processor) ** 2
        return small and (self.images is None or self.images.shape[1:] == shape)

    def _fit_earlier(self) -> None:
        self.fitted = True
        side = input_size(self.processor)
        images = self._create("images.npy", (side, side, 3))
        if self.images is not None:
            for first in range(0, self.done, FITTED_AT_ONCE):
                last = min(first + FITTED_AT_ONCE, self.done)
                images[first:last] = self._fit(self.images[first:last])
        self.images = images
        (self.folder / "originals.npy").unlink(missing_ok=True)

    def _fit(self, pixels: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2)
        return fit_images(images, processor=self.processor).permute(0, 2, 3, 1).numpy()

    def _create(self, name: str, shape: tuple[int, ...]) -> np.memmap:
        return create_array(self.folder / name, dtype=np.uint8, shape=(self.count, *shape))


def _items(rows: Dataset) -> Iterator[dict]:
    for batch in rows.iter(batch_size=100):  # five times as fast as reading row by row
        yield from batch["image"]


def _read(item: dict | None, *, split: str, number: int) -> Picture:
    name = f" ({item['path']})" if item and item["path"] else ""
    try:
        if item is None or (item["bytes"] is None and item["path"] is None):
            raise ValueError("the row holds no image")
        return read_picture(Path(item["path"]).read_bytes() if item["bytes"] is None else item["bytes"])
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises many types of errors for a damaged file
        reason = "not an image" if isinstance(error, PIL.UnidentifiedImageError) else first_line(error)
        raise InputError(
            f"Image {number} of split '{split}'{name} cannot be read: {reason}. Replace or remove it."
        ) from error
