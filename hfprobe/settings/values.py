"""Settings from Python or from a file, checked by the annotations of the dataclasses that they are fields of."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from enum import Enum
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hfprobe.data.arguments import DataArguments
from hfprobe.models import families, find_family
from hfprobe.models.base import ModelFamily
from hfprobe.settings.arguments import RunArguments
from hfprobe.system.errors import InputError, shorten, suggest
from hfprobe.system.process import command
from hfprobe.system.setting import short_names

UNFIT = object()


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Raise InputError for whatever the checks of a dataclass raise."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # TrainingArguments and what it calls raise many kinds for a wrong value
        text = " ".join(str(error).split()) or type(error).__name__
        raise InputError(shorten(text) if "--" in text else f"The settings cannot be used: {shorten(text)}") from error


def groups_of(family: ModelFamily) -> tuple[type, type, type]:
    """The dataclasses whose fields are the settings of a run: data, training, the model's own."""
    return DataArguments, RunArguments, family.Options


def check_values(values: Mapping[str, Any], *, model: str) -> dict[str, Any]:
    """Settings under their long names, each of the type that its field has.

    Args:
        values: by long or short names, `learning_rate` or `lr`.

    Raises:
        InputError: unknown model, unknown name, wrong type, not among the choices; two names of one setting with
            different values.
    """
    family = find_family(check_value("model", model, RunArguments))
    owners = {name: group for group in groups_of(family) for name in _types(group)}
    short = short_names(*groups_of(family))
    checked: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    for given, value in values.items():
        name = short.get(given, given)
        if name not in owners:
            check_other_models(given, of=family, sign="")
            listed = f"All settings: {command('train')} --model {family.name} --help"
            remedy = suggest(given, [*owners, *short], otherwise=listed)
            raise InputError(f"Unknown setting '{shorten(given)}'. {remedy}")
        value = check_value(given, value, owners[name])
        if name in checked and checked[name] != value:
            raise InputError(
                f"{spelled[name]} is {_show(checked[name])} and {given} is {_show(value)}: both name one setting. Pass "
                "one of them."
            )
        checked[name], spelled[name] = value, given
    return checked


def check_other_models(name: str, *, of: ModelFamily, sign: str = "--") -> None:
    """Raise InputError for a setting that another model has.

    Args:
        of: the model that does not have it.
        sign: before the names of settings.
    """
    others = [family.name for family in families() if name in family.Options.__dataclass_fields__]
    if others and of.name not in others:
        raise InputError(
            f"{sign}{name} is a setting of the model {' and '.join(others)}, not of {of.name}. Leave it out, or pass "
            f"another {sign}model."
        )


def check_value(given: str, value: Any, group: type) -> Any:
    """One value as its field has it: a float for a whole number, a text for a path or a member of an enum.

    Args:
        given: long or short name of the setting.
        group: the dataclass that it is a field of.

    Raises:
        InputError: see `check_values`.
    """
    wanted, choices = _types(group)[short_names(group).get(given, given)]
    for text in value if isinstance(value, list | tuple) else [value]:
        if text == "" and isinstance(text, str):
            raise InputError(f"{given} has an empty value. Set it to a value, or leave it out.")
        if isinstance(text, str) and not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            remedy = "Rename the file, or correct it."
            raise InputError(f"{given} is {_show(text)}, which has a byte that is not UTF-8. {remedy}")
    fitted = _fit(value, wanted)
    if fitted is UNFIT or (choices and fitted is not None and fitted not in choices):
        allowed = ", ".join(map(str, choices)) if choices else _describe(wanted)
        raise InputError(shorten(f"{given} is {_show(value)}; allowed: {allowed}.", 400))
    return fitted


@cache
def _types(group: type) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Field -> its type, and the choices that its metadata lists."""
    hints, found = get_type_hints(group), {}
    for field in fields(group):
        if field.init:
            wanted = hints[field.name]
            if "const" in field.metadata:  # the value of a flag without one: --fsdp is True
                wanted = Union[wanted, Literal[field.metadata["const"]]]  # noqa: UP007
            found[field.name] = wanted, tuple(field.metadata.get("choices", ()))
    return found


def _alternatives(wanted: Any) -> list[Any]:
    """The types that a type is the union of; in place of an enum or a Literal, a tuple of its values."""
    found = list(get_args(wanted)) if get_origin(wanted) in (Union, UnionType) else [wanted]
    enums = [one for one in found if isinstance(one, type) and issubclass(one, Enum)]
    if enums:  # transformers writes `SchedulerType | str`, and takes a text only where it names a member
        found = [one for one in found if one is not str]
    return [
        tuple(member.value for member in one) if one in enums else get_args(one) if get_origin(one) is Literal else one
        for one in found
    ]


def _fit(value: Any, wanted: Any) -> Any:
    """`value` as the type has it; UNFIT where it is of another type."""
    value = value.value if isinstance(value, Enum) else os.fspath(value) if isinstance(value, os.PathLike) else value
    for one in _alternatives(wanted):
        fitted, origin = UNFIT, get_origin(one) or one
        if isinstance(one, tuple):
            same = (choice for choice in one if isinstance(value, type(choice)) and choice == value)
            fitted = next(same, UNFIT)
        elif origin is list:
            if isinstance(value, list | tuple):
                fitted = [_fit(item, get_args(one)[0]) for item in value]
                fitted = UNFIT if UNFIT in fitted else fitted
        elif one in (int, float):
            if isinstance(value, Integral if one is int else Real) and not isinstance(value, bool):
                with suppress(OverflowError):  # a whole number of hundreds of digits is no float
                    fitted = one(value)
        elif isinstance(value, origin):
            fitted = value
        if fitted is not UNFIT:
            return fitted
    return UNFIT


def _describe(wanted: Any) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a string", NoneType: "none"}
    words |= {dict: "a dict"}
    found = []
    for one in _alternatives(wanted):
        origin = get_origin(one) or one
        if isinstance(one, tuple):
            found.append(", ".join(map(str, one)))
        elif origin is list:
            found.append("a list of strings, with numbers among them in quotes")
        else:
            found.append(words.get(origin, getattr(origin, "__name__", str(origin))))
    return ", or ".join(sorted(found, key="none".__eq__))


def _show(value: Any) -> str:
    return shorten(repr(value), 100)
