"""What a run adapts to: the size of the training images, read from the headers of their files, and their colours."""

from __future__ import annotations

import math
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image

from hfprobe.data.pixels.image_files import MAX_PIXELS, pixel_limit
from hfprobe.data.sources.columns import stored_images
from hfprobe.data.sources.file_kinds import register_heic
from hfprobe.data.sources.file_names import text_to_path

if TYPE_CHECKING:  # slow to import
    from datasets import Dataset

    from hfprobe.data.pixels.store import ImageBatches

HEADERS = 300  # their median differs little from that of all images, and they are read in a fraction of a second
COUNTED_AT_ONCE = 32  # images
LEAST_STD = 1 / 255  # one grey level, so that images of a single colour are not divided by zero


def header_sizes(rows: Dataset) -> list[tuple[int, int]]:
    """Width and height in pixels of HEADERS images, evenly spaced among `rows`; no pixels are decoded.

    Images that cannot be read are left out, because decoding names them later.

    Args:
        rows: with the column `image`, undecoded.
    """
    register_heic()
    chosen = np.unique(np.linspace(0, len(rows) - 1, num=min(HEADERS, len(rows))).astype(int))
    sizes = []
    with pixel_limit(MAX_PIXELS):
        for item in stored_images(rows, chosen):
            try:
                file = text_to_path(item["path"]) if item["bytes"] is None else BytesIO(item["bytes"])
                with PIL.Image.open(file) as image:
                    sizes.append(image.size)
            except Exception:  # Pillow raises many types of errors for a damaged file, and a row may hold no image
                continue
    return sizes


def channel_statistics(images: ImageBatches) -> tuple[list[float], list[float]]:
    """Mean and standard deviation, in [0, 1], of each channel over all pixels that a model sees of some images.

    They are computed from counts of the 256 grey levels, so they depend neither on the order nor on the machine.

    Args:
        images: without augmentation.
    """
    counts = np.zeros((3, 256), dtype=np.int64)
    for first in range(0, len(images), COUNTED_AT_ONCE):
        pixels = images.fitted(range(first, min(first + COUNTED_AT_ONCE, len(images)))).numpy()  # (B, H, W, 3)
        for channel in range(3):
            counts[channel] += np.bincount(pixels[..., channel].ravel(), minlength=256)
    mean, std = [], []
    for levels in counts.tolist():  # whole numbers of any size
        number, total, squares = (sum(count * level**power for level, count in enumerate(levels)) for power in range(3))
        mean.append(total / (255 * number))
        std.append(max(math.sqrt((number * squares - total**2) / number**2) / 255, LEAST_STD))
    return mean, std
