"""What every command shares: a parser whose errors are one line, and exit codes that mean something."""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from hfprobe.system.errors import InputError, shorten, suggest
from hfprobe.system.ranges import Range

logger = logging.getLogger(__name__)


class OneLineErrors(argparse.ArgumentParser):
    """For argparse parsers: no usage text before an error, near misses for an unknown flag."""

    def error(self, message: str) -> NoReturn:
        raise InputError(shorten(message, 400))

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:
        args = sys.argv[1:] if args is None else list(args)
        check_usable(args)
        return super().parse_known_args(args, namespace)

    def check_remaining(self, remaining: Sequence[str]) -> None:
        """Raise InputError for the first of the arguments that no flag took."""
        if not remaining:
            return
        found = remaining[0].split("=")[0]
        flags = [flag for action in self._actions for flag in action.option_strings]
        remedy = suggest(found, flags, otherwise="")
        raise InputError(f"Unknown argument '{shorten(found)}'. {remedy} All flags: {self.prog} --help")


def check_usable(argv: Sequence[str]) -> None:
    """Raise InputError for an empty value, and for bytes that are no text: they could not be recorded."""
    flag = "The first argument"
    for text in argv:
        if text.startswith("--"):
            flag = text.split("=")[0]
        if not text or text == f"{flag}=":
            raise InputError(f"{shorten(flag)} has an empty value. Pass a value, or leave the flag out.")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise InputError(f"{shorten(ascii(text))} has a byte that is not UTF-8. Rename the file, or correct it.")


def warn_about_repeated(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Log each flag that was passed more than once, under one name or several."""
    destinations = {flag: action.dest for action in parser._actions for flag in action.option_strings}
    passed: dict[str, list[str]] = {}
    for flag in (text.split("=")[0] for text in argv):
        if flag in destinations:
            passed.setdefault(destinations[flag], []).append(flag)
    for flags in passed.values():
        if len(flags) > 1:
            names = " and ".join(dict.fromkeys(flags))
            logger.warning("%s: passed %d times. The last value is used.", names, len(flags))


class Parser(OneLineErrors):
    """argparse with one-line errors; abbreviated flags are not taken."""

    def __init__(self, **kwargs: Any):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

    def parse_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        args = sys.argv[1:] if args is None else list(args)
        parsed, remaining = self.parse_known_args(args, namespace)
        self.check_remaining(remaining)
        warn_about_repeated(self, args)
        return parsed


def number_in(allowed: Range, *, kind: Callable[[str], float] = int) -> Callable[[str], float]:
    """An argparse type: a number of a range, whole numbers unless `kind` is float."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if value not in allowed:
            whole = "a whole number, " if kind is int else ""
            raise argparse.ArgumentTypeError(f"'{shorten(text)}' is invalid; allowed: {whole}{allowed}")
        return value

    return read
