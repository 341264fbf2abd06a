"""Decode the images of rows, with all cores; nothing is cached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from datasets import Dataset

from hfprobe.data.pixels.decoded_folders import Decoded, fit_pixels
from hfprobe.data.pixels.image_files import MAX_PIXELS, pixel_limit, read_image
from hfprobe.data.pixels.reading import describe_error, in_chunks, in_threads, row_numbers, source_of
from hfprobe.data.pixels.store import ImageSplit
from hfprobe.data.pixels.transforms import input_size
from hfprobe.data.sources.columns import label_numbers

if TYPE_CHECKING:  # slow to import
    from transformers import BaseImageProcessor


def decode_rows(
    rows: Dataset, *, processors: Sequence[BaseImageProcessor], max_pixels: int
) -> Iterator[list[Decoded | str]]:
    """Each image in order, for each of some models, or why it cannot be read.

    Args:
        rows: with the column `image` (undecoded).
        processors: image processors of the models.
        max_pixels: images with more pixels cannot be read.
    """

    def decode(items: list[dict | None]) -> list[list[Decoded | str]]:
        return [_decode(item, processors, max_pixels) for item in items]

    with pixel_limit(max_pixels):
        yield from chain.from_iterable(in_threads(decode, in_chunks(rows)))


def decode_some(rows: Dataset, *, processor: BaseImageProcessor, max_pixels: int = MAX_PIXELS) -> ImageSplit:
    """Decode a few images, fitted to the input of the model; nothing is cached.

    Images that cannot be read are left out.

    Args:
        rows, processor, max_pixels: see `hfprobe.data.pixels.decoding.decode_images`.
    """
    found = [one for (one,) in decode_rows(rows, processors=[processor], max_pixels=max_pixels)]
    positions = [position for position, one in enumerate(found) if isinstance(one, Decoded)]
    side = input_size(processor)
    fitted = [
        one.pixels if one.fitted else fit_pixels(one.pixels[None], processor)[0]
        for one in found
        if isinstance(one, Decoded)
    ]
    return ImageSplit(
        images=np.stack(fitted) if fitted else np.empty((0, side, side, 3), np.uint8),
        labels=label_numbers(rows)[positions],
        index=row_numbers(rows)[positions],
        fitted=True,
    )


def _decode(item: dict | None, processors: Sequence[BaseImageProcessor], max_pixels: int) -> list[Decoded | str]:
    try:
        source = source_of(item)
        content = source if isinstance(source, bytes) else source.read_bytes()
        decoded = read_image(content, max_pixels=max_pixels)
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises many types of errors for a damaged file
        return [describe_error(item, error)] * len(processors)
    pixels = np.asarray(decoded.image)
    found: list[Decoded | str] = []
    for processor in processors:
        large = pixels.shape[0] * pixels.shape[1] > input_size(processor) ** 2
        one = fit_pixels(pixels[None], processor)[0] if large else pixels
        found.append(Decoded(one, large, decoded.digest, decoded.note))
    return found
