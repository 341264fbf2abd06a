"""Images of the chosen classes in their parts, before they are decoded."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset

from hfprobe.data.arguments import DataArguments
from hfprobe.data.pixels.decoding import decode_images, fill_cache, is_decoded
from hfprobe.data.pixels.image_files import MAX_PIXELS
from hfprobe.data.pixels.image_statistics import HEADERS, header_sizes
from hfprobe.data.pixels.reading import find_unreadable
from hfprobe.data.pixels.store import ImageSplit
from hfprobe.data.sources.archives import name_archive
from hfprobe.data.sources.columns import label_numbers
from hfprobe.data.splits.decoded import Splits, SplitSummary
from hfprobe.data.splits.division import Part
from hfprobe.data.splits.membership import describe_split
from hfprobe.data.splits.parts import Edits, Membership, SplitContent
from hfprobe.system import ranks
from hfprobe.system.errors import InputError, list_some, shorten
from hfprobe.system.html import render_table
from hfprobe.system.progress import show_progress

if TYPE_CHECKING:  # slow to import
    from transformers import BaseImageProcessor

logger = logging.getLogger(__name__)

CLASSES_LISTED = 12
NAMED_AT_MOST = 5
UNREADABLE_NAMED = 20
# Of more than FEW images with fewer pixels than SMALL on average, decoding takes hardly longer than reading headers.
FEW, SMALL = 1_000, 128 * 128


@dataclass(frozen=True)
class Drawn:
    """A dataset as it was divided, before any of `Edits`.

    Attributes:
        splits: split of the source -> all its rows, with the column `image` (undecoded).
        kept: split -> the rows of `hfprobe.data.splits.classes.keep_classes`.
        parts: `train`, `validation` and `test`, or the only part of a whole dataset.
        division, left_out: see `Images`.
        unlabelled: split of the source that has no labels -> its rows, with the columns that it has.
    """

    splits: dict[str, Dataset]
    kept: dict[str, Dataset]
    parts: dict[str, Part]
    division: str
    left_out: dict[str, list[str]]
    unlabelled: Mapping[str, Dataset]


@dataclass(frozen=True)
class Images:
    """Images of the chosen classes, split but not decoded, because each model decodes them at its own resolution.

    Attributes:
        class_names: in the order of the label numbers.
        source: description of where the images come from.
        parts: `train`, `validation` and `test` -> rows with the columns `image` (undecoded), `label` and `index`, the
            row number in the split of the source. `all` alone for a whole dataset.
        origins: part -> the split of the source that its rows are of.
        source_keys: split of the source -> `hfprobe.data.cache.source_key`.
        arguments: what was asked for.
        seed: of the splits that were drawn.
        division: sentences that say which parts the dataset has and how the others were drawn.
        left_out: reason -> names of files, splits and rows that were left out.
        identical: sentences about images whose files are identical, from `hfprobe.data.splits.duplicates`.
        membership: part -> `hfprobe.data.splits.membership.describe_part` of it, with the labels of the dataset, before
            images were left out by `edits` and before subsets were taken.
        edits: what was changed after the division.
        drawn: the images before that.
    """

    class_names: list[str]
    source: str
    parts: dict[str, Dataset]
    origins: dict[str, str]
    source_keys: dict[str, str]
    arguments: DataArguments
    seed: int
    division: str
    left_out: dict[str, list[str]]
    identical: list[str]
    membership: dict[str, Membership]
    edits: Edits
    drawn: Drawn

    @cached_property
    def contents(self) -> dict[str, SplitContent]:
        """Split of the source -> what tells it from that of another dataset."""
        return {
            name: describe_split(rows, by_number=self.arguments.by_number) for name, rows in self.drawn.splits.items()
        }

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """Width and height in pixels of some images of the first part, see `hfprobe.data.pixels.image_statistics`."""
        return header_sizes(next(iter(self.parts.values())))

    @property
    def median_side(self) -> float:
        """Median in pixels of the shorter side of `sizes`; 0 if none of these images can be read."""
        return float(np.median([min(size) for size in self.sizes])) if self.sizes else 0.0

    def counts(self) -> dict[str, list[int]]:
        """Split -> images of each class, in the order of `class_names`."""
        return {
            name: np.bincount(label_numbers(rows), minlength=len(self.class_names)).tolist()
            for name, rows in self.parts.items()
        }

    def describe(self) -> str:
        """What was found, in lines: the source, the images by part and class, the division, and what was left out."""
        lines = [f"Images: {self.source}"]
        for name, counts in self.counts().items():
            if len(counts) <= CLASSES_LISTED:
                listed = ", ".join(
                    f"{class_name} {count:,}" for class_name, count in zip(self.class_names, counts, strict=True)
                )
            else:
                listed = f"{len(counts)} classes of {min(counts):,} to {max(counts):,}"
            lines.append(f"  {name:<10} {sum(counts):>7,}  {listed}")
        if self.sizes:
            low, high = ("{:,} x {:,}".format(*pick(self.sizes, key=math.prod)) for pick in (min, max))
            several = f"{low} to {high} pixels, median of the shorter side {self.median_side:g}"
            lines.append(f"  Size: {several if low != high else f'{low} pixels'} ({len(self.sizes)} images looked at)")
        lines.append(f"  {self.division}")
        for reason, names in self.left_out.items():
            listed = list_some(list(map(shorten, names)), NAMED_AT_MOST)
            lines.append(f"  Left out ({len(names):,}), {reason}: {listed}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        counted = ", ".join(f"{len(rows):,} {name}" for name, rows in self.parts.items())
        return f"Images of {self.source}: {counted}; classes {', '.join(self.class_names)}"

    def _repr_html_(self) -> str:
        rows = [(name, *numbers, sum(numbers)) for name, numbers in self.counts().items()]
        return render_table(["split", *self.class_names, "images"], rows, caption=self.source)

    def decode(self, *names: str, processor: BaseImageProcessor) -> Splits:
        """Decode some of the parts for a model with this image processor.

        Args:
            names: of the parts: `train`, `validation`, `test`, or `all` of a whole dataset.
            processor: image processor of the model.

        Raises:
            InputError: images cannot be read, and `skip_unreadable` is off; the message names them.
            InputError, MachineError: the decoded images cannot be written to the cache.
        """
        how = {name: self._how(name) for name in names}
        new = [name for name in names if not self.is_decoded(name, processor=processor)]
        if new:
            # A training refuses what would stop the evaluation after it.
            self._check_headers([*new, *(["test"] if "train" in new and "test" not in names else [])])
        decoded = {name: decode_images(self.parts[name], part=name, processor=processor, **how[name]) for name in names}
        unreadable = [
            name_archive(text, self.arguments.dataset) for part in decoded.values() for text in part.unreadable
        ]
        if unreadable:
            self._check_readable(decoded, unreadable)
        left_out = self.left_out | ({"cannot be read": unreadable} if unreadable else {})
        classes = len(self.class_names)
        counts = {name: np.bincount(part.labels, minlength=classes).tolist() for name, part in decoded.items()}
        told = (self.division, left_out, self.identical, self.counts() | counts, self.membership, self.edits)
        summary = SplitSummary(*told)
        return Splits(class_names=self.class_names, source=self.source, summary=summary, **decoded)

    def decode_for(self, processors: Sequence[BaseImageProcessor], *, parts: Iterable[str] | None = None) -> None:
        """Decode each image once for several models; `decode` then reads the cache.

        Args:
            processors: image processors of the models.
            parts: names; None: all.

        Raises:
            InputError, MachineError: see `decode`.
        """
        missing = {
            name: found
            for name in parts or self.parts
            if (found := [each for each in processors if not self.is_decoded(name, processor=each)])
        }
        if missing:
            self._check_headers(missing)
        for name, found in missing.items():
            fill_cache(self.parts[name], part=name, processors=found, **self._how(name))

    def check_headers(self) -> None:
        """Refuse images of all parts whose headers show that they cannot be read, unless they are left out.

        Raises:
            InputError: there are some; the message names them.
        """
        self._check_headers(self.parts)

    def is_decoded(self, *names: str, processor: BaseImageProcessor) -> bool:
        """Whether the cache holds what `decode` would return for these parts."""
        return all(is_decoded(self.parts[name], processor=processor, **self._how(name)) for name in names)

    def _how(self, name: str) -> dict[str, Any]:
        """Arguments of `decode_images` for one part."""
        origin = self.origins[name]
        limit = self.arguments.max_pixels or MAX_PIXELS
        return {"split": origin, "source_key": self.source_keys[origin], "max_pixels": limit}

    def _check_headers(self, names: Iterable[str]) -> None:
        """Refuse images whose headers show that they cannot be read, before time is spent on decoding the others.

        With `skip_unreadable`, decoding leaves them out.

        Raises:
            InputError: there are some; the message names them.
        """
        parts = {name: self.parts[name] for name in names}
        total = sum(map(len, parts.values()))
        looked_at = min(HEADERS, len(next(iter(self.parts.values()))))
        small = len(self.sizes) == looked_at and np.prod(self.sizes, axis=1).mean() < SMALL
        if self.arguments.skip_unreadable or (total > FEW and small):
            return
        with ranks.together():
            found = [self._find_unreadable(name) for name in parts]
        unreadable = [text for shares in zip(*ranks.gather(found), strict=True) for share in shares for text in share]
        if unreadable:
            self._check_readable({}, unreadable)

    def _find_unreadable(self, name: str) -> list[str]:
        """What the headers of this process's share of a part show."""
        share = self.parts[name].select(ranks.share_of(len(self.parts[name])))
        limit = self.arguments.max_pixels or MAX_PIXELS
        stage = f"Checking {name} images{ranks.name_share()}"
        with show_progress(total=len(share), desc=stage, unit="image", inner=True) as progress:
            found = []
            for text in find_unreadable(share, split=self.origins[name], max_pixels=limit):
                found += [] if text is None else [text]
                progress.update()
        return found

    def _check_readable(self, decoded: Mapping[str, ImageSplit], unreadable: list[str]) -> None:
        """Refuse images that cannot be read, or with `skip_unreadable` log them.

        Raises:
            InputError: it is off; or a class of the training images has no other image.
        """
        named = name_archive(list_some(unreadable, UNREADABLE_NAMED, mark="; "), self.arguments.dataset)
        if not self.arguments.skip_unreadable:
            start = f"{len(unreadable):,} images: " if len(unreadable) > 1 else ""
            remedy = "Replace or remove them" if start else "Replace or remove it"
            raise InputError(f"{start}{named[:1].upper()}{named[1:]}. {remedy}, or pass --skip_unreadable.")
        logger.warning("Left out %d images: %s.", len(unreadable), named)
        for name, part in decoded.items():
            counts = np.bincount(part.labels, minlength=len(self.class_names))
            if counts.min() == 0 and (name == "train" or not counts.any()):
                lost = self.class_names[int(counts.argmin())]
                raise InputError(f"No {name} image of class {lost} can be read. Replace them, or leave the class out.")
