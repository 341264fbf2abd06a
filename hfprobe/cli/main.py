"""The console command: `hfprobe <command> ...`, or `python -m hfprobe <command> ...`."""

from __future__ import annotations

import sys
from importlib import import_module
from pkgutil import iter_modules
from typing import NoReturn

import hfprobe.cli.interruptible
from hfprobe.cli.command import run_command
from hfprobe.cli.parser import check_usable
from hfprobe.system.errors import InputError, shorten, suggest
from hfprobe.system.process import command


def find_commands() -> dict[str, str]:
    """Command -> its package: each folder of `hfprobe/tasks`. Its docstring is the sentence of `--help`."""
    tasks = import_module("hfprobe.tasks")
    packages = [f"{tasks.__name__}.{module.name}" for module in iter_modules(tasks.__path__) if module.ispkg]
    return {
        getattr(import_module(name), "COMMAND", name.rpartition(".")[2].replace("_", "-")): name for name in packages
    }


def main() -> NoReturn:
    """Run the command that the first argument names, and exit with its code."""
    if len(sys.argv) == 1:
        print(describe(), file=sys.stderr)
        sys.exit(2)
    run_command(run)


def run() -> None:
    first = sys.argv[1]
    if first in ("-h", "--help"):
        print(describe())
    elif first == "--version":
        print(f"hfprobe {hfprobe.__version__}")
    else:
        package = find_commands()[find(first)]
        del sys.argv[1]  # each command reads the rest
        import_module(f"{package}.cli").main()


def find(name: str) -> str:
    """The command of this name, which may be spelled with underscores.

    Raises:
        InputError: there is none.
    """
    check_usable([name])
    found = name.replace("_", "-")
    commands = find_commands()
    if found not in commands:
        remedy = suggest(found, commands, otherwise="")
        raise InputError(
            f"Unknown command '{shorten(name)}'. {remedy} All commands: {', '.join(commands)}. "
            f"The flags of one: {command('<command>')} --help"
        )
    return found


def describe() -> str:
    """The text of `hfprobe --help`."""
    sentences = {name: import_module(package).__doc__ for name, package in find_commands().items()}
    width = max(map(len, sentences))
    lines = "\n".join(f"  {name:{width}}  {sentence}" for name, sentence in sentences.items())
    return (
        f"usage: {command('<command>')} ...\n\n"
        f"commands:\n{lines}\n\n"
        f"The flags of one command: {command('<command>')} --help\n"
        f"The version: {command('--version')}"
    )
