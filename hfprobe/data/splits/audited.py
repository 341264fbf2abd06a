"""What an audit says of the images of a dataset: which of them are duplicates of each other."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hfprobe.data.splits.divided import Images
from hfprobe.data.splits.parts import SplitContent
from hfprobe.system.errors import InputError, first_line, shorten
from hfprobe.system.process import command
from hfprobe.system.records import parse_record

AUDIT_FILE = "audit.json"


@dataclass(frozen=True)
class ImageKey:
    """One image: `split` and `row` are those of the source, `file` is its path below the dataset; None without one."""

    split: str
    row: int
    file: str | None


@dataclass(frozen=True)
class Duplicates:
    """Images that show the same thing.

    Attributes:
        kind: exact: all have the same decoded pixels; near: at least one is a changed copy.
        images: two or more, in the order train, validation, test.
        similarity: correlation of the aligned pixels, in [0, 1]; of several pairs, the lowest one that joins the group.
    """

    kind: Literal["exact", "near"]
    images: list[ImageKey]
    similarity: float


def read_groups(audit: str | Path, images: Images) -> list[list[tuple[str, int]]]:
    """The groups of duplicates that an audit found, each as (split, row) of its images.

    Args:
        audit: its folder, or its audit.json.
        images: of the same dataset. Which classes and parts were audited does not matter.

    Raises:
        InputError: there is no audit, or a damaged one, or one of other images.
    """
    place = Path(audit)
    file = place if place.suffix == ".json" else place / AUDIT_FILE
    remedy = f"Make it: {command('audit')} {shlex.quote(shorten(images.arguments.dataset))} --report_dir <folder>"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        duplicates = parse_record(list[Duplicates], content["duplicates"])
        splits = parse_record(dict[str, SplitContent], content["provenance"]["splits"])
    except OSError as error:
        raise InputError(f"'{shorten(place)}' holds no audit ({file.name}: {error.strerror}). {remedy}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else first_line(error)
        raise InputError(f"The audit '{shorten(file)}' is damaged: {reason}. {remedy}") from error
    difference = _compare(splits, images.contents)
    if difference:
        raise InputError(
            f"The audit '{shorten(file)}' is not of the images of '{shorten(images.arguments.dataset)}': {difference}. "
            f"Pass the audit of these images. {remedy}"
        )
    groups = [[(image.split, image.row) for image in group.images] for group in duplicates]
    for split, row in (key for group in groups for key in group):
        if split not in splits or not 0 <= row < splits[split].rows:
            raise InputError(f"The audit '{shorten(file)}' is damaged: there is no row {row} of '{split}'. {remedy}")
    return groups


def _compare(audited: Mapping[str, SplitContent], found: Mapping[str, SplitContent]) -> str:
    """How audited splits differ from those of a dataset; empty if they do not."""
    if audited.keys() != found.keys():
        return f"it has the splits {', '.join(audited)}, and they have {', '.join(found)}"
    for name, content in found.items():
        if audited[name].rows != content.rows:
            return f"its split '{name}' has {audited[name].rows:,} images, and theirs {content.rows:,}"
        if audited[name] != content:
            return f"the files of its split '{name}' have other names or sizes"
    return ""
