"""Decoded images of a split, and how the Trainer reads them: one batch at a time, from a memory-mapped file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hfprobe.data.pixels.image_files import DIGEST_BYTES
from hfprobe.data.pixels.transforms import crop_and_flip, fit_images, normalize

if TYPE_CHECKING:  # slow to import
    from transformers import BaseImageProcessor


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
        files: path of each image, '' if it has none; or empty.
        unreadable: a sentence for each image that could not be read and is not among the N.
    """

    images: np.ndarray
    labels: np.ndarray
    index: np.ndarray
    fitted: bool = False
    digests: np.ndarray = field(default_factory=lambda: np.empty((0, DIGEST_BYTES), dtype=np.uint8))
    files: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

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
        files = tuple(self.files[position] for position in positions) if self.files else ()
        return ImageSplit(**parts, fitted=self.fitted, files=files)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the digests, labels and row numbers of the images; it is the same at every resolution."""
        digest = hashlib.sha256()
        for part in (self.digests, self.labels, self.index):
            digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()

    @property
    def images_fingerprint(self) -> str:
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
