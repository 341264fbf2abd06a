"""Images in the memory of the device that trains on them: a batch is made there from positions alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from hfprobe.data.pixels.store import ImageBatches
from hfprobe.data.pixels.transforms import draw_shifts, input_size, normalize, shift_images

COPIED_AT_ONCE = 1000  # images


class ResidentBatches(ImageBatches):
    """`ImageBatches` on a device: its batches equal those on a CPU to the bit, in the integers and in the floats.

    The images are copied to the device once, at the size of the model's input, and the random numbers of all images
    once in each epoch. A batch needs its positions only, and no step waits for the device.

    Args:
        batches: the images; their crops, if any, are shifted ones.
        device: that holds them, and their batches. On the CPU the images are copied from the memory map into memory.
    """

    def __init__(self, batches: ImageBatches, *, device: torch.device):
        super().__init__(
            batches.split,
            processor=batches.processor,
            augment=batches.augment,
            seed=batches.seed,
            mirror=batches.mirror,
        )
        if self.augment is not None and not is_shifted(self.augment):
            raise ValueError(f"The crops are {self.augment['crop']}; allowed: shift")
        self.device = device
        self.labels = torch.from_numpy(self.split.labels).to(device)
        self.images = self._copy_images()  # (N, h, w, 3) uint8
        self.set_epoch(0)

    def _copy_images(self) -> torch.Tensor:
        side = input_size(self.processor)
        images = torch.empty((len(self), side, side, 3), dtype=torch.uint8, device=self.device)
        for first in range(0, len(self), COPIED_AT_ONCE):
            positions = np.arange(first, min(first + COPIED_AT_ONCE, len(self)))
            images[first : first + len(positions)] = self.fitted(positions)
        return images

    def set_epoch(self, epoch: int) -> None:
        if self.augment is not None:
            how = {name: self.augment[name] for name in ("shift", "flips") if name in self.augment}
            draws = draw_shifts(self.images.shape[1], seed=self.seed, epoch=epoch, index=self.split.index, **how)
            self.draws = torch.from_numpy(draws).to(self.device)  # (N, 3) int64

    def take(self, positions: np.ndarray) -> ResidentBatches:
        return ResidentBatches(super().take(positions), device=self.device)

    def __getitems__(self, positions: Sequence[int] | np.ndarray) -> dict[str, torch.Tensor]:
        at = torch.from_numpy(np.asarray(positions, dtype=np.int64))
        if self.device.type == "cuda":  # from pinned memory: such a copy does not wait for the device
            at = at.pin_memory().to(self.device, non_blocking=True)
        if self.augment is None:
            images = self.images.index_select(0, at)
        else:
            padding = self.augment.get("padding", "black")
            images = shift_images(self.images, at, draws=self.draws.index_select(0, at), padding=padding)
        if self.mirror:
            images = images.flip(2)
        return {
            "pixel_values": normalize(images.permute(0, 3, 1, 2), processor=self.processor),
            "labels": self.labels.index_select(0, at),
        }


def is_shifted(augment: Mapping[str, object]) -> bool:
    """Whether random crops are shifted images, which no interpolation rounds differently on another device."""
    return augment.get("crop", "shift") == "shift"


def resident_bytes(batches: ImageBatches) -> int:
    """Bytes of the device that `ResidentBatches` keeps: the images, their labels and the draws of an epoch."""
    return len(batches) * (3 * input_size(batches.processor) ** 2 + 4 * 8)
