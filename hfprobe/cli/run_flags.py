"""The flags of a run, made from the dataclasses of its settings."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from transformers import HfArgumentParser

from hfprobe.cli.parser import OneLineErrors, Parser, warn_about_repeated
from hfprobe.models import find_family
from hfprobe.models.base import ModelFamily
from hfprobe.settings.files import read_config_file
from hfprobe.settings.run_config import CHOICES, RunConfig, build_run, starting_values
from hfprobe.settings.values import check_other_models, groups_of, one_line_errors
from hfprobe.system.process import command, is_main_process
from hfprobe.system.setting import short_names


class RunParser(OneLineErrors, HfArgumentParser):
    """One flag per field of the dataclasses, and the short ones of their rows.

    Args:
        groups: dataclasses.
        defaults: values for their fields, which `--help` shows instead of the dataclasses' own.
        prog: the command, for hints.
        family: the model whose settings they are.
    """

    def __init__(self, groups: Sequence[type], *, defaults: dict[str, Any], prog: str, family: ModelFamily):
        self.family = family
        HfArgumentParser.__init__(self, groups, prog=prog, allow_abbrev=False)
        for short, long in short_names(*groups).items():
            for action in [action for action in self._actions if action.dest == long]:
                same = {name: getattr(action, name) for name in ("dest", "type", "nargs", "const")}
                self.add_argument(f"--{short}", **same, default=argparse.SUPPRESS, help=f"Short for --{long}.")
        known = {action.dest for action in self._actions}
        self.set_defaults(**{name: value for name, value in defaults.items() if name in known})
        for action in self._actions:
            action.required &= action.dest not in defaults

    def add_argument(self, *names: str, row: object = None, **how: Any) -> argparse.Action:
        """As in argparse; HfArgumentParser passes the metadata of a field, of which argparse has no `row`."""
        return super().add_argument(*names, **how)

    def read(self, argv: Sequence[str]) -> dict[str, Any]:
        """Field -> value of what `argv` sets.

        Raises:
            InputError: an unknown flag, a value of the wrong type.
        """
        unset = object()
        given = argparse.Namespace(**{action.dest: unset for action in self._actions})
        remaining = self.parse_known_args(argv, given)[1]
        if remaining:
            check_other_models(remaining[0].split("=")[0].removeprefix("--").replace("-", "_"), of=self.family)
        self.check_remaining(remaining)
        return {name: value for name, value in vars(given).items() if value is not unset}


def make_parser(
    model: str,
    recipe: str | None = None,
    *,
    chosen: Mapping[str, Any] = MappingProxyType({}),
    values: dict[str, Any] | None = None,
) -> RunParser:
    """The flags of a run: data, training and the model's own, with the recipe's values as defaults.

    Args:
        chosen: see `starting_values`.
        values: of a file, which win over the recipe's.

    Raises:
        InputError: no such model, no such recipe.
    """
    family = find_family(model)
    defaults = starting_values(family, recipe, chosen=chosen) | (values or {})
    parser = RunParser(groups_of(family), defaults=defaults, prog=command("train"), family=family)
    parser.add_argument(
        "--config",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="YAML file of settings, such as the config.yaml of an earlier run; a flag that you pass wins over it.",
    )
    return parser


def parse_run(argv: Sequence[str] | None = None) -> RunConfig:
    """The flags of `hfprobe train` as a checked RunConfig.

    Raises:
        InputError: a flag or a value that cannot be used, in one line.
    """
    return build_run(**_read(sys.argv[1:] if argv is None else list(argv))[1])


def _read(argv: Sequence[str]) -> tuple[RunParser, dict[str, Any]]:
    """The parser of a command line, and the settings that the command line and its `--config` pass."""
    # The other flags and their defaults depend on these.
    first = Parser(add_help=False)
    for name in ("model", "recipe", "config", *CHOICES):
        first.add_argument(*{f"--{name}": None, f"--{name.replace('_', '-')}": None})
    chosen, _ = first.parse_known_args(argv)
    if chosen.model is not None:
        find_family(chosen.model)  # before the file is read, which is not to blame for it
    file = {} if chosen.config is None else read_config_file(chosen.config, model=chosen.model)
    start = file | {name: value for name, value in vars(chosen).items() if value is not None}
    parser = make_parser(start.get("model", "cnn"), start.get("recipe"), chosen=start, values=file)
    values = file | parser.read(argv)
    values.pop("config", None)
    return parser, values


def parse_runs(argv: Sequence[str] | None = None) -> list[RunConfig]:
    """One RunConfig per seed: --seed, --seed + 1, ... for --seeds of them, on one split unless --vary_split.

    Flags without effect are named in a warning, and so are flags that were passed twice.

    Raises:
        InputError: see `parse_run`.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    parser, values = _read(argv)
    whole = build_run(**values)
    if is_main_process():
        warn_about_repeated(parser, argv)
        whole.warn_about_ignored()
    arguments = whole.training
    if arguments.seeds == 1:
        return [whole]
    runs = []
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        own: dict[str, Any] = {"seeds": 1, "seed": seed}
        if not arguments.vary_split:
            own["split_seed"] = whole.split_seed
        if arguments.output_dir != whole.default_output_dir:
            own["output_dir"] = f"{arguments.output_dir}/seed{seed}"
        runs.append(build_run(**values | own))
    return runs


def parse_options(model: str, argv: Sequence[str]) -> Any:
    """A model's own flags alone, as its Options; its first recipe sets what the flags do not.

    Raises:
        InputError: unknown model, unknown flag, bad value.
    """
    family = find_family(model)
    parser = RunParser([family.Options], defaults=family.recipe_values(), prog=command("sanity-check"), family=family)
    with one_line_errors():
        return family.recipe_options(**parser.read(argv))
