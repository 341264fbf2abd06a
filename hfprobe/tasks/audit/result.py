"""What an audit of images found. Does not import torch, because pages are made from it alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal

from markupsafe import Markup

from hfprobe.data.splits.audited import AUDIT_FILE, Duplicates, ImageKey
from hfprobe.data.splits.parts import SplitContent
from hfprobe.system.html import render_sentences, render_table
from hfprobe.system.provenance import Hardware
from hfprobe.system.records import VerdictFile
from hfprobe.tasks.audit.parts import PartSummary

# What the page shows at most.
MOST_GROUPS, MOST_PER_GROUP, MOST_LABELS, MOST_OUTLIERS = 80, 8, 96, 12


@dataclass(frozen=True)
class SuspectLabel:
    """A label that a probe, which was not trained on the image, does not agree with: a question, not an error.

    Attributes:
        split, row, file: see `ImageKey`.
        given, suggested: the class of the label, and the most probable one.
        probability_given, probability_suggested: of both classes, in [0, 1].
    """

    split: str
    row: int
    file: str | None
    given: str
    suggested: str
    probability_given: float
    probability_suggested: float


@dataclass(frozen=True)
class Outlier:
    """An image that is unusual among those of the dataset.

    Attributes:
        split, row, file: see `ImageKey`.
        measure: what is unusual.
        value: of dark and bright images, the mean grey level in [0, 255]; of blurred ones, the standard deviation of
            the Laplacian of the grey levels; of small and large ones, pixels; of elongated ones, longer side / shorter
            side.
    """

    split: str
    row: int
    file: str | None
    measure: Literal["dark", "bright", "blurred", "small", "large", "elongated"]
    value: float


@dataclass(frozen=True)
class Sizes:
    """Width and height in pixels of the smallest and the largest image, and the median of the shorter side."""

    smallest: tuple[int, int]
    largest: tuple[int, int]
    median_side: float


@dataclass(frozen=True)
class Summary:
    """The images.

    Attributes:
        classes: class -> images in all parts.
        formats, modes: name -> images, from the headers of their files.
        sizes: None if no image can be read.
        division: how the parts were made.
        left_out: reason -> names of what is no part of the images.
        unreadable: a sentence for each image that cannot be read.
    """

    source: str
    classes: dict[str, int]
    parts: dict[str, PartSummary]
    formats: dict[str, int]
    modes: dict[str, int]
    sizes: Sizes | None
    division: str
    left_out: dict[str, list[str]]
    unreadable: list[str]


@dataclass(frozen=True)
class Provenance:
    """How an audit was made.

    Attributes:
        splits: split of the source -> what tells it from that of other images.
        seconds: stage -> time that it took, features from the cache included.
    """

    dataset: str
    splits: dict[str, SplitContent]
    data_fingerprint: str
    backbone: dict[str, str]
    seed: int
    folds: int
    seconds: dict[str, float]
    hardware: Hardware
    versions: dict[str, str]


@dataclass(frozen=True, repr=False)
class Audit(VerdictFile):
    """What an audit found.

    Attributes:
        duplicates: those that reach into test first, then by size and similarity.
        labels: the most suspect first: those with the lowest probability of the given class.
        outliers: of each measure, the most unusual first.
        thumbnails: (split, row) -> a small image as the bytes of a file, for the page; empty if the audit was loaded.
        samples: class -> (split, row) of some images, for the page; empty if the audit was loaded.
    """

    FILE = AUDIT_FILE
    WHAT = "audit"
    MADE_BY = "audit <folder>"

    summary: Summary
    duplicates: list[Duplicates]
    labels: list[SuspectLabel]
    outliers: list[Outlier]
    provenance: Provenance
    thumbnails: dict[tuple[str, int], bytes] = field(default_factory=dict, compare=False)
    samples: dict[str, list[tuple[str, int]]] = field(default_factory=dict, compare=False)

    @property
    def sentences(self) -> list[str]:
        """What was found."""
        parts = self.summary.parts
        total = sum(part.images for part in parts.values())
        listed = ", ".join(f"{part.images:,} {name}" for name, part in parts.items())
        found = [f"{_count(total, 'image')} ({listed}) of {_count(len(self.summary.classes), 'class')} were looked at."]
        if self.summary.unreadable:
            found.append(f"{_count(len(self.summary.unreadable), 'image')} cannot be read.")
        if self.duplicates:
            images = sum(len(group.images) for group in self.duplicates)
            exact = sum(group.kind == "exact" for group in self.duplicates)
            found.append(
                f"{images:,} images are in {_count(len(self.duplicates), 'group')} of duplicates, {exact:,} of them "
                "exact."
            )
            if exact < len(self.duplicates):
                found[-1] += " Look at the others: different objects that look alike can be among them."
        else:
            found.append("No duplicates were found.")
        for name, part in parts.items():
            if name == "train" or not any(part.duplicated_in.values()):
                continue
            where = [
                f"{count:,} {'has' if count == 1 else 'have'} a duplicate in {other}"
                for other, count in part.duplicated_in.items()
                if other != name and count
            ]
            if part.duplicated_in[name]:
                where.append(f"{part.duplicated_in[name]:,} repeat each other")
            effective = ""
            if part.effective_n < part.images:
                effective = f", so the effective n of {name} may be as small as {part.effective_n:,}"
            found.append(f"Of the {part.images:,} {name} images, {_and(where)}{effective}.")
        if self.labels:
            share = len(self.labels) / max(1, total)
            found.append(
                f"The probe disagrees with the labels of {_count(len(self.labels), 'image')} ({share:.1%}). These are "
                "questions: many of the labels are correct.".replace("%)", " %)")
            )
        else:
            found.append("The probe agrees with every label.")
        return found

    def _repr_html_(self) -> str:
        head = ["part", "images", "effective n", *(f"duplicates in {name}" for name in self.summary.parts)]
        rows: list[list[Any]] = [
            [name, part.images, part.effective_n, *part.duplicated_in.values()]
            for name, part in self.summary.parts.items()
        ]
        table: Markup = render_table(head, rows, caption=self.summary.source)
        return table + render_sentences(self.sentences)


def leaked_rows(audit: Audit, *, into: str = "test", of: tuple[str, ...] = ("train", "validation")) -> set[int]:
    """Row numbers in the source of the images of one part that have a duplicate in others.

    Args:
        into: the part whose rows are returned.
        of: the parts in which the duplicates are.
    """
    owners = part_of_each(audit)
    found: set[int] = set()
    for group in audit.duplicates:
        parts = [owners.get((image.split, image.row)) for image in group.images]
        if set(parts) & set(of):
            found |= {image.row for image, part in zip(group.images, parts, strict=True) if part == into}
    return found


def part_of_each(audit: Audit) -> dict[tuple[str, int], str]:
    """(split, row) -> part of each image that has a duplicate."""
    return {(part.split, row): name for name, part in audit.summary.parts.items() for row in part.duplicate_rows}


def shown_images(audit: Audit) -> set[tuple[str, int]]:
    """(split, row) of the images that the page shows."""
    found: list[ImageKey | SuspectLabel | Outlier] = list(audit.labels[:MOST_LABELS])
    owners = part_of_each(audit)
    for group in audit.duplicates[:MOST_GROUPS]:
        found += choose_shown(group.images, owners)
    for outliers in outliers_by_measure(audit).values():
        found += outliers[:MOST_OUTLIERS]
    return {(item.split, item.row) for item in found} | {key for keys in audit.samples.values() for key in keys}


def choose_shown(images: list[ImageKey], owners: dict[tuple[str, int], str]) -> list[ImageKey]:
    """At most MOST_PER_GROUP images of a group, some of each part that it reaches."""
    parts: dict[str, list[ImageKey]] = {}
    for image in images:
        parts.setdefault(owners.get((image.split, image.row), image.split), []).append(image)
    in_turn = [image for row in zip_longest(*parts.values()) for image in row if image is not None]
    return sorted(in_turn[:MOST_PER_GROUP], key=images.index)


def outliers_by_measure(audit: Audit) -> dict[str, list[Outlier]]:
    """Measure -> its outliers, the most unusual first."""
    found: dict[str, list[Outlier]] = {}
    for outlier in audit.outliers:
        found.setdefault(outlier.measure, []).append(outlier)
    return found


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def _and(texts: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1] if texts else ""]))
