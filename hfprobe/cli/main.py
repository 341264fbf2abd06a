"""The console command: `hfprobe <command> ...`, or `python -m hfprobe <command> ...`."""

from __future__ import annotations

import difflib
import sys
from importlib import import_module
from typing import NoReturn

import hfprobe.cli.interruptible
from hfprobe.cli.command import run_command
from hfprobe.cli.parser import refuse_unusable
from hfprobe.system.errors import InputError, shorten
from hfprobe.system.process import command

# Command -> its module, which has a `main`, and the first line of its docstring.
COMMANDS = {
    "train": ("hfprobe.tasks.train.cli", "Train a model and push its best epoch to the local hub folder."),
    "eval": ("hfprobe.tasks.evaluate.cli", "Evaluate a model and write a report."),
    "predict": ("hfprobe.tasks.predict.cli", "Classify new pictures with a trained model."),
    "compare": (
        "hfprobe.tasks.compare.cli",
        "Compare two or more models on the same images and write one page with the results.",
    ),
    "profile": (
        "hfprobe.tasks.profile.cli",
        "Measure throughput, latency, memory, multiply-accumulates and operators of models.",
    ),
    "label-efficiency": (
        "hfprobe.tasks.label_efficiency.cli",
        "Measure accuracy against training images per class, for a CNN from scratch and for a linear probe.",
    ),
    "sanity-check": (
        "hfprobe.tasks.sanity_check.cli",
        "Overfit one batch of 32 images: a model that cannot do this has a bug, and the exit code is 1.",
    ),
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
        module, _ = COMMANDS[find(first)]
        del sys.argv[1]  # each command reads the rest
        import_module(module).main()


def find(name: str) -> str:
    """The command of this name, which may be spelled with underscores.

    Raises:
        InputError: there is none.
    """
    refuse_unusable([name])
    found = name.replace("_", "-")
    if found not in COMMANDS:
        near = difflib.get_close_matches(found, COMMANDS, n=1)
        remedy = f"Did you mean {near[0]}? " if near else ""
        raise InputError(
            f"Unknown command '{shorten(name)}'. {remedy}All commands: {', '.join(COMMANDS)}. "
            f"The flags of one: {command('<command>')} --help"
        )
    return found


def describe() -> str:
    """The text of `hfprobe --help`."""
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:{width}}  {sentence}" for name, (_, sentence) in COMMANDS.items())
    return (
        f"usage: {command('<command>')} ...\n\n"
        f"commands:\n{lines}\n\n"
        f"The flags of one command: {command('<command>')} --help\n"
        f"The version: {command('--version')}"
    )
