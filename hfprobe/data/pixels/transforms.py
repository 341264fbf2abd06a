"""Batched transforms: an image is fitted by the model's image processor, augmented by crops and mirror images that
depend on (seed, epoch, index), then normalised. This is the only implementation of each of the three steps.
"""

from __future__ import annotations

import functools
import json
from typing import Any, Literal

import numpy as np
import torch

from hfprobe.data.arguments import CROP_SIDE

CROP_SHIFT = 4
# Resized crops: the ratio of the sides is that of Szegedy et al., "Going deeper with convolutions", CVPR 2015, whose
# crops have 8 % of the area or more; 35 % or more, as in fastai's recipes, suit the short training of a small network.
SMALLEST_AREA = 0.35
LARGEST_RATIO = 4 / 3
# Of longer images, only a middle part of this length is resized: one of 1 x 30,000 pixels took a minute and 15 GB.
LONGEST = 8  # times the short side
# An image processor is Any here: BaseImageProcessor of transformers declares none of the settings that are read.


def keyed_uniform(*, seed: int, epoch: int, index: np.ndarray, draws: int) -> np.ndarray:
    """Uniform random numbers in [0, 1) that depend only on (seed, epoch, index).

    There is no generator whose state passes from one batch to the next, so the number of workers, the order of batches
    and the point of resuming cannot change how an image looks in an epoch. The hash is the output function of
    SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).

    Args:
        index: (B,) integers.
        draws: random numbers per image.

    Returns:
        (B, draws) float64.
    """

    def mix(value: np.ndarray) -> np.ndarray:
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))

    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):  # the hash relies on overflow
        state = np.zeros(1, dtype=np.uint64)
        for part in (seed, epoch):
            state = mix(state + golden * np.uint64(part + 1))
        state = mix(state + golden * (np.asarray(index).astype(np.uint64) + np.uint64(1)))  # (B,)
        stream = golden * (np.arange(draws, dtype=np.uint64) + np.uint64(1))
        bits = mix(state[:, None] + stream[None, :])
    return (bits >> np.uint64(11)).astype(np.float64) / 2**53


def crop_and_flip(
    images: torch.Tensor,
    *,
    seed: int,
    epoch: int,
    index: np.ndarray,
    crop: Literal["shift", "resized"] = "shift",
    shift: int = CROP_SHIFT,
    padding: Literal["black", "reflect"] = "black",
    flips: Literal["random", "alternating"] = "random",
) -> torch.Tensor:
    """Crop each image at a random position, to an image of the same size, and mirror it with probability 1/2.

    Args:
        images: (B, H, W, 3) uint8, square.
        seed, epoch: the random numbers depend on them and on `index`.
        index: (B,) integers that identify the images.
        crop: `shift`: a crop has the size of the image and may reach beyond its edge. `resized`: a part of the image
            of random size, position and ratio of its sides is scaled to the size of the image.
        shift: largest distance that a crop reaches beyond the edge, in pixels of an image of side CROP_SIDE; images of
            another size are shifted by the same share of their side.
        padding: what fills a crop beyond the edge: black, or the image reflected at its edge.
        flips: `random`: sampled in each epoch. `alternating`: sampled in epoch 0, then inverted every epoch, so that
            two epochs show both sides of every image (airbench: Jordan, "94% on CIFAR-10 in 3.29 seconds", 2024).

    Returns:
        (B, H, W, 3) uint8.
    """
    if crop == "resized":
        draws = keyed_uniform(seed=seed, epoch=epoch, index=index, draws=5)
        mirrored = _draw_mirrored(seed=seed, epoch=epoch, index=index, flips=flips)
        return _resized_crops(images, draws=draws, mirrored=torch.from_numpy(mirrored))
    draws = draw_shifts(images.shape[1], seed=seed, epoch=epoch, index=index, shift=shift, flips=flips)
    return shift_images(images, torch.arange(len(images)), draws=torch.from_numpy(draws), padding=padding)


def _draw_mirrored(*, seed: int, epoch: int, index: np.ndarray, flips: str) -> np.ndarray:
    """(B,) bool: which images are mirrored, see `crop_and_flip`."""
    alternating = flips == "alternating"
    draws = keyed_uniform(seed=seed, epoch=0 if alternating else epoch, index=index, draws=3)
    return (draws[:, 2] < 0.5) ^ (alternating and epoch % 2 == 1)


def draw_shifts(
    side: int,
    *,
    seed: int,
    epoch: int,
    index: np.ndarray,
    shift: int = CROP_SHIFT,
    flips: Literal["random", "alternating"] = "random",
) -> np.ndarray:
    """What `crop_and_flip` samples for crops that are shifted.

    Args:
        side: of the images, in pixels.
        seed, epoch, index, shift, flips: see `crop_and_flip`.

    Returns:
        (B, 3) int64: the first row and the first column of each crop in its image, which are negative beyond its edge;
        1 where the crop is mirrored, otherwise 0.
    """
    shift = round(shift * side / CROP_SIDE)
    draws = keyed_uniform(seed=seed, epoch=epoch, index=index, draws=2)
    mirrored = _draw_mirrored(seed=seed, epoch=epoch, index=index, flips=flips)
    return np.column_stack([(draws * (2 * shift + 1)).astype(np.int64) - shift, mirrored])


