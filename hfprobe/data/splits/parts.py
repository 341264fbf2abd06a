"""The parts of a dataset, and what is recorded of each. Quick to import: the checks of a run folder need it."""

from __future__ import annotations

import re
from dataclasses import dataclass

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
