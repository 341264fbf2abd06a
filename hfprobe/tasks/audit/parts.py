"""What duplicates mean for the parts train, validation and test. Does not import torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hfprobe.data.splits.audited import Duplicates


@dataclass(frozen=True)
class PartSummary:
    """One of the parts train, validation and test.

    Attributes:
        split: of the source.
        images: their number; those that cannot be read are not counted.
        effective_n: different images among them: duplicates within the part count once.
        duplicated_in: part -> images of this part that have a duplicate there; for the part itself, the images that
            have another one in it.
        duplicate_rows: of the images that have a duplicate anywhere.
    """

    split: str
    images: int
    effective_n: int
    duplicated_in: dict[str, int]
    duplicate_rows: list[int]


def summarize_duplicates(
    rows: Mapping[str, tuple[str, Iterable[int]]], duplicates: Sequence[Duplicates]
) -> tuple[dict[str, PartSummary], list[Duplicates]]:
    """What duplicates mean for the parts of the images.

    Args:
        rows: part -> the split of the source that it comes from, and its rows there, of images that can be read.

    Returns:
        Part -> its summary; and the duplicates, those that reach from the last part into another one first, then by
        size and similarity.
    """
    owners = {(split, row): name for name, (split, numbers) in rows.items() for row in numbers}
    counts = Counter(owners.values())
    held = {  # position of a group -> part -> its rows there
        at: {name: [key.row for key in group.images if owners.get((key.split, key.row)) == name] for name in rows}
        for at, group in enumerate(duplicates)
    }
    parts = {}
    for name, (split, _) in rows.items():
        mine = [(group[name], group) for group in held.values()]
        parts[name] = PartSummary(
            split=split,
            images=counts[name],
            effective_n=counts[name] - sum(max(0, len(own) - 1) for own, _ in mine),
            duplicated_in={
                other: sum(len(own) for own, group in mine if len(group[other]) > (other == name)) for other in rows
            },
            duplicate_rows=sorted(row for own, group in mine if sum(map(len, group.values())) > 1 for row in own),
        )
    last = list(rows)[-1]

    def order(at: int) -> tuple[bool, int, float]:
        leaks = bool(held[at][last]) and sum(map(bool, held[at].values())) > 1
        return not leaks, -len(duplicates[at].images), -duplicates[at].similarity

    return parts, [duplicates[at] for at in sorted(held, key=order)]
