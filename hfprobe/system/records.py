"""Results as dataclasses: saved as JSON, and read back strictly."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from hfprobe.system.errors import InputError, first_line, shorten
from hfprobe.system.files import write_json
from hfprobe.system.process import command

Record = TypeVar("Record")
Kept = TypeVar("Kept", bound="RecordFile")
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
WORDS |= dict.fromkeys((list, tuple), "a list")


def write_record(path: Path, record: Any) -> None:
    """Write a dataclass atomically as JSON, without its fields that are not compared (`field(compare=False)`)."""
    write_json(path, to_json(record))


def to_json(value: Any) -> Any:
    """A dataclass and all that it contains as dicts, lists and plain values."""
    if value is None or isinstance(value, str | int | float):  # first, because most values are
        return value
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value) if field.compare}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}  # JSON has no other keys
    return [to_json(item) for item in value] if isinstance(value, list | tuple) else value


def read_record(kind: type[Record], path: Path, *, what: str, remedy: str) -> Record:
    """Load a dataclass from a file that `write_record` wrote: each field with a value of its type, and nothing else.

    Args:
        kind: its fields are dataclasses, int, float, bool, str, Any, Literal, `... | None`, list, tuple, and dict whose
            keys are strings, whole numbers, or all values of a Literal.
        what: what messages call the record.
        remedy: last sentence of messages.

    Raises:
        InputError: the file cannot be read, or does not hold such a record.
    """
    try:  # NaN and infinity, which are not JSON, are strings and thereby no numbers
        return _fit(json.loads(path.read_text(encoding="utf-8"), parse_constant=str), kind, "")
    except OSError as error:
        found = f"'{shorten(path.parent)}' holds no {what} ({path.name}: {error.strerror})"
        raise InputError(f"{found}. {remedy}") from error
    except (ValueError, RecursionError, OverflowError) as error:
        raise InputError(f"The {what} '{shorten(path)}' is damaged: {first_line(error)}. {remedy}") from error


class RecordFile:
    """Base of dataclasses that a folder holds in a file of their own.

    Attributes:
        FILE: its name.
        WHAT: what messages call the record.
        MADE_BY: the command that writes it, without hfprobe and the folder.
        REMEDY: last sentence of messages where no command writes it.
    """

    FILE: ClassVar[str]
    WHAT: ClassVar[str]
    MADE_BY: ClassVar[str] = ""
    REMEDY: ClassVar[str] = ""

    def save(self, folder: str | Path) -> None:
        """Write the file atomically; fields that are not compared are left out."""
        write_record(Path(folder) / self.FILE, self)

    @classmethod
    def load(cls: type[Kept], folder: str | Path) -> Kept:
        """Load what `save` wrote.

        Raises:
            InputError: the folder holds no such file, or a damaged one.
        """
        task, _, rest = cls.MADE_BY.partition(" ")
        made = f"Make it: {command(task)} {rest} --report_dir {shlex.quote(shorten(folder))}" if task else cls.REMEDY
        return read_record(cls, Path(folder) / cls.FILE, what=cls.WHAT, remedy=made)

    @classmethod
    def find(cls: type[Kept], folder: str | Path) -> Kept | None:
        """Load what `save` wrote; None if there is nothing that can be read."""
        try:
            return cls.load(folder)
        except InputError:
            return None


class VerdictFile(RecordFile):
    """Base of those that say what was found in `sentences`; in a notebook and a terminal they show them."""

    sentences: Any

    @property
    def verdict(self) -> str:
        """The sentences, one per line."""
        return "\n".join(self.sentences)

    def __repr__(self) -> str:
        return self.verdict


def parse_record(kind: type[Record], value: Any) -> Record:
    """A dataclass, or another type that one can hold, from what `to_json` made of it.

    Raises:
        ValueError: it is not such a record.
    """
    return _fit(value, kind, "")


@cache
def _members(wanted: Any) -> dict[str, Any]:
    """Name -> type of what a dataclass, or a dict whose keys are those of a Literal, consists of; otherwise empty."""
    if is_dataclass(wanted):
        hints = get_type_hints(wanted)
        return {field.name: hints[field.name] for field in fields(wanted) if field.compare}
    keys, item = get_args(wanted) if get_origin(wanted) is dict else (None, None)
    return dict.fromkeys(get_args(keys), item)


def _fit(value: Any, wanted: Any, where: str, or_null: str = "") -> Any:
    """`value` as its type has it.

    Args:
        where: the path of the value in the file, for messages.
        or_null: added to what messages allow.

    Raises:
        ValueError: the value is of another type.
    """
    kind, inner = get_origin(wanted) or wanted, get_args(wanted)
    start, allowed = where and f"{where}.", WORDS.get(kind, "a JSON object")
    if kind is Any:
        return value
    if kind in (Union, UnionType):
        (one,) = set(inner) - {NoneType}
        return None if value is None else _fit(value, one, where, ", or null")
    if members := _members(wanted):
        if isinstance(value, dict):
            if missing := [name for name in members if name not in value]:
                raise ValueError(f"'{start}{missing[0]}' is missing")
            if unknown := [name for name in value if name not in members]:
                raise ValueError(f"{shorten(repr(start + unknown[0]))} is unknown; allowed: {', '.join(members)}")
            return kind(**{name: _fit(value[name], one, f"{start}{name}") for name, one in members.items()})
    elif kind is dict:
        if isinstance(value, dict) and (inner[0] is str or all(map(str.isdecimal, value))):
            return {inner[0](key): _fit(item, inner[1], f"{start}{key}") for key, item in value.items()}
    elif kind in (list, tuple):
        types = inner if kind is tuple else inner * len(value) if isinstance(value, list) else ()
        if isinstance(value, list) and inner in ((int,), (str,)) and set(map(type, value)) <= set(inner):
            return value  # a confusion matrix may have a million numbers
        if isinstance(value, list) and len(value) == len(types):
            return kind([_fit(*pair, f"{start}{at}") for at, pair in enumerate(zip(value, types, strict=True))])
        allowed += f" of {len(inner)}" * (kind is tuple)
    elif kind is Literal:
        if value in inner:
            return value
        allowed = ", ".join(inner)
    elif isinstance(value, int | float if kind is float else kind) and isinstance(value, bool) == (kind is bool):
        return kind(value)
    raise ValueError(f"{f'{where!r}' if where else 'it'} is {shorten(repr(value), 100)}; allowed: {allowed}{or_null}")
