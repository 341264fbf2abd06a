"""A setting of a run is one row: what is allowed, when it has no effect, what `--resume` compares, what is shown.

The row of a setting of hfprobe is in the metadata of its dataclass field, under `row`. The rows of transformers' own
settings are in `hfprobe.settings.training_arguments`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, Literal

from hfprobe.system.errors import InputError, shorten
from hfprobe.system.ranges import Range

# Settings that have no effect together: on the images of training, and where a model is not trained by gradient steps.
AUGMENTATION = "augmentation"
GRADIENT_TRAINING = "gradient training"
UNCHANGED = object()


@dataclass(frozen=True)
class Case:
    """A reason, and the settings for which it holds.

    Attributes:
        reason: in which `{name}` stands for the value of the setting `name`.
        when: function of an object with all settings of its dataclass; None: it holds where this setting is set.
    """

    reason: str
    when: Callable[[Any], object] | None = None


@dataclass(frozen=True)
class Setting:
    """What is known about one setting besides its type, its default and its help.

    Attributes:
        range: the allowed numbers. None is allowed too if it is the default of the field.
        short: another name of the setting.
        default: hfprobe's, in place of that of transformers; UNCHANGED: the same.
        refused: the value that is not supported; an error says `--name`, the reason, and "Leave it out."
        ignored: values without effect; a warning names the first reason that holds.
        group: AUGMENTATION or GRADIENT_TRAINING: a model can declare all of them to be without effect.
        may_differ: why a resumed run may have another value; "": the value must be equal.
        repeat: whether a file that repeats the run holds the value: where it is not the default, where it was passed
            (transformers derives it otherwise), or never.
        on_card: whether the model card shows it.
        identity: whether it says, beside the dataset and its classes, which images these are.
    """

    range: Range | None = None
    short: str = ""
    default: Any = UNCHANGED
    refused: Case | None = None
    ignored: tuple[Case, ...] = ()
    group: str = ""
    may_differ: str = ""
    repeat: Literal["changed", "passed", "never"] = "changed"
    on_card: bool = False
    identity: bool = False


def rows_of(group: type) -> dict[str, Setting]:
    """Field of a dataclass -> its row: that of its metadata, of the table `ROWS` of the class, or an empty one."""
    table: dict[str, Setting] = getattr(group, "ROWS", {})
    return {field.name: field.metadata.get("row") or table.get(field.name, Setting()) for field in fields(group)}


def short_names(*groups: type) -> dict[str, str]:
    """Another name of a setting -> the setting, of the fields of some dataclasses."""
    return {row.short: name for group in groups for name, row in rows_of(group).items() if row.short}


def spell_flag(name: str, row: Setting) -> str:
    """A setting as its flag, and the short one where it has one: `--learning_rate/--lr`."""
    return f"--{name}/--{row.short}" if row.short else f"--{name}"


def check_ranges(settings: Any) -> None:
    """Check the fields of a dataclass by the ranges of their rows.

    Raises:
        InputError: a field is out of range; the first one is named.
    """
    for name, row in rows_of(type(settings)).items():
        value = getattr(settings, name)
        if row.range is not None and value is not None and value not in row.range:
            raise InputError(f"{spell_flag(name, row)} is {shorten(value)}; allowed: {row.range}.")


def find_refused(settings: Any) -> list[str]:
    """One line for each setting with a value that is not supported."""
    return [
        f"--{name} {_explain(row.refused, settings)}. Leave it out."
        for name, row in rows_of(type(settings)).items()
        if row.refused and _holds(row.refused, name, settings)
    ]


def find_ignored(settings: Any) -> dict[str, str]:
    """Setting without effect beside the other values of its dataclass -> the reason."""
    found = {}
    for name, row in rows_of(type(settings)).items():
        case = next((case for case in row.ignored if _holds(case, name, settings)), None)
        if case is not None:
            found[name] = _explain(case, settings)
    return found


def _holds(case: Case, name: str, settings: Any) -> bool:
    return bool(getattr(settings, name) if case.when is None else case.when(settings))


def _explain(case: Case, settings: Any) -> str:
    values = {name: value.value if isinstance(value, Enum) else value for name, value in vars(settings).items()}
    return case.reason.format_map(values)
