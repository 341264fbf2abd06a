"""Which rows of an extraction are finished, noted next to its file, so that an interrupted one can be continued."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hfprobe.system.files import read_json, write_beside


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


def remove_notes(part: Path) -> None:
    """Remove the notes of all processes about the file `part`."""
    for note in _find_notes(part):
        note.unlink()


def _find_notes(part: Path) -> Iterator[Path]:
    yield from sorted(part.parent.glob(f"{part.stem}.rows-*"))
