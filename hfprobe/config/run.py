"""What a run is: data, training arguments, recipe, and the checks they pass before anything slow happens."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hfprobe.cli.parser import Parser, warn_about_repeated
from hfprobe.cli.run_parser import RunParser
from hfprobe.config.arguments import HOUSE_DEFAULTS, SHORT_NAMES, RunArguments, ignored_by_optimizer, spell_flag
from hfprobe.data.arguments import DataArguments
from hfprobe.models import find_family
from hfprobe.system.process import is_main_process

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunConfig:
    """Everything a run needs to know.

    Attributes:
        model: the recipe module's own Options.
        passed: fields that the user set, on the command line or in Python.
    """

    data: DataArguments
    training: RunArguments
    model: Any
    passed: frozenset[str] = frozenset()

    @property
    def split_seed(self) -> int:
        return self.training.seed if self.data.split_seed is None else self.data.split_seed

    @property
    def ignored_settings(self) -> dict[str, str]:
        """Setting -> why it has no effect in this run. The model and the optimizer say so themselves."""
        ignored = ignored_by_optimizer(self.training)
        for part in (self.data, self.training, self.model):
            ignored |= part.ignored_settings()
        if self.data.split_seed is not None:
            ignored["vary_split"] = "--split_seed sets one split"
        return ignored

    def warn_about_ignored(self) -> None:
        """Log each setting that the user passed and that has no effect, with the reason."""
        by_reason: dict[str, list[str]] = {}
        ignored = self.ignored_settings
        for name in sorted(self.passed & ignored.keys()):
            by_reason.setdefault(ignored[name], []).append(spell_flag(name))
        for reason, flags in by_reason.items():
            logger.warning("%s %s no effect: %s.", ", ".join(flags), "have" if len(flags) > 1 else "has", reason)

    @property
    def effective_batch_size(self) -> int | None:
        """Images an optimizer step is made of: per device x devices x processes x accumulated steps; None: no steps."""
        arguments = self.training
        if "per_device_train_batch_size" in self.ignored_settings:
            return None
        return arguments.train_batch_size * arguments.world_size * arguments.gradient_accumulation_steps

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, for run.json and the model card: every setting that has an effect, in three groups."""
        training = self.training.to_dict() | {"mixed_precision": self.training.mixed_precision}
        del training["hub_token"]
        groups = {
            "data": asdict(self.data) | {"split_seed": self.split_seed},
            "model": asdict(self.model),
            "training": training,
        }
        ignored = self.ignored_settings
        return {
            group: {name: value for name, value in values.items() if name not in ignored}
            for group, values in groups.items()
        }


def make_parser(
    model: str, recipe: str | None = None, *, schedule: str | None = None, prog: str = "scripts/train.py"
) -> RunParser:
    """The flags of a run: data, training and the model's own, with the recipe's values as defaults.

    Args:
        schedule: the `lr_scheduler_type` of the run, where it is set. A recipe's settings of another schedule are left
            out.
        prog: what the user typed, for hints.

    Raises:
        InputError: no such model, no such recipe.
    """
    family = find_family(model)
    defaults = HOUSE_DEFAULTS | family.recipe_values(recipe) | {"model": family.name}
    if schedule not in (None, defaults.get("lr_scheduler_type")):
        defaults.pop("lr_scheduler_kwargs", None)
    groups = [DataArguments, RunArguments, family.Options]
    return RunParser(groups, defaults=defaults, short_names=SHORT_NAMES, prog=prog)


def parse_run(argv: Sequence[str] | None = None) -> RunConfig:
    """The command line of scripts/train.py as a checked RunConfig.

    Raises:
        InputError: a flag or a value that cannot be used, in one line.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    return _parse(_parser_for(argv), argv)


def _parser_for(argv: Sequence[str]) -> RunParser:
    """The parser of a command line: its defaults depend on the model, the recipe and the schedule that are passed."""
    first = Parser(add_help=False)
    first.add_argument("--model", default="cnn")
    first.add_argument("--recipe")
    first.add_argument("--lr_scheduler_type", "--lr-scheduler-type")
    chosen, _ = first.parse_known_args(argv)
    return make_parser(chosen.model, chosen.recipe, schedule=chosen.lr_scheduler_type, prog=sys.argv[0])


def _parse(parser: RunParser, argv: Sequence[str]) -> RunConfig:
    groups, passed = parser.parse(argv)
    return RunConfig(*groups, passed)


def parse_runs(argv: Sequence[str] | None = None) -> list[RunConfig]:
    """One RunConfig a seed: --seed, --seed + 1, ... for --seeds of them, on one split unless --vary_split.

    Flags without effect are named in a warning, and so are flags that were passed twice.

    Raises:
        InputError: see `parse_run`.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = _parser_for(argv)
    whole = _parse(parser, argv)
    if is_main_process():
        warn_about_repeated(parser, argv)
        whole.warn_about_ignored()
    arguments = whole.training
    if arguments.seeds == 1:
        return [whole]
    runs = []
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        own = ["--seeds", "1", "--seed", str(seed)]
        if not arguments.vary_split:
            own += ["--split_seed", str(whole.split_seed)]
        if arguments.output_dir != arguments.default_output_dir:
            own += ["--output_dir", f"{arguments.output_dir}/seed{seed}"]
        runs.append(_parse(parser, [*argv, *own]))
    return runs


def make_run(*, model: str = "cnn", recipe: str | None = None, **values: Any) -> RunConfig:
    """A RunConfig from Python, with the same defaults, checks and warnings as the command line.

    Args:
        values: fields of DataArguments, RunArguments or the model's Options.

    Raises:
        InputError: see `parse_run`.
    """
    schedule = values.get("lr_scheduler_type")
    parser = make_parser(model, recipe, schedule=getattr(schedule, "value", schedule))
    groups, passed = parser.parse(parser.spell(values))
    config = RunConfig(*groups, passed | values.keys())
    config.warn_about_ignored()
    return config


def parse_options(model: str, argv: Sequence[str]) -> Any:
    """A model's own flags alone, as its Options; its first recipe sets what the flags do not.

    Raises:
        InputError: unknown model, unknown flag, bad value.
    """
    family = find_family(model)
    parser = RunParser([family.Options], defaults=family.recipe_values(), short_names={}, prog=sys.argv[0])
    groups, _ = parser.parse(argv)
    return groups[0]