def shift_images(
    images: torch.Tensor, positions: torch.Tensor, *, draws: torch.Tensor, padding: Literal["black", "reflect"]
) -> torch.Tensor:
    """Crops of some images that have the size of the images, on the device that holds all of the arguments.

    Args:
        images: (N, H, W, 3) uint8.
        positions: (B,) int64, of the images that are cropped.
        draws: (B, 3) int64, of `draw_shifts`.
        padding: see `crop_and_flip`.

    Returns:
        (B, H, W, 3) uint8.
    """
    _, height, width, _ = images.shape
    # (B, H) and (B, W): rows and columns in the image; outside of it beyond its edge
    rows, columns = (
        draws[:, axis, None] + torch.arange(images.shape[1 + axis], device=images.device) for axis in (0, 1)
    )
    columns = torch.where(draws[:, 2:] == 1, columns.flip(1), columns)
    if padding == "reflect":
        inner_rows, inner_columns = (
            (size - 1) - ((size - 1) - at.abs()).abs() for at, size in ((rows, height), (columns, width))
        )
    else:
        inner_rows, inner_columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    at = (positions[:, None, None] * height + inner_rows[:, :, None]) * width + inner_columns[:, None, :]
    # One index per pixel: three times as fast on a CPU as indices of image, row and column.
    crops = images.reshape(-1, 3).index_select(0, at.view(-1)).view(len(positions), height, width, 3)
    if padding == "black":
        crops *= ((rows == inner_rows)[:, :, None] & (columns == inner_columns)[:, None, :])[..., None]
    return crops


def _resized_crops(images: torch.Tensor, *, draws: np.ndarray, mirrored: torch.Tensor) -> torch.Tensor:
    """A part of each image (B, H, W, 3) uint8, scaled to the size of the image by bilinear interpolation.

    The parts are enlarged, never reduced, so nothing has to be smoothed.

    Args:
        draws: (B, 5) in [0, 1): position down and across, one that is not used, area, ratio of the sides.
        mirrored: (B,) whether a crop is mirrored.
    """
    area = SMALLEST_AREA + (1 - SMALLEST_AREA) * draws[:, 3]
    ratio = LARGEST_RATIO ** (2 * draws[:, 4] - 1)
    shares = np.minimum(np.stack([np.sqrt(area / ratio), np.sqrt(area * ratio)]), 1)[:, :, None]  # (2, B, 1), of a side
    first = draws[:, :2].T[:, :, None] * (1 - shares)
    # (B, H) and (B, W): where the pixels of a crop lie in the image, whose edges are at -1 and 1
    rows, columns = (
        torch.from_numpy(2 * (first[axis] + shares[axis] * (np.arange(side) + 0.5) / side) - 1).float()
        for axis, side in enumerate(images.shape[1:3])
    )
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    size = (-1, *images.shape[1:3])
    grid = torch.stack([columns[:, None, :].expand(size), rows[:, :, None].expand(size)], dim=-1)
    pixels = images.permute(0, 3, 1, 2).float()
    crops = torch.nn.functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    return crops.permute(0, 2, 3, 1).round().to(torch.uint8, memory_format=torch.contiguous_format)


def input_size(processor: Any) -> int:
    """Side in pixels of the square images that a model with this image processor reads."""
    return (processor.crop_size if processor.do_center_crop else processor.size)["height"]


def fit_images(images: torch.Tensor, *, processor: Any) -> torch.Tensor:
    """Apply the geometric part of an image processor, resize and centre crop, to a batch of images of one size.

    Before a centre crop, what lies more than LONGEST / 2 short sides away from the centre is cut off.

    Args:
        images: (B, 3, H, W) uint8.
        processor: a torchvision-backed image processor of transformers.

    Returns:
        (B, 3, h, w) uint8: the input of the model before normalisation.
    """
    if processor.do_center_crop:
        for axis, other in ((2, 3), (3, 2)):
            length = min(images.shape[axis], LONGEST * images.shape[other])
            images = images.narrow(axis, (images.shape[axis] - length) // 2, length)
    if processor.do_resize and dict(processor.size) != {"height": images.shape[2], "width": images.shape[3]}:
        images = processor.resize(image=images, size=processor.size, resample=processor.resample)
    if processor.do_center_crop:
        images = processor.center_crop(images, processor.crop_size)
    return images


def describe_geometry(processor: Any) -> str:
    """Every setting that `fit_images` depends on, as JSON; part of the cache key of fitted images."""
    names = ("do_resize", "size", "resample", "do_center_crop", "crop_size")
    found = {name: getattr(processor, name, None) for name in names}
    return json.dumps({"class": type(processor).__name__} | found, default=dict, sort_keys=True)


def normalize(images: torch.Tensor, *, processor: Any) -> torch.Tensor:
    """Apply the arithmetic part of an image processor: rescale and normalise.

    Args:
        images: (B, 3, h, w) uint8.
        processor: a torchvision-backed image processor of transformers.

    Returns:
        (B, 3, h, w) float32, in the memory format of `images`.
    """
    if processor.do_rescale and processor.do_normalize:
        statistics = tuple(processor.image_mean), tuple(processor.image_std)
        mean, std = _statistics_of_pixels(*statistics, factor=processor.rescale_factor, device=images.device)
        return processor.rescale_and_normalize(images, False, None, True, mean, std)
    return processor.rescale_and_normalize(
        images,
        processor.do_rescale,
        processor.rescale_factor,
        processor.do_normalize,
        tuple(processor.image_mean),
        tuple(processor.image_std),
    )


@functools.lru_cache(maxsize=16)
def _statistics_of_pixels(
    mean: tuple[float, ...], std: tuple[float, ...], *, factor: float, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """(3,) float32 mean and standard deviation of pixels from 0 to 255, as the image processor computes them.

    Kept, because a copy to a device waits for all work that the device has been given.
    """
    found = (torch.tensor(values) * (1.0 / factor) for values in (mean, std))
    mean_of_pixels, std_of_pixels = (values.to(device) for values in found)
    return mean_of_pixels, std_of_pixels
