"""Images decoded once, kept as uint8 in a memory-mapped file, and served a whole batch at a time."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from datasets import Dataset
from tqdm import tqdm

from hfprobe.data.sources import cache_folder
from hfprobe.data.transforms import crop_and_flip, preprocess
from hfprobe.errors import InputError, MachineError
from hfprobe.files import create_array

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageSplit:
    """Decoded images of one split.

    Attributes:
        images: (N, H, W, 3) uint8, memory-mapped.
        labels: (N,) int64.
        index: (N,) int64, the row of each image in the source's split.
    """

    images: np.ndarray
    labels: np.ndarray
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over shape, pixels and labels."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images))
        digest.update(np.ascontiguousarray(self.labels))
        return digest.hexdigest()


class ImageBatches(torch.utils.data.Dataset):
    """A split as the Trainer reads it: `__getitems__` gives a finished batch, so the collator has nothing to do.

    A batch is `pixel_values` (B, 3, H, W) float32 and `labels` (B,) int64.

    Args:
        split: the images.
        processor: the image processor saved with the model; it resizes and normalises.
        augment: keyword arguments of `crop_and_flip`, drawn for each (seed, epoch, index); None: not augmented.
        seed: of the augmentation.
    """

    def __init__(self, split: ImageSplit, *, processor, augment: dict[str, Any] | None = None, seed: int = 0):
        self.split = split
        self.processor = processor
        self.augment = augment
        self.seed = seed
        # In shared memory, so that persistent loader workers see the epoch too.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        return {key: value[0] for key, value in self.__getitems__([position]).items()}

    def __getitems__(self, positions: Sequence[int]) -> dict[str, torch.Tensor]:
        images = torch.from_numpy(self.split.images[positions])  # (B, H, W, 3) uint8
        if self.augment is not None:
            key = {"seed": self.seed, "epoch": int(self._epoch), "index": self.split.index[positions]}
            images = crop_and_flip(images, **key, **self.augment)
        return {
            "pixel_values": preprocess(images.permute(0, 3, 1, 2), processor=self.processor),
            "labels": torch.from_numpy(self.split.labels[positions]),
        }


def decode_images(rows: Dataset, *, split: str, fallback_size: int, source_key: str) -> ImageSplit:
    """Decode every image of `rows` (columns `image`, `label`, `index`) to RGB; a second call reads the kept file.

    The file is kept under `source_key`, which names the content that `index` points into. Images that share one size
    of at most `fallback_size` keep it; otherwise each is scaled and centre-cropped to a square of that side.

    Raises:
        InputError: an image that cannot be read, by name.
        MachineError: no room to keep the decoded images.
    """
    labels = np.asarray(rows.with_format("numpy")["label"][:], dtype=np.int64)
    index = np.asarray(rows.with_format("numpy")["index"][:], dtype=np.int64)
    key = hashlib.sha256(f"{source_key} {split} {fallback_size}".encode() + index.tobytes()).hexdigest()[:32]
    kept = cache_folder() / "decoded" / f"{key}.npy"
    if not kept.is_file():
        try:
            _decode_to(kept, rows.cast_column("image", datasets.Image(decode=False)), index, split, fallback_size)
        except OSError as error:
            raise MachineError(
                f"Cannot keep decoded images in {kept.parent}: {error.strerror}. Free some space."
            ) from error
    return ImageSplit(images=np.load(kept, mmap_mode="r"), labels=labels, index=index)


def _decode_to(target: Path, rows: Dataset, index: np.ndarray, split: str, fallback_size: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    sizes = {_open(item, split, number).size for item, number in zip(_items(rows), index, strict=True)}
    width, height = sizes.pop() if len(sizes) == 1 else (0, 0)
    if not 0 < max(width, height) <= fallback_size:
        width = height = fallback_size
    handle, staging = tempfile.mkstemp(dir=target.parent, suffix=".part")
    os.close(handle)
    try:
        images = create_array(Path(staging), dtype=np.uint8, shape=(len(rows), height, width, 3))
        progress = tqdm(_items(rows), total=len(rows), desc=f"Decoding {split} images", leave=False)
        for position, (item, number) in enumerate(zip(progress, index, strict=True)):
            image = _read(item, split, number)
            if image.size != (width, height):
                image = PIL.ImageOps.fit(image, (width, height), PIL.Image.Resampling.BICUBIC)
            images[position] = np.asarray(image)
        images.flush()
        os.replace(staging, target)
    finally:
        Path(staging).unlink(missing_ok=True)


def _items(rows: Dataset) -> Iterator[dict]:
    for batch in rows.iter(batch_size=1000):  # five times as fast as row by row
        yield from batch["image"]


def _open(item: dict, split: str, number: int) -> PIL.Image.Image:
    try:
        return PIL.Image.open(BytesIO(item["bytes"]) if item["bytes"] is not None else item["path"])
    except (OSError, PIL.Image.DecompressionBombError) as error:
        raise _unreadable(item, split, number, error) from error


def _read(item: dict, split: str, number: int) -> PIL.Image.Image:
    image = _open(item, split, number)
    try:
        if image.mode.startswith("I;16"):  # converting would cut everything above 255
            image = PIL.Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:  # SyntaxError: how Pillow reports a broken PNG chunk
        raise _unreadable(item, split, number, error) from error


def _unreadable(item: dict, split: str, number: int, error: Exception) -> InputError:
    name = f" ({item['path']})" if item["path"] else ""
    reason = "not an image" if isinstance(error, PIL.UnidentifiedImageError) else error
    return InputError(f"Image {number} of split '{split}'{name} cannot be read: {reason}. Replace or remove it.")
