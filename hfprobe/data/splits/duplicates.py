"""Images whose files are identical, byte for byte, in two splits of a dataset or with two labels."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset

from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.columns import label_numbers, paths_below
from hfprobe.system.errors import list_some, shorten

# Files of one size are first compared by this many bytes from their middle: those of different images differ there.
SAMPLE_BYTES = 4096
NAMED_AT_MOST = 5


def find_identical(kept: Mapping[str, Dataset]) -> list[list[tuple[str, int]]]:
    """Sets of images with identical files that are in two splits or have two labels.

    The sizes of the files are compared first, so few files of a large folder are read. Links to one file are identical.
    Images without a file, as arrays, and files that cannot be read are not compared.

    Args:
        kept: name of a split -> rows with the columns `image` (undecoded) and `label`, one numbering for all splits.

    Returns:
        Each set as (split, row) of its images, in the order of the splits.
    """
    files = [_Files(rows) for rows in kept.values()]
    splits = np.repeat(np.arange(len(kept)), [len(rows) for rows in kept.values()])
    rows = np.concatenate([np.arange(len(part)) for part in kept.values()])
    labels = np.concatenate([label_numbers(part) for part in kept.values()])
    sizes = np.concatenate([part.sizes for part in files])
    kinds = splits * (labels.max(initial=0) + 1) + labels
    # Sizes that occur with two kinds: in two splits, or with two labels.
    pairs = np.unique(np.stack([sizes, kinds]), axis=1)
    several, counts = np.unique(pairs[0], return_counts=True)
    candidates = np.flatnonzero((sizes > 0) & np.isin(sizes, several[counts > 1]))
    found: list[list[int]] = []
    for limit in (SAMPLE_BYTES, None):
        same: dict[tuple[int, bytes], list[int]] = defaultdict(list)
        for at in candidates.tolist():
            digest = files[splits[at]].digest(rows[at], limit)
            if digest is not None:
                same[int(sizes[at]), digest].append(at)
        found = [places for places in same.values() if len({*kinds[places].tolist()}) > 1]
        candidates = np.array([at for places in found for at in places], dtype=np.int64)
    names = list(kept)
    return [[(names[splits[at]], int(rows[at])) for at in places] for places in found]


class _Files:
    """The files of the images of one split: their sizes in bytes, -1 without a file, and digests."""

    def __init__(self, rows: Dataset):
        # The rows of a selection, without a copy of all the bytes.
        taken = rows._indices.column(0).to_numpy() if rows._indices is not None else np.arange(len(rows))
        image = rows.data.column("image")
        self.taken, self.content, self.paths = taken, pc.struct_field(image, "bytes"), pc.struct_field(image, "path")
        self.sizes = pc.binary_length(self.content).fill_null(-1).to_numpy()[taken].astype(np.int64)
        for row in np.flatnonzero(self.sizes < 0):
            path = self.paths[taken[row]].as_py()
            try:
                self.sizes[row] = os.stat(path).st_size if path else -1
            except (OSError, ValueError):
                continue  # decoding names it

    def digest(self, row: int, limit: int | None) -> bytes | None:
        """A digest of the file, or of `limit` bytes from its middle; None if it cannot be read."""
        start = 0 if limit is None else max(0, (int(self.sizes[row]) - limit) // 2)
        at = int(self.taken[row])
        content = self.content[at]
        if content.is_valid:
            return hashlib.blake2b(memoryview(content.as_buffer())[start:][:limit], digest_size=16).digest()
        try:
            with open(self.paths[at].as_py(), "rb") as file:
                file.seek(start)
                return hashlib.blake2b(file.read(limit), digest_size=16).digest()
        except OSError:
            return None


def describe_identical(kept: Mapping[str, Dataset], data: DataArguments) -> list[str]:
    """Sentences that count and name what `find_identical` finds: one for each two splits, and one for labels."""
    found = find_identical(kept)
    if not found:
        return []
    classes = next(iter(kept.values())).features["label"].names
    labels = {split: label_numbers(rows) for split, rows in kept.items()}
    paths = {split: paths_below(rows, data) for split, rows in kept.items()}
    numbers = {split: rows["index"][:] for split, rows in kept.items()}

    def name(split: str, row: int) -> str:
        return f"{paths[split][row] or f'image {numbers[split][row]}'} ({split}, {classes[labels[split][row]]})"

    sentences = []
    for earlier, later in combinations(kept, 2):
        shared = []
        for places in found:
            first = next((place for place in places if place[0] == earlier), None)
            shared += [f"{name(*place)} = {name(*first)}" for place in places if first and place[0] == later]
        if shared:
            sentences.append(
                f"Identical files in two splits: {len(shared):,} of the {len(kept[later]):,} {later} images are also "
                f"in {earlier}, so figures on {later} may be too high: {_list(shared)}. They are kept, because without "
                f"them {later} would not be the split of the dataset."
            )
    several = []
    for places in found:
        first_of = {labels[split][row]: name(split, row) for split, row in reversed(places)}
        several += [" = ".join(reversed(first_of.values()))] if len(first_of) > 1 else []
    if several:
        sentences.append(f"Identical files with different labels ({len(several):,}): {_list(several)}.")
    return sentences


def _list(named: Sequence[str]) -> str:
    return list_some(list(map(shorten, named)), NAMED_AT_MOST, mark="; ")
