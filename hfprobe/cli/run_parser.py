"""Dataclasses as command-line flags, with the same checks for values from Python."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, get_args, get_type_hints

from transformers import HfArgumentParser

from hfprobe.cli.parser import OneLineErrors
from hfprobe.system.errors import InputError, shorten


class RunParser(OneLineErrors, HfArgumentParser):
    """One flag a field of the dataclasses.

    Args:
        groups: dataclasses, whose objects are the result.
        defaults: values for their fields, which win over the dataclasses' own; a flag wins over both.
        short_names: short flag -> the field that it stands for.
        prog: the program that the user typed, for hints.
    """

    def __init__(self, groups: Sequence[type], *, defaults: dict[str, Any], short_names: dict[str, str], prog: str):
        super().__init__(groups, prog=prog, allow_abbrev=False)
        for short, long in short_names.items():
            for action in [action for action in self._actions if action.dest == long]:
                same = {name: getattr(action, name) for name in ("dest", "type", "nargs", "const")}
                self.add_argument(short, **same, default=argparse.SUPPRESS, help=f"Short for --{long}.")
        known = {action.dest for action in self._actions}
        self.set_defaults(**{name: value for name, value in defaults.items() if name in known})
        for action in self._actions:
            action.required &= action.dest not in defaults

    def parse(self, argv: Sequence[str]) -> tuple[list[Any], frozenset[str]]:
        """One object a group, and the names of the fields that `argv` sets.

        Raises:
            InputError: a flag or a value that cannot be used.
        """
        unset = object()
        given = argparse.Namespace(**{action.dest: unset for action in self._actions})
        # Unknown flags are refused first: TrainingArguments takes seconds to make.
        self.refuse_unknown(self.parse_known_args(argv, given)[1])
        try:
            groups = self.parse_args_into_dataclasses(argv, look_for_args_file=False)
        except InputError:
            raise
        except Exception as error:  # TrainingArguments and what it calls raise many kinds for a wrong value
            text = " ".join(str(error).split()) or type(error).__name__
            raise InputError(shorten(text) if "--" in text else f"The flags cannot be used: {shorten(text)}") from error
        return list(groups), frozenset(name for name, value in vars(given).items() if value is not unset)

    def spell(self, values: dict[str, Any]) -> list[str]:
        """Python values as a command line, so that both pass the same checks.

        What a command line cannot say becomes a default: None where the field allows it, tables and lists of
        settings that transformers checks itself.
        """
        optional = {
            name
            for group in self.dataclass_types
            for name, type_ in get_type_hints(group).items()
            if type(None) in get_args(type_)
        }
        takes_list = {action.dest for action in self._actions if action.nargs == "+"}
        known = {action.dest for action in self._actions}
        argv = []
        for name, value in values.items():
            if name in optional and (value is None or (isinstance(value, dict | list) and name not in takes_list)):
                self.set_defaults(**{name: value})
            elif name in known and value is None:
                raise InputError(f"argument --{name}: invalid value: None")
            elif isinstance(value, list | tuple):
                argv += [f"--{name}", *map(str, value)]
            else:
                argv.append(f"--{name}={getattr(value, 'value', value)}")
        return argv
