"""Decode images once, with all cores, and cache them as uint8 in a memory-mapped file for each model."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset

from hfprobe.data import cache
from hfprobe.data.pixels.decoded_folders import (
    RECORD_FILE,
    Decoded,
    Shard,
    Writer,
    find_kept,
    find_known,
    keep,
    name_geometry,
)
from hfprobe.data.pixels.decoded_rows import decode_rows
from hfprobe.data.pixels.image_files import MAX_PIXELS
from hfprobe.data.pixels.reading import row_numbers
from hfprobe.data.pixels.store import ImageSplit
from hfprobe.data.sources.columns import image_paths, label_numbers
from hfprobe.system import ranks
from hfprobe.system.files import staging_folder
from hfprobe.system.progress import show_progress

if TYPE_CHECKING:  # slow to import
    from transformers import BaseImageProcessor

logger = logging.getLogger(__name__)


def is_decoded(
    rows: Dataset, *, split: str, processor: BaseImageProcessor, source_key: str, max_pixels: int = MAX_PIXELS
) -> bool:
    """Whether the cache holds what `decode_images` would return for these arguments, as the first process finds it."""
    places = _places(rows, split=split, processor=processor, source_key=source_key, max_pixels=max_pixels)
    return ranks.from_first(lambda: find_kept(places, processor)) is not None


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

    In a run of several processes, all of them call this function together, and each one decodes its share; what is
    cached does not depend on their number.

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
    kept = ranks.from_first(lambda: _find_current(rows, places, processor=processor, max_pixels=max_pixels))
    if kept is None:
        (kept,) = fill_cache(rows, part=part, processors=[processor], **how)
    labels = label_numbers(rows)
    index = row_numbers(rows)
    record = json.loads((kept / RECORD_FILE).read_text())
    for note, noted in record["notes"].items():
        logger.info("%s (%d of %d %s images).", note, len(noted), len(index), part)
    lost = {int(position): reason for position, reason in record["unreadable"].items()}
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
    with contextlib.ExitStack() as stack:
        with ranks.together(), _keeping(folder):
            folder.mkdir(parents=True, exist_ok=True)
            staging = stack.enter_context(staging_folder(folder, prefix="part-"))
            shards = _decode_share(rows, staging, part=part, processors=processors, **how)
        of_all = ranks.gather(shards)
        return ranks.from_first(
            lambda: _publish(of_all, staging, count=len(rows), processors=processors, places=places)
        )


def _decode_share(
    rows: Dataset,
    staging: Path,
    *,
    part: str,
    split: str,
    processors: Sequence[BaseImageProcessor],
    source_key: str,
    max_pixels: int,
) -> list[Shard]:
    """Decode this process's share of the images into `staging`, for each of the models."""
    own = rows.select(ranks.share_of(len(rows)))
    stamps = cache.stamp_rows(own, source_key=source_key, split=split, max_pixels=max_pixels)
    known = find_known(staging.parent, stamps, processors)
    others = np.setdiff1d(np.arange(len(own)), list(known))
    decoded = decode_rows(own.select(others), processors=processors, max_pixels=max_pixels)
    writers = _open_writers(staging / "share", count=len(own), processors=processors)
    stage = f"Decoding {part} images{ranks.name_share()}"
    with show_progress(total=len(own), desc=stage, unit="image") as progress:
        for position, stamp in enumerate(stamps):
            found = known.get(position) or next(decoded)
            for writer, one in zip(writers, found, strict=True):
                writer.add(one, stamp=stamp)
            progress.update()
    return [writer.finish() for writer in writers]


def _open_writers(folder: Path, *, count: int, processors: Sequence[BaseImageProcessor]) -> list[Writer]:
    """Writers of `count` images for each of the models, each in a folder of its own in a new folder."""
    folder.mkdir()
    writers = []
    for number, processor in enumerate(processors):
        (folder / str(number)).mkdir()
        writers.append(Writer(folder / str(number), count=count, processor=processor))
    return writers


def _publish(
    of_all: Sequence[Sequence[Shard]],
    staging: Path,
    *,
    count: int,
    processors: Sequence[BaseImageProcessor],
    places: Sequence[tuple[Path, Path]],
) -> list[Path]:
    """Join the shards of all processes, and move the images of each model into the cache.

    Args:
        of_all: for each process, its shard for each of the models.
        staging: where joined shards are written; those of one process are moved.
        count: of the images of all processes.
    """
    with _keeping(staging.parent):
        if not all(shard.folder.is_dir() for shards in of_all for shard in shards):
            raise cache.not_shared(staging.parent)
        whole = list(of_all[0])
        if len(of_all) > 1:
            writers = _open_writers(staging / "whole", count=count, processors=processors)
            for number, writer in enumerate(writers):
                for shards in of_all:
                    for found, stamp in shards[number].read():
                        writer.add(found, stamp=stamp)
            whole = [writer.finish() for writer in writers]
        return [keep(shard, *pair) for shard, pair in zip(whole, places, strict=True)]


@contextlib.contextmanager
def _keeping(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cache.cannot_keep("decoded images", folder, error) from error


def _places(
    rows: Dataset, *, split: str, processor: BaseImageProcessor, source_key: str, max_pixels: int
) -> tuple[Path, Path]:
    """The folders of the cache for images as they are, and for images that are fitted to the model.

    Raises:
        InputError: the images of another process of the run are not the same.
    """
    index = row_numbers(rows)
    key = hashlib.sha256(f"{source_key} {split} {max_pixels} ".encode() + index.tobytes()).hexdigest()[:32]
    ranks.check_same(key, what="images")
    folder = cache.cache_folder() / "decoded"
    return folder / key, folder / f"{key}-{name_geometry(processor)}"


def _find_current(
    rows: Dataset, places: tuple[Path, Path], *, processor: BaseImageProcessor, max_pixels: int
) -> Path | None:
    """The folder of the cache with the images of `rows`; None without one.

    It is removed if an image that could not be read can be read now. Then the reason was not in the file: too many open
    files, or no decoder for its format.
    """
    kept = find_kept(places, processor)
    if kept is None:
        return None
    lost = [int(position) for position in json.loads((kept / RECORD_FILE).read_text())["unreadable"]]
    if not lost or not _can_read_one(rows.select(lost), processor=processor, max_pixels=max_pixels):
        return kept
    shutil.rmtree(kept)
    return None


def _can_read_one(rows: Dataset, *, processor: BaseImageProcessor, max_pixels: int) -> bool:
    found = decode_rows(rows, processors=[processor], max_pixels=max_pixels)
    return any(isinstance(one, Decoded) for (one,) in found)
