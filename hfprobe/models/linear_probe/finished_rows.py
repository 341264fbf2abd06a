"""Which rows of an extraction are finished, noted next to its file, so that an interrupted one can be continued."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hfprobe.system import ranks
from hfprobe.system.files import read_json, write_beside

# Saving the progress after every batch took a twentieth of the time.
SECONDS_BETWEEN_NOTES = 5
CHECKED_AT_ONCE = 1_000  # rows


@dataclass(frozen=True, eq=False)
class FinishedRows:
    """The rows of the file of an extraction that hold features.

    Each process of a run writes its own note, of the rows that were finished when it started and those that it has
    finished since. The finished rows are those of all notes, whatever the number of processes that wrote them.

    Attributes:
        rows: (N,) bool.
        seconds: that the backbone took for them.
    """

    rows: np.ndarray
    seconds: float

    @classmethod
    def read(cls, part: Path, *, count: int) -> FinishedRows:
        """What the notes of the file `part` with `count` rows say; a damaged note counts for no rows."""
        rows, seconds = np.zeros(count, dtype=bool), 0.0
        for note in _find_notes(part):
            record = read_json(note)
            try:
                bits = np.frombuffer(bytes.fromhex(record["rows"]), dtype=np.uint8)
                rows |= np.unpackbits(bits, count=count).astype(bool)
                seconds = max(seconds, float(record["seconds"]))
            except (KeyError, TypeError, ValueError):
                continue
        return cls(rows, seconds)

    def write(self, part: Path, *, rank: int) -> None:
        """Write the note of one process; the rows must be on the disk."""
        record = json.dumps({"rows": np.packbits(self.rows).tobytes().hex(), "seconds": self.seconds})
        write_beside(part.with_suffix(f".rows-{rank}"), lambda beside: beside.write_text(record))


class RowWriter:
    """Writes rows into the file of an extraction, and notes from time to time which ones are finished.

    Args:
        part: the file, which exists.
        before: its rows that are finished.

    Raises:
        FileNotFoundError: the file does not exist.
    """

    def __init__(self, part: Path, before: FinishedRows):
        self.features = np.lib.format.open_memmap(part, mode="r+")
        self.checksum = 0
        self._part = part
        self._rows = before.rows.copy()
        self._start = time.perf_counter() - before.seconds
        self._noted = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the writer was made, and those of the rows that were finished before."""
        return time.perf_counter() - self._start

    def write(self, positions: np.ndarray, features: np.ndarray) -> None:
        """Write features (M, F) float32 to the rows at M positions."""
        self.features[positions] = features
        self.checksum = zlib.crc32(features.data, self.checksum)
        self._rows[positions] = True
        if time.perf_counter() - self._noted > SECONDS_BETWEEN_NOTES:
            self.note()

    def note(self) -> None:
        """Note which rows are finished."""
        self.features.flush()  # first, so that a finished row survives a power failure
        FinishedRows(self._rows, self.seconds).write(self._part, rank=ranks.rank_and_count()[0])
        self._noted = time.perf_counter()


@dataclass(frozen=True, eq=False)
class WrittenRows:
    """What one process has written into the file of an extraction.

    Attributes:
        positions: (M,) of the rows.
        checksum: CRC-32 of their features, in this order.
        seconds: that the extraction took.
    """

    positions: np.ndarray
    checksum: int
    seconds: float

    def are_in(self, part: Path) -> bool:
        """Whether the file holds them; not if another process has written them to a file of its own machine."""
        features, checksum = np.load(part, mmap_mode="r"), 0
        for first in range(0, len(self.positions), CHECKED_AT_ONCE):
            checksum = zlib.crc32(features[self.positions[first : first + CHECKED_AT_ONCE]].data, checksum)
        return checksum == self.checksum


def remove_notes(part: Path) -> None:
    """Remove the notes of all processes about the file `part`."""
    for note in _find_notes(part):
        note.unlink()


def _find_notes(part: Path) -> Iterator[Path]:
    yield from sorted(part.parent.glob(f"{part.stem}.rows-*"))
