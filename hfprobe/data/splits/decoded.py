"""Parts of a dataset, decoded for one model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from hfprobe.data.pixels.store import ImageSplit
from hfprobe.data.splits.parts import Edits, Membership


@dataclass(frozen=True)
class SplitSummary:
    """How the parts of a dataset were made.

    Attributes:
        division, left_out, membership, edits: see `Images`; `identical_images`: its `identical`.
        image_counts: part -> images of each class.
    """

    division: str = ""
    left_out: dict[str, list[str]] = field(default_factory=dict)
    identical_images: list[str] = field(default_factory=list)
    image_counts: dict[str, list[int]] = field(default_factory=dict)
    membership: dict[str, Membership] | None = None
    edits: Edits = field(default_factory=Edits)


@dataclass(frozen=True)
class Splits:
    """Images of the chosen classes, decoded for one model.

    Attributes:
        class_names: in the order of the label numbers.
        source: description of where the images come from.
        train, validation, test: the parts; None for a part that was not requested.
        all: the images of all splits, from `load_images(whole=True)`.
        summary: how the parts were made and what was left out, for records and pages.
    """

    class_names: list[str]
    source: str
    train: ImageSplit | None = None
    validation: ImageSplit | None = None
    test: ImageSplit | None = None
    all: ImageSplit | None = None
    summary: SplitSummary = SplitSummary()

    def part(self, name: str) -> ImageSplit:
        """The part `train`, `validation`, `test` or `all`.

        Raises:
            ValueError: it was not requested.
        """
        parts = {"train": self.train, "validation": self.validation, "test": self.test, "all": self.all}
        found = parts[name]
        if found is None:
            raise ValueError(f"The {name} images were not decoded.")
        return found

    def images_per_class(self, name: str) -> np.ndarray:
        """(C,) numbers of images of the part `name`."""
        return np.bincount(self.part(name).labels, minlength=len(self.class_names))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the class names and the fingerprints of the parts; where the images are stored does not matter."""
        digest = hashlib.sha256("\0".join(self.class_names).encode())
        for part in (self.train, self.validation, self.test):
            digest.update(b"none" if part is None else part.fingerprint.encode())
        return digest.hexdigest()
