"""The parts of a dataset, and what is recorded of each. Quick to import: the checks of a run folder need it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from hfprobe.system.errors import shorten

PARTS = ("train", "validation", "test")
BITS = 128
SAMPLED = 512  # images of a part; two samples of parts that share images share some of them


@dataclass(frozen=True)
class Membership:
    """Which images a part has.

    Attributes:
        own: whether the dataset has this part as a split; otherwise it was drawn.
        images: their number.
        digest, sample: see `hfprobe.data.splits.membership.describe_part`.
    """

    own: bool
    images: int
    digest: str
    sample: list[str]

    def __post_init__(self) -> None:
        if not re.fullmatch(f"[0-9a-f]{{{BITS // 4}}}", self.digest):
            raise ValueError(f"a digest of images is {shorten(self.digest)}; allowed: {BITS // 4} hexadecimal digits")
        if len(self.sample) > SAMPLED or not all(re.fullmatch("[0-9a-f]{16}", entry) for entry in self.sample):
            raise ValueError(f"a sample of images is damaged; allowed: at most {SAMPLED} hashes of 16 digits")


@dataclass(frozen=True)
class SplitContent:
    """What tells a split of a source from another: its rows, and `hfprobe.data.splits.membership.describe_split`."""

    rows: int
    digest: str


@dataclass(frozen=True)
class Edits:
    """What the settings `labels`, `audit` and `drop_leaks` changed, image by image; rows are those of the source.

    A model records it, so its images are found again without the files of these settings.

    Attributes:
        splits: split of the source -> its content, of the splits in which something was changed.
        labels: split -> row -> class of the image; "" leaves it out. None: as the file of `labels` says now.
        moved: split -> row -> the part that the image was moved to.
        groups: number of groups of images that belong together of which some were moved.
        dropped: split -> row -> the part that has a duplicate of the image, which was left out for it.
    """

    splits: dict[str, SplitContent] = field(default_factory=dict)
    labels: dict[str, dict[int, str]] | None = field(default_factory=dict)
    moved: dict[str, dict[int, str]] = field(default_factory=dict)
    groups: int = 0
    dropped: dict[str, dict[int, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, named in (("moved", self.moved), ("dropped", self.dropped)):
            unknown = {part for rows in named.values() for part in rows.values()} - {*PARTS}
            if unknown:
                raise ValueError(f"'{name}' has {shorten(', '.join(sorted(unknown)))}; allowed: {', '.join(PARTS)}")
        for named in (self.labels or {}, self.moved, self.dropped):
            for split, rows in named.items():
                if split in self.splits and max(rows, default=0) >= self.splits[split].rows:
                    raise ValueError(
                        f"'{shorten(split)}' has no row {max(rows)}; allowed: less than {self.splits[split].rows}"
                    )
