"""The flags that say which images a dataset has, for the commands that read images and do not train on them."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any, get_type_hints

from hfprobe.cli.parser import Parser, number_in
from hfprobe.data.arguments import IDENTITY, DataArguments
from hfprobe.system.errors import InputError, shorten
from hfprobe.system.setting import rows_of

NAMES = ("dataset", "classes", *IDENTITY)
# Of these, what concerns training: how duplicates are kept from being in two parts.
OF_TRAINING = ("audit", "drop_leaks")


def add_data_flags(parser: Parser, *, default: str, positional: bool = False, trains: bool = False) -> None:
    """Add one flag for each of NAMES, with the help of its field.

    Args:
        default: what is used without the flag `--dataset`.
        positional: whether the dataset may be the first argument instead.
        trains: whether the command trains models; without it, the flags OF_TRAINING are left out.
    """
    if positional:
        parser.add_argument("photos", nargs="?", help="the same as --dataset")
    hints = get_type_hints(DataArguments)
    for field in fields(DataArguments):
        if field.name in NAMES and (trains or field.name not in OF_TRAINING):
            text = field.metadata["help"]
            how: dict[str, Any] = {"nargs": "+"} if field.name == "classes" else {}
            if hints[field.name] is bool:
                how = {"action": "store_true"}
            elif (allowed := rows_of(DataArguments)[field.name].range) is not None:
                how = {"type": number_in(allowed)}
            elif field.name == "group_by":
                how = {"choices": ["folder", "prefix"]}
            if field.name == "dataset":
                text += f" Default: {default}."
            parser.add_argument(f"--{field.name}", help=text, **how)


def read_data_flags(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of DataArguments that the command line sets.

    Raises:
        InputError: the dataset is passed as an argument and as a flag.
    """
    photos = getattr(arguments, "photos", None)
    if photos is not None:
        if arguments.dataset is not None:
            raise InputError(
                f"'{shorten(photos)}' and --dataset '{shorten(arguments.dataset)}' both name the images. Leave one of "
                "them out."
            )
        arguments.dataset = photos
    return {name: value for name in NAMES if (value := getattr(arguments, name, None))}
