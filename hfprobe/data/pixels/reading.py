"""The images of rows, read several at a time by as many threads as there are cores; and what their headers show."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
import PIL.Image
from datasets import Dataset

from hfprobe.data.pixels.image_files import MAX_PIXELS, ImageHeader, check_header, explain, pixel_limit
from hfprobe.data.sources.file_names import text_to_path
from hfprobe.system import ranks
from hfprobe.system.machine import count_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

# A thread reads this many images, or this many bytes of them, before it takes the next ones.
CHUNK, CHUNK_BYTES = 100, 2**24
CHUNK_OF_FILES = 8


def find_unreadable(rows: Dataset, *, split: str, max_pixels: int = MAX_PIXELS) -> Iterator[str | None]:
    """For each image in order, None, or the sentence of `read_headers`."""
    for found in read_headers(rows, split=split, max_pixels=max_pixels):
        yield found if isinstance(found, str) else None


def read_headers(rows: Dataset, *, split: str, max_pixels: int = MAX_PIXELS) -> Iterator[ImageHeader | str]:
    """For each image in order, its header, or a sentence that says why the header shows that it cannot be read.

    Nothing is decoded, so that the images that would stop a training are found in seconds. The sentences are those of
    `ImageSplit.unreadable`.

    Args:
        rows: columns `image` (undecoded) and `index`.
        split, max_pixels: see `decode_images`.
    """

    def check(items: list[dict | None]) -> list[ImageHeader | str]:
        return [_check(item, max_pixels) for item in items]

    with pixel_limit(max_pixels):
        found_in_chunks = in_threads(check, in_chunks(rows))
        for position, found in zip(row_numbers(rows), chain.from_iterable(found_in_chunks), strict=True):
            yield f"image {position} of split '{split}'{found}" if isinstance(found, str) else found


def row_numbers(rows: Dataset) -> np.ndarray:
    """The column `index` as (N,) int64."""
    return rows.select_columns("index").with_format("arrow")["index"][:].to_numpy().astype(np.int64)


def in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], *, ahead: int | None = None
) -> Generator[Result, None, None]:
    """What `work` returns for each item in order, from as many threads as there are cores for this process.

    Pillow and torch hold no lock while they decode and resize. More threads would need more memory: 200 MB for 12
    megapixels.

    Args:
        ahead: items that are worked on before their results are asked for, which bounds the memory. Default: two per
            thread.
    """
    PIL.Image.init()  # loads the decoders; not in two threads at once
    workers = max(1, count_cores() // ranks.count_beside())
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > (ahead or 2 * workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def in_chunks(rows: Dataset) -> Iterator[list[dict | None]]:
    """The items of the column `image`, several at a time: five times as fast as row by row."""
    first = next(iter(rows.take(1)))["image"] if len(rows) else None
    if first is not None and first["bytes"] is None:
        size = CHUNK_OF_FILES
    else:
        size = min(CHUNK, max(1, CHUNK_BYTES * rows.data.num_rows // max(1, rows.data.nbytes)))
    for batch in rows.iter(batch_size=size):
        yield batch["image"]


def _check(item: dict | None, max_pixels: int) -> ImageHeader | str:
    try:
        return check_header(source_of(item), max_pixels=max_pixels)
    except MemoryError:
        raise
    except Exception as error:
        return describe_error(item, error)


def source_of(item: dict | None) -> bytes | Path:
    """The bytes of an image file, or its path; ValueError for a row without an image."""
    if item is None or (item["bytes"] is None and item["path"] is None):
        raise ValueError("the row holds no image")
    return Path(text_to_path(item["path"])) if item["bytes"] is None else item["bytes"]


def describe_error(item: dict | None, error: Exception) -> str:
    """The end of a sentence of `ImageSplit.unreadable`: the path, and why the image cannot be read."""
    name = f" ({item['path']})" if item and item["path"] else ""
    return f"{name} cannot be read: {explain(error)}"
