"""Which images belong together, as `--group_column`, `--group_by` or `--group_regex` says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from pathlib import PurePath

from datasets import Dataset

from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.columns import label_numbers, paths_below
from hfprobe.data.sources.labels import normalize_name
from hfprobe.system.errors import InputError, list_some, shorten

OF_ITS_OWN = "\0"  # begins the group of an image that has no value in `--group_column`
# Where images belong together, nearly all of them share their group; where fewer than these do, the rule misses it.
LEAST_SHARED = 0.1
NAMED_AT_MOST = 3
# Exports of Roboflow name an image that they make of clip3_0004.jpg clip3_0004_jpg.rf.0a1b2c.jpg.
_HASH = re.compile(r"\.rf\.[0-9A-Za-z]+$")
_ENDING = re.compile(r"[._](jpe?g|png|bmp|gif|tiff?|webp|hei[cf]|avif)$", re.IGNORECASE)
# The number of a frame at the end of a name, and the word before it unless letters are before that.
_WORDS = "frame|frm|fr|f|image|img|im|photo|picture|pic|shot|crop|patch|tile|slice|view|copy"
_NUMBER = re.compile(rf"((?<![^\W\d_])(?:{_WORDS}))?[\s_.-]*\(?\d+\)?$", re.IGNORECASE)
_SEPARATORS = "_-. "


def find_groups(kept: Mapping[str, Dataset], data: DataArguments) -> tuple[dict[str, list[str]] | None, str]:
    """The groups of the images in each split, and a sentence with their number and sizes; None and '' without groups.

    Args:
        kept: the splits of a dataset, with the columns `image` (undecoded), `label`, `index` and, with
            `--group_column`, `group`.

    Returns:
        Split -> group of each row.

    Raises:
        InputError: the images have no file names, or names that do not match; nearly every group is a single image,
            or all images are one group; images of one group are in two splits.
    """
    flag = describe_flag(data)
    if flag is None:
        return None, ""
    groups = {split: group_names(rows, data, split=split) for split, rows in kept.items()}
    sizes = Counter(group for names in groups.values() for group in names)
    total, low, high = sum(sizes.values()), min(sizes.values()), max(sizes.values())
    example = ""
    if data.group_column is None:
        paths = [path or "" for rows in kept.values() for path in paths_below(rows, data)]
        own = [group for names in groups.values() for group in names]
        _check_groups_are_useful(sizes, dict(zip(paths, own, strict=True)), flag=flag)
        example = f"; {shorten(paths[0])} is of group '{shorten(own[0])}'"
    for one, other in combinations(groups, 2):
        shared = sorted(group for group in {*groups[one]} & {*groups[other]} if not group.startswith(OF_ITS_OWN))
        if shared:
            raise InputError(
                f"{len(shared):,} groups have images both in {one} and in {other}: {shorten(', '.join(shared))}. Move "
                f"each group into one split, or leave {flag.split()[0]} out."
            )
    each = f"{low:,} to {high:,} images" if low != high else "1 image" if high == 1 else f"{high:,} images"
    useless = " Groups of one image change nothing." if high == 1 else ""
    return groups, f"{total:,} images in {len(sizes):,} groups of {each} ({flag}{example}).{useless}"


def describe_flag(data: DataArguments) -> str | None:
    """The flag that says the groups, with its value; None if there is none."""
    flags = ("group_column", "group_by", "group_regex")
    return next((f"--{name} {shorten(value)}" for name in flags if (value := getattr(data, name)) is not None), None)


def _check_groups_are_useful(sizes: Counter[str], group_of: Mapping[str, str], *, flag: str) -> None:
    """Raise InputError if nearly every group is a single image, or all images are one group.

    Args:
        group_of: path of an image -> its group.
    """
    total, alone = sum(sizes.values()), sum(size for size in sizes.values() if size == 1)
    remedy = (
        f"Pass {'another' if flag.startswith('--group_regex') else 'a'} --group_regex that matches what is the same in "
        "the paths of images that belong together, pass --group_column, or leave "
        f"{flag.split()[0]} out if each image stands alone."
    )
    shown = [f"{path} of group '{group}'" for path, group in group_of.items() if sizes[group] == 1 or len(sizes) == 1]
    named = shorten(", ".join(shown[:NAMED_AT_MOST]))
    if total - alone < LEAST_SHARED * total:
        raise InputError(
            f"{flag} groups nothing: {alone:,} of {total:,} images are alone in their group, such as {named}. {remedy}"
        )
    if len(sizes) == 1:
        raise InputError(f"{flag} puts all {total:,} images into one group, which cannot be divided: {named}. {remedy}")


def group_names(rows: Dataset, data: DataArguments, *, split: str) -> list[str]:
    """The group of each row."""
    if data.group_column is not None:
        pairs = zip(rows["group"][:], rows["index"][:], strict=True)
        return [group or f"{OF_ITS_OWN}{split}{index}" for group, index in pairs]
    paths = [path or "" for path in paths_below(rows, data)]
    if not all(paths):
        raise InputError(
            f"{describe_flag(data)} needs the names of files, and images of dataset '{shorten(data.dataset)}' have "
            "none. Pass --group_column with a column of it."
        )
    if data.group_regex is not None:
        return _match(paths, data.group_regex)
    if data.group_by == "prefix":
        return [find_prefix(PurePath(path).stem) for path in paths]
    names = rows.features["label"].names
    groups = [_subfolder(PurePath(path), names[label]) for path, label in zip(paths, label_numbers(rows), strict=True)]
    if not any(groups):
        raise InputError(
            f"--group_by folder needs images in subfolders of their class folder; dataset '{shorten(data.dataset)}' "
            "has none. Pass --group_by prefix, --group_regex or --group_column."
        )
    return [group or path for group, path in zip(groups, paths, strict=True)]  # without a folder: a group of its own


def find_prefix(stem: str) -> str:
    """The name of a file, without its ending, before the number of the frame: clip3 of `clip3_0004` or `clip3frame4`.

    A name without such a number is cut at its last separator: IMG-12 of `IMG-12_left`. Where nothing is before the
    number, it is the word that counts, img of `img0001`, or ''.
    """
    stem = _ENDING.sub("", _HASH.sub("", stem))
    number = _NUMBER.search(stem)
    if number is None:
        cut = max(stem.rfind(mark) for mark in _SEPARATORS)
        return stem[:cut] if cut > 0 else stem
    return stem[: number.start()].rstrip(_SEPARATORS) or number[1] or ""


def _match(paths: list[str], expression: str) -> list[str]:
    """The first group of a regular expression, or else what it matches, in each path."""
    pattern = re.compile(expression)
    found = [pattern.search(path) for path in paths]
    groups = [match and match[min(1, pattern.groups)] for match in found]
    unmatched = [path for path, group in zip(paths, groups, strict=True) if not group]
    if unmatched:
        raise InputError(
            f"--group_regex {shorten(expression)} finds no group in {len(unmatched):,} of {len(paths):,} paths: "
            f"{shorten(list_some(unmatched, NAMED_AT_MOST))}. It must match a part of every path below the "
            "dataset, such as train/cat/clip3_0004.png."
        )
    return [group or "" for group in groups]


def _subfolder(path: PurePath, label: str) -> str:
    """The folders between the class folder and the file; without a class folder, the folder of the file."""
    folders = [normalize_name(name) for name in path.parent.parts]
    if label not in folders:
        return str(path.parent)
    return "/".join(folders[len(folders) - folders[::-1].index(label) :])
