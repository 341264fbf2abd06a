"""The samples of an uncompressed tar file, as webdataset writes them: members whose names differ in their endings only.

One pass reads the headers and the labels; of the images, only their places are taken.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple

from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.columns import find_column
from hfprobe.data.sources.file_kinds import why_left_out
from hfprobe.data.sources.file_names import escape
from hfprobe.system.errors import InputError, first_line, shorten

# Key and field of a member, as webdataset and the builder "webdataset" of datasets divide its name: at the first dot
# after the last slash. A hidden file, such as ._1.jpg, has no key.
_MEMBER = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
LABEL_FIELDS = ("cls", "json", "txt")  # the first that a sample has is its label
_BLOCK = 512


class Place(NamedTuple):
    """Where the content of a member is: its name, and its first byte and its size in the tar file."""

    name: str
    start: int
    size: int


class Sample(NamedTuple):
    """An image of a shard.

    Attributes:
        image: where its file is.
        label: its label as text, "" for a missing one; None: the sample has none.
        field: what the label was read from, such as `cls`; "" without a label.
    """

    image: Place
    label: str | None
    field: str


@dataclass
class Shard:
    """The samples of a tar file, in the order of their images.

    Attributes:
        left_out: reason -> names of images that cannot be read here.
        is_labelled: whether a sample has an image and a label. Otherwise the file may hold something else.
        problem: a sentence on the first sample that has not one image; "" if there is none.
    """

    file: Path
    samples: list[Sample] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    is_labelled: bool = False
    problem: str = ""


def read_shard(file: Path, data: DataArguments) -> Shard:
    """The samples of a tar file.

    Members without an image and a label are ignored, as are all other fields of a sample.

    Args:
        data: `image_column` may name the field of the images, such as `jpg`, and `label_column` that of the labels, or
            a key of the JSON files.

    Raises:
        InputError: the file is no uncompressed tar file, is truncated or is empty; a label cannot be read.
    """
    shard = Shard(file)
    empty = True
    with file.open("rb") as stream:
        for sample in _group(_members(stream, file)):
            empty = False
            places = {_field(place): place for place in sample}
            name, label = _read_label(places, stream, file, data)
            images, reason = _find_images(places, data)
            shard.is_labelled |= bool(images) and label is not None
            twice = [place.name for place in sample if place not in places.values()]
            if len(images) == 1 and not twice:
                shard.samples.append(Sample(images[0], label, name))
            elif reason:
                shard.left_out.setdefault(reason, []).append(f"{file.name}/{sample[0].name}")
            elif images or name:
                shard.problem = shard.problem or _describe(file, images, twice, places.get(name))
    if empty:
        raise InputError(f"'{shorten(file)}' holds no files such as 1.jpg and 1.cls. Remove it, or write it again.")
    return shard


def _group(members: Iterable[Place]) -> Iterator[list[Place]]:
    """The samples: runs of members with the same key."""
    named = ((match[1], member) for member in members if (match := _MEMBER.fullmatch(member.name)))
    for _, run in groupby(named, key=itemgetter(0)):
        yield [member for _, member in run]


def _field(place: Place) -> str:
    match = _MEMBER.fullmatch(place.name)
    assert match is not None  # otherwise it is in no sample
    return match[2]


def _members(stream: BinaryIO, file: Path) -> Iterator[Place]:
    """The files in a tar file, in their order.

    Raises:
        InputError: see `read_shard`.
    """
    last = ""
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # a documented way not to hold every header
                last = escape(member.name)
                if member.isfile():
                    yield Place(last.removeprefix("./").lstrip("/"), member.offset_data, member.size)
            stream.seek(archive.offset)  # tarfile takes any block that is no header for the end
        end = stream.read(_BLOCK)
        reason = "unexpected end of data" if len(end) < _BLOCK else "bad header" if end.strip(b"\0") else None
    except tarfile.TarError as error:
        reason = first_line(error)
    if reason is not None:
        where = f" at or after its member '{shorten(last)}'" if last else ""
        raise InputError(
            f"'{shorten(file)}' is truncated, damaged or no uncompressed tar file{where}: {shorten(reason)}. Copy or "
            "write it again."
        )


def _find_images(places: Mapping[str, Place], data: DataArguments) -> tuple[list[Place], str]:
    """The images of a sample; and why an image was left out, "" if there is none or another can be read."""
    if data.image_column is not None:
        return [places[data.image_column]] if data.image_column in places else [], ""
    reasons = {name: _why_left_out(name) for name in places}
    images = [places[name] for name, reason in reasons.items() if reason is None]
    others = [reason for reason in reasons.values() if reason not in (None, "", "not an image")]
    return images, others[0] if others and not images else ""


@lru_cache
def _why_left_out(name: str) -> str | None:
    return why_left_out(f"_.{name}")


def _describe(file: Path, images: Sequence[Place], twice: Sequence[str], label: Place | None) -> str:
    """What is wrong with a sample, as an error."""
    if twice:
        return f"'{shorten(file)}' holds '{shorten(twice[0])}' twice in one sample. Write the shard again."
    if images:
        fields = [_field(image) for image in images[:2]]
        return (
            f"'{shorten(file)}' has two images in one sample, {' and '.join(shorten(one.name) for one in images[:2])}; "
            f"allowed: one. Pass --image_column {fields[0]} or --image_column {fields[1]}."
        )
    return (
        f"'{shorten(file)}' has a sample with the label '{shorten(label.name if label else '')}' and without an image. "
        "The files of a sample must lie one after another and have one name with different endings; write the shard "
        "again."
    )


def _read_label(
    places: Mapping[str, Place], stream: BinaryIO, file: Path, data: DataArguments
) -> tuple[str, str | None]:
    """The field of the label of a sample, and the label as text; "" and None without one."""
    if data.label_column is not None and data.label_column in places:
        return data.label_column, _read_text(places[data.label_column], stream, file)
    for name in LABEL_FIELDS if data.label_column is None else ("json",):
        if name in places:
            label: str | None = _read_text(places[name], stream, file)
            if label is not None and name == "json":
                label = _find_in_json(label, f"'{shorten(places[name].name)}' in '{shorten(file)}'", data)
            if label is not None:
                return name, label
    return "", None


def _read_text(place: Place, stream: BinaryIO, file: Path) -> str:
    stream.seek(place.start)
    try:
        return stream.read(place.size).decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise InputError(
            f"'{shorten(place.name)}' in '{shorten(file)}' is not UTF-8 text; allowed: a class number or name. Write "
            "the shard again."
        ) from error


def _find_in_json(text: str, where: str, data: DataArguments) -> str | None:
    """The label in a JSON file, as text; None: it has no key that is one of a label."""
    try:
        record = json.loads(text)
    except ValueError as error:
        raise InputError(f"{where} is not JSON: {first_line(error)}. Write the shard again.") from error
    key = find_column(record, "label", data) if isinstance(record, dict) else None
    if key is None:
        return None
    value = record[key]
    if isinstance(value, (list, dict)):
        raise InputError(
            f"{where} has the label {shorten(value)} in '{shorten(key)}'; allowed: a class number or name. Pass "
            "another key as --label_column."
        )
    return "" if value is None else str(value).strip()
