"""Rows whose images are parts of memory-mapped tar files: nothing is copied, whatever the size of the files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features, Image
from datasets.table import InMemoryTable

from hfprobe.data.cache import file_stamp
from hfprobe.data.sources.file_names import path_to_text
from hfprobe.data.sources.selected_rows import spread
from hfprobe.data.sources.tar_index import Sample, Shard

# Arrow counts the bytes of one array of a column `bytes` in 32 bits.
MOST_BYTES = 2**31 - 1


def image_rows(shards: Sequence[Shard]) -> Dataset:
    """Rows with the column `image` (datasets.Image), whose bytes are those of the memory-mapped files.

    The arrays of Arrow hold one value after another, so each but the first of an array is preceded by a null value,
    which stands for the bytes between two images; the rows are a selection of the others.
    """
    arrays: list[pa.Array] = []
    taken: list[np.ndarray] = []
    length = 0
    for shard in shards:
        content = _map(shard.file)
        above = path_to_text(str(shard.file))
        for samples in _divide(shard.samples):
            array = _image_array(samples, content, above=above)
            arrays.append(array)
            taken.append(length + np.arange(0, len(array), 2))
            length += len(array)
    features = Features(image=Image())
    table = pa.table([pa.chunked_array(arrays, type=features.arrow_schema.field("image").type)], names=["image"])
    stamps = repr([file_stamp(shard.file) for shard in shards])
    rows = Dataset(
        InMemoryTable(table),
        info=DatasetInfo(features=features),
        fingerprint=hashlib.sha256(stamps.encode(errors="surrogatepass")).hexdigest()[:16],
    )
    return rows.select(np.concatenate([np.empty(0, dtype=np.int64), *taken]))


def _map(file: Path) -> pa.Buffer:
    with pa.memory_map(str(file)) as mapped:
        return mapped.read_buffer()


def _divide(samples: Sequence[Sample]) -> Iterable[Sequence[Sample]]:
    """Runs of samples that span at most MOST_BYTES each."""
    first = 0
    for at, sample in enumerate(samples):
        if sample.image.start + sample.image.size - samples[first].image.start > MOST_BYTES and at > first:
            yield samples[first:at]
            first = at
    if samples:
        yield samples[first:]


def _image_array(samples: Sequence[Sample], content: pa.Buffer, *, above: str) -> pa.Array:
    """(2 N - 1,) structs of bytes and path: the images of N samples, with a null value between two of them."""
    length = 2 * len(samples) - 1
    starts = np.array([sample.image.start for sample in samples])
    ends = starts + np.array([sample.image.size for sample in samples])
    offsets = (np.stack([starts, ends], axis=1).reshape(-1) - starts[0]).astype(np.int32)
    is_image = np.arange(length) % 2 == 0
    buffers = [
        pa.py_buffer(np.packbits(is_image, bitorder="little")),
        pa.py_buffer(offsets),
        content.slice(starts[0], ends[-1] - starts[0]),
    ]
    paths = pa.array([f"{above}/{sample.image.name}" for sample in samples], type=pa.string())
    return pa.StructArray.from_arrays(
        [
            pa.Array.from_buffers(pa.binary(), length, buffers),
            spread(paths, np.flatnonzero(is_image), length=length),
        ],
        names=["bytes", "path"],
    )
