"""Decode images once, with all cores, and cache them as uint8 in a memory-mapped file for each model."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset

from hfprobe.data import cache
from hfprobe.data.pixels.decoded_folders import (
    RECORD_FILE,
    Decoded,
    Writer,
    find_kept,
    find_known,
    fit_pixels,
    keep,
    name_geometry,
)
from hfprobe.data.pixels.image_files import MAX_PIXELS, pixel_limit, read_image
from hfprobe.data.pixels.reading import describe_error, in_chunks, in_threads, row_numbers, source_of
from hfprobe.data.pixels.store import ImageSplit
from hfprobe.data.pixels.transforms import input_size
from hfprobe.data.sources.columns import image_paths, label_numbers
from hfprobe.system.files import staging_folder
from hfprobe.system.progress import show_progress

if TYPE_CHECKING:  # slow to import
    from transformers import BaseImageProcessor

logger = logging.getLogger(__name__)


def is_decoded(
    rows: Dataset, *, split: str, processor: BaseImageProcessor, source_key: str, max_pixels: int = MAX_PIXELS
) -> bool:
    """Whether the cache holds what `decode_images` would return for these arguments."""
    places = _places(rows, split=split, processor=processor, source_key=source_key, max_pixels=max_pixels)
    return find_kept(places, processor) is not None


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
    kept = find_kept(places, processor)
    was_kept = kept is not None
    if kept is None:
        (kept,) = fill_cache(rows, part=part, processors=[processor], **how)
    labels = label_numbers(rows)
    index = row_numbers(rows)
    record = json.loads((kept / RECORD_FILE).read_text())
    for note, noted in record["notes"].items():
        logger.info("%s (%d of %d %s images).", note, len(noted), len(index), part)
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

    An image that the cache holds for all of them in another part is copied from there.

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
        stamps = cache.stamp_rows(rows, source_key=source_key, split=split, max_pixels=max_pixels)
        known = find_known(folder, stamps, processors)
        others = np.setdiff1d(np.arange(len(rows)), list(known))
        decoded = _decode_all(rows.select(others), processors=processors, max_pixels=max_pixels)
        with staging_folder(folder, prefix="part-") as staging:
            writers = []
            for number, processor in enumerate(processors):
                work = staging / str(number)
                work.mkdir()
                writers.append(Writer(work, stamps=stamps, processor=processor))
            with show_progress(total=len(rows), desc=f"Decoding {part} images", unit="image") as progress:
                for position in range(len(rows)):
                    found = known.get(position) or next(decoded)
                    for writer, one in zip(writers, found, strict=True):
                        writer.add(one)
                    progress.update()
            return [keep(writer, *pair) for writer, pair in zip(writers, places, strict=True)]
    except OSError as error:
        raise cache.cannot_keep("decoded images", folder, error) from error


def decode_some(rows: Dataset, *, processor: BaseImageProcessor, max_pixels: int = MAX_PIXELS) -> ImageSplit:
    """Decode a few images, fitted to the input of the model; nothing is cached.

    Images that cannot be read are left out.

    Args:
        rows, processor, max_pixels: see `decode_images`.
    """
    found = [one for (one,) in _decode_all(rows, processors=[processor], max_pixels=max_pixels)]
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


def _places(
    rows: Dataset, *, split: str, processor: BaseImageProcessor, source_key: str, max_pixels: int
) -> tuple[Path, Path]:
    """The folders of the cache for images as they are, and for images that are fitted to the model."""
    index = row_numbers(rows)
    key = hashlib.sha256(f"{source_key} {split} {max_pixels} ".encode() + index.tobytes()).hexdigest()[:32]
    folder = cache.cache_folder() / "decoded"
    return folder / key, folder / f"{key}-{name_geometry(processor)}"


def _decode_all(
    rows: Dataset, *, processors: Sequence[BaseImageProcessor], max_pixels: int
) -> Iterator[list[Decoded | str]]:
    """Each image in order, for each of the models, or why it cannot be read."""

    def decode(items: list[dict | None]) -> list[list[Decoded | str]]:
        return [_decode(item, processors, max_pixels) for item in items]

    with pixel_limit(max_pixels):
        yield from chain.from_iterable(in_threads(decode, in_chunks(rows)))


def _can_read_one(rows: Dataset, *, processor: BaseImageProcessor, max_pixels: int) -> bool:
    found = _decode_all(rows, processors=[processor], max_pixels=max_pixels)
    return any(isinstance(one, Decoded) for (one,) in found)


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
