"""Tar files of samples, as webdataset writes them: the images are read where they are, from the memory-mapped files.

The names of members follow the rules of webdataset and of the builder "webdataset" of the datasets library. That
builder copies all images into its cache, reads class numbers only, and drops fields that its first five samples lack.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.class_folders import LeftOut, add_left_out
from hfprobe.data.sources.columns import choose_rows, with_labels
from hfprobe.data.sources.file_kinds import walk_files, why_left_out
from hfprobe.data.sources.file_names import escape
from hfprobe.data.sources.labels import MISSING_TEXTS, NO_LABEL, WHOLE_NUMBER, normalize_name, read_labels
from hfprobe.data.sources.split_names import divide_files, usual_meaning
from hfprobe.data.sources.table_folders import Found
from hfprobe.data.sources.tar_images import image_rows
from hfprobe.data.sources.tar_index import Sample, Shard, read_shard
from hfprobe.system.errors import InputError, shorten

# One class per line, in the order of their numbers; the second name is that of the shards of CLIP benchmark.
CLASS_FILES = ("classes.txt", "classnames.txt")
COMPRESSED = (".tar.gz", ".tgz")


def find_shards(folder: Path) -> list[Path]:
    """The tar files in a folder, at any depth, if it holds neither images nor parquet files.

    Raises:
        InputError: one of them is compressed.
    """
    shards = []
    for file in walk_files(folder):
        if why_left_out(file.name) is None or file.suffix.lower() == ".parquet":
            return []
        if file.name.lower().endswith((".tar", *COMPRESSED)) and not file.name.startswith("."):
            shards.append(file)
    if compressed := [file for file in shards if file.suffix.lower() != ".tar"]:
        raise InputError(
            f"'{shorten(compressed[0])}' is compressed, and images of shards are read by their places. Decompress it "
            "(gunzip), or pass it alone as --dataset if it holds class folders."
        )
    return shards


def load_shards(folder: Path, files: Sequence[Path], data: DataArguments, *, whole: bool) -> Found:
    """The images of the tar files in a folder; those of one split are joined, in the order of their names.

    Raises:
        InputError: a shard cannot be used, see `hfprobe.data.sources.tar_index.read_shard`; a training image has no
            label; labels are of two kinds, or are not in the file of class names.
    """
    by_split = divide_files(files, folder, data)
    if set(by_split) == {None}:  # imagenet-train-000000.tar
        found = {file: _split_inside(file.stem) for file in files}
        if None not in found.values():
            by_split = {split: [file for file in files if found[file] == split] for split in found.values()}
    left_out: LeftOut = {}
    if None in by_split and len(by_split) > 1 and not whole:
        left_out["its name says no split"] = [escape(str(file.relative_to(folder))) for file in by_split.pop(None)]
    shards = {split or "": [read_shard(file, data) for file in chosen] for split, chosen in by_split.items()}
    used = {*files, *(folder / name for name in CLASS_FILES)}
    for file in sorted(folder.iterdir()):
        if file.is_file() and file not in used and (reason := why_left_out(file.name)):
            left_out.setdefault(reason, []).append(escape(file.name))
    return _make_found(shards, data, folder=folder, left_out=left_out, whole=whole)


def load_shard(shard: Shard, data: DataArguments, *, whole: bool) -> Found:
    """The images of a single tar file with labels; see `load_shards`."""
    return _make_found({"": [shard]}, data, folder=shard.file.parent, left_out={}, whole=whole)


def _split_inside(stem: str) -> str | None:
    """The only word of a name that is a name of a split, as `train` in `imagenet-train-000000`."""
    found = [word for word in re.split(r"[\W\d_]+", stem) if word and usual_meaning(word)]
    return found[0] if len(found) == 1 else None


def _make_found(
    shards: Mapping[str, Sequence[Shard]], data: DataArguments, *, folder: Path, left_out: LeftOut, whole: bool
) -> Found:
    """The dataset in the shards of each split; `left_out` is added to."""
    _refuse_flags(data)
    if set(shards) == {""}:
        shards = {"train": shards[""]}
    every = [one for chosen in shards.values() for one in chosen]
    named = {split: chosen for split, chosen in shards.items() if any(one.is_labelled for one in chosen)}
    for shard in every:
        if shard.problem and (named or not shard.samples):
            raise InputError(shard.problem)
        add_left_out(left_out, shard.left_out)
    classes = _read_classes(folder)
    rows = {split: image_rows(chosen) for split, chosen in shards.items()}
    unlabelled = {split: part for split, part in rows.items() if split not in named}
    rows |= {split: with_labels(rows[split], *found) for split, found in _find_labels(named, classes, data).items()}
    chosen_rows, unused = choose_rows(rows, data=data, whole=whole, without_labels=list(unlabelled))
    add_left_out(left_out, unused)
    for split, part in chosen_rows.items():
        if "label" not in part.column_names:
            raise InputError(
                f"The tar files of split '{split}' of '{shorten(data.dataset)}' hold {len(part):,} images and no "
                "labels. Write the label of each image beside it, into a file of the same name that ends in .cls, "
                ".json or .txt; if they hold class folders, unpack them."
            )
    return Found(chosen_rows, left_out, _describe(every, folder, classes), unlabelled)


def _find_labels(
    named: Mapping[str, Sequence[Shard]], classes: _Classes | None, data: DataArguments
) -> dict[str, tuple[list[str], np.ndarray]]:
    """Of each split with labels, the names of its classes and the number of each image, as `with_labels` takes them."""
    every = [one for chosen in named.values() for one in chosen]
    _check_fields(every)
    numbered = _is_numbered(every, classes)
    found = {}
    for split, chosen in named.items():
        texts = [sample.label or "" for shard in chosen for sample in shard.samples]
        if classes is None:
            found[split] = read_labels(pa.array(texts, type=pa.string()), None, dataset=data.dataset, column="label")
        else:
            found[split] = classes.names, np.array([classes.find(text, numbered=numbered) for text in texts])
    return found


def _refuse_flags(data: DataArguments) -> None:
    for flag in ("split_column", "group_column"):
        if getattr(data, flag) is not None:
            instead = " Or group images by their paths, with --group_by or --group_regex." * (flag[0] == "g")
            raise InputError(
                f"--{flag} applies to tables, and '{shorten(data.dataset)}' holds tar files. Leave it out.{instead}"
            )


def _check_fields(shards: Sequence[Shard]) -> None:
    """Raise InputError unless all samples have a label, in the same field."""
    first: tuple[Shard, Sample] | None = None
    for shard in shards:
        for sample in shard.samples:
            if sample.label is None:
                raise InputError(
                    f"'{shorten(shard.file)}' has the image '{shorten(sample.image.name)}' without a label, and other "
                    "images have one. Write its label beside it, or remove it."
                )
            first = first or (shard, sample)
            if sample.field != first[1].field:
                raise InputError(
                    f"Labels are of two kinds: '{shorten(first[1].image.name)}' in '{shorten(first[0].file)}' has "
                    f".{first[1].field}, and '{shorten(sample.image.name)}' in '{shorten(shard.file)}' has "
                    f".{sample.field}; allowed: one of them in all samples. Write the shards again."
                )


@dataclass(frozen=True)
class _Classes:
    """The names of the classes, in the order of their numbers, and the file that they are from."""

    file: Path
    names: list[str]

    def find(self, label: str, *, numbered: bool) -> int:
        """The number of a class; NO_LABEL for a missing label."""
        if label in MISSING_TEXTS:
            return NO_LABEL
        return int(float(label)) if numbered else self.names.index(normalize_name(label))


def _read_classes(folder: Path) -> _Classes | None:
    file = next((folder / name for name in CLASS_FILES if (folder / name).is_file()), None)
    if file is None:
        return None
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"'{shorten(file)}' is not UTF-8 text; allowed: one class per line. Save it again.") from error
    names = [normalize_name(line.strip()) for line in lines]
    names = names[: len(names) - next((at for at, name in enumerate(reversed(names)) if name), len(names))]
    for at, name in enumerate(names):
        if not name or name in names[:at]:
            wrong = f"repeats '{shorten(name)}' of line {names.index(name) + 1:,}" if name else "is empty"
            raise InputError(
                f"Line {at + 1:,} of '{shorten(file)}' {wrong}; allowed: one class per line, each once. Correct it."
            )
    return _Classes(file, names)


def _is_numbered(shards: Sequence[Shard], classes: _Classes | None) -> bool:
    """Whether all labels are numbers.

    Raises:
        InputError: a label is none of the classes; without a file of classes, one shard has only numbers and another
            only names.
    """
    numbered: list[Shard] = []
    others: list[Shard] = []
    for shard in shards:
        labels = {sample.label or "" for sample in shard.samples} - {*MISSING_TEXTS}
        if labels:
            (numbered if all(re.search(WHOLE_NUMBER, label) for label in labels) else others).append(shard)
    if classes is not None:
        _check_labels(shards, classes, numbered=not others)
    elif numbered and others:
        names = [one for one in others if not any(re.search(WHOLE_NUMBER, item.label or "") for item in one.samples)]
        if names:
            raise InputError(
                f"Labels are of two kinds: those of '{shorten(numbered[0].file)}' are numbers, those of "
                f"'{shorten(names[0].file)}' are names; allowed: one kind in all shards. Write the shards again."
            )
    return not others


def _check_labels(shards: Iterable[Shard], classes: _Classes, *, numbered: bool) -> None:
    """Raise InputError if a label is none of the classes."""
    for shard in shards:
        for sample in shard.samples:
            label = sample.label or ""
            if label in MISSING_TEXTS:
                continue
            if numbered and not NO_LABEL <= float(label) < len(classes.names):
                allowed = f"0 to {len(classes.names) - 1}, the lines of '{shorten(classes.file)}' from 0"
            elif not numbered and normalize_name(label) not in classes.names:
                allowed = f"the lines of '{shorten(classes.file)}', {shorten(', '.join(classes.names))}"
            else:
                continue
            raise InputError(
                f"'{shorten(sample.image.name)}' in '{shorten(shard.file)}' has the label '{shorten(label)}'; allowed: "
                f"{allowed}. Correct the label or the file."
            )


def _describe(shards: Sequence[Shard], folder: Path, classes: _Classes | None) -> tuple[str, ...]:
    """Where the labels come from."""
    fields = sorted({f".{sample.field}" for shard in shards for sample in shard.samples if sample.field})
    more = f" and {len(shards) - 1:,} more files" if len(shards) > 1 else ""
    labels = f"{', '.join(fields)} in {escape(str(shards[0].file.relative_to(folder)))}{more}"
    return (labels,) if classes is None else (labels, f"classes in {classes.file.name}")
