"""Where the value of a setting comes from: a message about a value that nobody passed says so."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any

# A flag with its value: "--save_strategy epoch", "--learning_rate/--lr is 0.1".
FLAG_AND_VALUE = re.compile(r"--(\w+)(?:/--\w+)?(?: is)? ([\w.+-]+?)(?=[,;:)]|\.?(?:\s|$))")

# The beginning of a command up to one of its flags: "Train one: hfprobe train --model".
COMMAND = re.compile(r"(\bhfprobe [\w-]+|\.py)( \S*[^\s.,:;])* $")


def find_origin(name: str, *, passed: Collection[str], recipe: Mapping[str, Any]) -> str:
    """ " (the recipe)" or " (the default)"; "" for a setting that was passed."""
    if name in passed:
        return ""
    return " (the recipe)" if name in recipe else " (the default)"


def name_origins(text: str, *, values: Mapping[str, Any], passed: Collection[str], recipe: Mapping[str, Any]) -> str:
    """`text` with the origin behind each flag and value of a setting that was not passed.

    Args:
        text: a message. A flag in a command, or with a value that the run does not have, is a remedy and stays.
        values: of all settings of the run.
        passed: names of the settings that the user set.
        recipe: the settings that the recipe sets.
    """

    def add(match: re.Match[str]) -> str:
        name, found = match.groups()
        value = values.get(name)
        value = value.value if isinstance(value, Enum) else value
        spelled = {str(value).lower(), f"{value:g}" if isinstance(value, float) else ""}
        is_current = name in values and found.lower() in spelled and not COMMAND.search(text[: match.start()])
        return match[0] + (find_origin(name, passed=passed, recipe=recipe) if is_current else "")

    return FLAG_AND_VALUE.sub(add, text)
