"""Which images a part of a dataset has, as a digest that can be compared and added up; nothing is decoded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from typing import Any

import pyarrow.compute as pc
from datasets import Dataset

from hfprobe.data.sources.columns import image_paths, in_order, label_numbers, normalize_name, stored_images
from hfprobe.data.sources.file_names import text_to_path
from hfprobe.data.splits.parts import BITS, SAMPLED, Membership, SplitContent

SAMPLE_BYTES = 2**16  # of the content of a sampled image


def describe_part(rows: Dataset, *, own: bool, by_number: bool) -> Membership:
    """What a run records of a part.

    The digest is the sum of a digest of each image, so it does not depend on their order, and the digest of several
    parts together is the sum of theirs. An image counts by its class, the name of its file without the folder, because
    a dataset may be moved, and its size in bytes; without a name, by a digest of its bytes.

    The sample holds a hash of the name, the size and the beginning of the content of at most SAMPLED images, those with
    the smallest digests of name and size (a bottom-k sketch, Cohen and Kaplan 2007). Parts with at most SAMPLED images
    that share an image have a common entry; larger parts have one with a probability that grows with what they share.

    Args:
        rows: with the columns `image` (undecoded), `label` and `index`.
        own: see `Membership`.
        by_number: count images by class and row number instead, because copies of the dataset differ in their bytes.
    """
    names = rows.features["label"].names
    details = rows["index"][:] if by_number else _names_and_sizes(rows)
    total = 0
    for label, detail in zip(label_numbers(rows), details, strict=True):
        total += int.from_bytes(_hash(f"{names[label]}\0{detail}", size=BITS // 8), "big")
    sample = [] if by_number else _sample(rows, details)
    return Membership(own, len(rows), _hex(total), sample)


def describe_split(rows: Dataset, *, by_number: bool) -> SplitContent:
    """What tells a split from another, in the order of its rows; the folder of the dataset does not matter.

    The digest is that of the names and sizes of all files, or of the content of images without a name.

    Args:
        rows: of all classes, with the column `image` (undecoded).
        by_number: see `describe_part`; the digest is then empty.
    """
    details = [] if by_number else _names_and_sizes(rows)
    return SplitContent(len(rows), _hash("\n".join(details), size=BITS // 8).hex() if details else "")


def add_up(parts: Iterable[Membership]) -> str:
    """The digest of several parts together."""
    return _hex(sum(int(part.digest, 16) for part in parts))


def _sample(rows: Dataset, details: list[str]) -> list[str]:
    ranks = [_hash(detail, size=8) for detail in details]
    chosen = sorted(range(len(ranks)), key=ranks.__getitem__)[:SAMPLED]
    images = stored_images(rows, chosen)
    entries = (_hash(details[at], _beginning(item), size=8) for at, item in zip(chosen, images, strict=True))
    return sorted(entry.hex() for entry in entries)


def _beginning(item: dict[str, Any]) -> bytes:
    """The first SAMPLE_BYTES of the file of an image; empty for one that cannot be read: decoding names it."""
    if item.get("bytes") is not None:
        return item["bytes"][:SAMPLE_BYTES]
    try:
        with open(text_to_path(item.get("path") or ""), "rb") as file:
            return file.read(SAMPLE_BYTES)
    except OSError:
        return b""


def _hash(text: str, content: bytes = b"", *, size: int) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass") + content, digest_size=size).digest()


def _hex(total: int) -> str:
    return f"{total % 2**BITS:0{BITS // 4}x}"


def _names_and_sizes(rows: Dataset) -> list[str]:
    """What tells an image: the name of its file and its size; of an image without a name, a digest of its bytes."""
    paths = image_paths(rows)
    contents = pc.struct_field(rows.data.column("image"), "bytes")
    lengths = in_order(rows, pc.binary_length(contents))  # from the offsets: no image is read
    found = [
        f"{normalize_name(os.path.basename(path or ''))}\0{_size(path) if length is None else length}"
        for path, length in zip(paths, lengths.to_pylist(), strict=True)
    ]
    nameless = [position for position, path in enumerate(paths) if not os.path.basename(path or "")]
    if nameless:
        for position, item in zip(nameless, stored_images(rows, nameless), strict=True):
            found[position] = hashlib.blake2b(item.get("bytes") or b"", digest_size=BITS // 8).hexdigest()
    return found


def _size(path: str | None) -> int:
    try:
        return os.stat(path or "").st_size
    except OSError:  # decoding names it
        return -1
