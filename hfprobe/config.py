"""What a run is: data, training arguments, recipe, and the checks they pass before anything slow happens."""

from __future__ import annotations

import logging
import math
import os
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from transformers import TrainingArguments
from transformers.utils import strtobool

from hfprobe import optimizers, recipes
from hfprobe.cli import Parser, is_main_process
from hfprobe.errors import InputError
from hfprobe.preflight import find_contradictions, refuse
from hfprobe.run_parser import RunParser

logger = logging.getLogger(__name__)

# Side in pixels of the images that --crop_shift is counted on.
CROP_SIDE = 32
DEFAULT_DATASET = "uoft-cs/cifar10"
DEFAULT_CLASSES = ["airplane", "automobile", "bird", "cat", "dog"]

# Short names people know -> the TrainingArguments field they stand for.
SHORT_NAMES = {
    "--epochs": "num_train_epochs",
    "--batch_size": "per_device_train_batch_size",
    "--lr": "learning_rate",
    "--deterministic": "full_determinism",
}

# What every recipe starts from: evaluate and save each epoch, keep the best on validation accuracy.
HOUSE_DEFAULTS: dict[str, Any] = {
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "logging_strategy": "epoch",
    "save_total_limit": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "accuracy",
    "greater_is_better": True,
    "per_device_eval_batch_size": 500,
    "max_grad_norm": 0.0,
    "logging_nan_inf_filter": False,
    "report_to": "tensorboard",
    "remove_unused_columns": False,
    "dataloader_pin_memory": False,
    "disable_tqdm": False,
    "ddp_find_unused_parameters": False,
}


def spell_flag(name: str) -> str:
    """A field as its flag, and the short one where it has one: `--learning_rate/--lr`."""
    return "/".join([f"--{name}", *(short for short, long in SHORT_NAMES.items() if long == name)])


def require_positive(arguments: Any, *names: str) -> None:
    """InputError naming the first of the fields that is set and not above zero."""
    for name in names:
        value = getattr(arguments, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{spell_flag(name)} is {value}; allowed: more than 0.")


def require_not_negative(arguments: Any, *names: str) -> None:
    """InputError naming the first of the fields that is below zero."""
    for name in names:
        value = getattr(arguments, name)
        if not 0 <= value < math.inf:
            raise InputError(f"--{name} is {value}; allowed: 0 or more.")


def has_accelerator() -> bool:
    """Whether torch sees a GPU, or what else it computes on beside the CPU."""
    import torch

    return torch.accelerator.is_available()


def has_bf16_units() -> bool:
    """Whether this machine's CPU computes in bfloat16 without emulation; True where it does not say."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return True
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


@dataclass
class DataArguments:
    """Which images, which classes, how many."""

    dataset: str = field(
        default=DEFAULT_DATASET,
        metadata={"help": "Hub id, or a local folder: save_to_disk, parquet files, or train/ and test/ image folders."},
    )
    classes: list[str] = field(
        default_factory=lambda: list(DEFAULT_CLASSES),
        metadata={"help": "Classes to keep; their order gives the label numbers."},
    )
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Train on at most this many images, stratified. Default: all."}
    )
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Validate on at most this many images, stratified. Default: all."}
    )
    split_seed: int | None = field(
        default=None, metadata={"help": "Seed of the split into train and validation, and of subsets. Default: --seed."}
    )
    augment: bool = field(default=True, metadata={"help": "Random crops and mirror images in training."})
    crop_shift: int = field(
        default=4,
        metadata={
            "help": "Pixels that random crops reach beyond the edge of an image of 32 x 32, less than 32; for other "
            "sizes the same share of the side."
        },
    )
    crop_padding: Literal["black", "reflect"] = field(
        default="black", metadata={"help": "What random crops see beyond the image's edge."}
    )
    flips: Literal["random", "alternating"] = field(
        default="random",
        metadata={"help": "Mirror images: drawn anew each epoch, or drawn once and turned round every epoch."},
    )

    def __post_init__(self) -> None:
        require_positive(self, "max_train_samples", "max_eval_samples")
        if not 0 <= self.crop_shift < CROP_SIDE:
            raise InputError(f"--crop_shift is {self.crop_shift}; allowed: 0 to {CROP_SIDE - 1}.")
        self.classes = [unicodedata.normalize("NFC", name) for name in self.classes]  # as sources do
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if twice:
            raise InputError(f"--classes names {', '.join(twice)} twice; allowed: each class once.")
        if len(self.classes) < 2:
            only = f"only {self.classes[0]}" if self.classes else "none"
            raise InputError(f"--classes names {only}; allowed: two classes or more.")

    @property
    def augmentation(self) -> dict[str, Any] | None:
        """What `hfprobe.data.transforms.crop_and_flip` is to do; None: nothing."""
        values = {"shift": self.crop_shift, "padding": self.crop_padding, "flips": self.flips}
        return values if self.augment else None

    def ignored_settings(self) -> dict[str, str]:
        """Setting -> why it has no effect."""
        if not self.augment:
            return dict.fromkeys(("crop_shift", "crop_padding", "flips"), "--augment false turns crops and flips off")
        return {} if self.crop_shift else {"crop_padding": "with --crop_shift 0, crops stay inside the image"}


@dataclass
class RunArguments(TrainingArguments):
    """transformers' TrainingArguments, and what hfprobe adds."""

    model: str = field(default="cnn", metadata={"help": "Which model: a module of hfprobe/models."})
    recipe: str | None = field(default=None, metadata={"help": "Table of defaults; a flag that you pass wins over it."})
    learning_rate: float = field(
        default=5e-5,
        metadata={
            "help": "Initial learning rate. With --optimizer muon it is that of the linear layers, biases and norms "
            "only; convolutions have --muon_learning_rate. To change both at once, pass --lr_scale."
        },
    )
    lr_scale: float = field(
        default=1.0, metadata={"help": "Factor on every learning rate of the run, on --muon_learning_rate too."}
    )
    optimizer: Literal["optim", "adam", "sgd", "muon"] = field(
        default="optim",
        metadata={
            "help": "optim: what --optim names. adam, sgd: torch's, momentum 0.9, L2 weight decay on all. muon: "
            "orthogonalised momentum for convolutions, AdamW for the rest."
        },
    )
    muon_learning_rate: float = field(
        default=0.12, metadata={"help": "Of the convolutions under --optimizer muon: relative length of a step."}
    )
    muon_momentum: float = field(default=0.6, metadata={"help": "Of the convolutions under --optimizer muon, [0, 1)."})
    seeds: int = field(
        default=1,
        metadata={"help": "Train so many seeds in turn, from --seed on, each into its own folder, on one split."},
    )
    vary_split: bool = field(default=False, metadata={"help": "With --seeds: another split for each seed too."})
    patience: int = field(
        default=15, metadata={"help": "Stop after this many evaluations without a better validation accuracy."}
    )
    histogram_epochs: int = field(
        default=5, metadata={"help": "Histograms of weights and gradients every so many epochs; 0: none."}
    )
    profile: bool = field(
        default=False,
        metadata={"help": "torch.profiler over a few steps: a trace and operator tables in the run folder."},
    )
    hub_dir: str = field(default="hub", metadata={"help": "Local hub folder that the best model is pushed to."})
    resume: bool = field(
        default=False,
        metadata={
            "help": "Continue from the newest checkpoint in the output folder. Every setting must be that of the run, "
            "except those listed with their reasons in hfprobe/run_folder.py, such as more --epochs, other loader "
            "workers, logging."
        },
    )
    overwrite: bool = field(default=False, metadata={"help": "Delete the run that the output folder holds."})

    def __post_init__(self) -> None:
        require_positive(
            self,
            "num_train_epochs",
            "per_device_train_batch_size",
            "per_device_eval_batch_size",
            "learning_rate",
            "lr_scale",
            "muon_learning_rate",
            "gradient_accumulation_steps",
            "patience",
            "seeds",
        )
        require_not_negative(self, "seed", "weight_decay", "dataloader_num_workers", "histogram_epochs")
        for name in ("muon_momentum", "label_smoothing_factor"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"--{name} is {getattr(self, name)}; allowed: 0 or more, less than 1.")
        self._check_precision()
        if self.resume and self.overwrite:
            raise InputError("--resume and --overwrite exclude each other: keep the run, or delete it.")
        refuse(find_contradictions(self))
        if self.output_dir is None:
            self.output_dir = self.default_output_dir
        super().__post_init__()

    def _check_precision(self) -> None:
        """Raise InputError for a precision that this machine emulates or ignores."""
        # `accelerate launch` passes its configuration in the environment; Trainer uses it where no flag says otherwise.
        configured = "no" if self.bf16 or self.fp16 else os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        if configured not in ("no", "bf16", "fp16"):
            raise InputError(f"mixed_precision is {configured} in accelerate's configuration. Allowed: no, bf16, fp16.")
        for kind, flagged in (("bf16", self.bf16 or self.bf16_full_eval), ("fp16", self.fp16 or self.fp16_full_eval)):
            if not flagged and configured != kind:
                continue
            on_cpu = self.use_cpu or strtobool(os.environ.get("ACCELERATE_USE_CPU", "False")) or not has_accelerator()
            what, remedy = f"--{kind} and --{kind}_full_eval need", "Leave the flag out."
            if not flagged:
                what, remedy = f"mixed_precision: {kind} in accelerate's configuration needs", "Set it to 'no'."
            if on_cpu and kind == "fp16":
                raise InputError(f"{what} a GPU, and none is here. {remedy}")
            if on_cpu and not has_bf16_units():
                raise InputError(
                    f"{what} a GPU, or a CPU with units for bfloat16; this one has none and takes several times as "
                    f"long as with float32. {remedy}"
                )

    @property
    def default_output_dir(self) -> str:
        return f"runs/{self.model}-{self.recipe}-seed{self.seed}"

    def ignored_settings(self) -> dict[str, str]:
        """Setting -> why it has no effect beside the others."""
        strategies = {name: getattr(self, f"{name}_strategy").value for name in ("eval", "save", "logging")}
        schedule = self.lr_scheduler_type.value
        never = "no evaluation is made with --eval_strategy no"
        table = [
            (self.max_steps > 0, ("num_train_epochs",), "--max_steps ends the run"),
            (strategies["eval"] == "no", ("patience", "eval_delay"), never),
            (strategies["save"] == "no", ("save_total_limit",), "nothing is saved with --save_strategy no"),
            *(
                (strategies[name] != "steps", (f"{name}_steps",), f"--{name}_strategy is {strategies[name]}")
                for name in strategies
            ),
            (schedule.startswith("constant"), ("lr_scheduler_kwargs",), f"--lr_scheduler_type {schedule} has none"),
            (
                schedule in ("constant", "reduce_lr_on_plateau", "greedy"),
                ("warmup_steps",),
                f"--lr_scheduler_type {schedule} has no warm-up",
            ),
            ("tensorboard" not in self.report_to, ("histogram_epochs",), "histograms need --report_to tensorboard"),
            (
                not self.push_to_hub,
                ("hub_model_id", "hub_strategy", "hub_private_repo", "hub_always_push", "hub_revision"),
                "it belongs to --push_to_hub",
            ),
            (
                self.push_to_hub,
                ("hub_strategy", "hub_always_push"),
                "hfprobe uploads once, at the end, what it pushed to the local hub folder",
            ),
            (True, ("resume_from_checkpoint",), "hfprobe continues a run with --resume"),
            (True, ("do_train", "do_eval", "do_predict"), "hfprobe always trains and validates"),
            (self.seeds == 1, ("vary_split",), "--seeds is 1"),
        ]
        return {name: reason for holds, names, reason in table if holds for name in names}


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
        ignored = optimizers.ignored_settings(self.training)
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


def make_parser(model: str, recipe: str | None = None) -> RunParser:
    """The flags of a run: data, training and the model's own, with the recipe's values as defaults.

    Raises:
        InputError: no such model, no such recipe.
    """
    defaults = HOUSE_DEFAULTS | recipes.recipe_values(model, recipe) | {"model": model}
    groups = [DataArguments, RunArguments, recipes.recipe_module(model).Options]
    return RunParser(groups, defaults=defaults, short_names=SHORT_NAMES)


def parse_run(argv: Sequence[str] | None = None) -> RunConfig:
    """The command line of scripts/train.py as a checked RunConfig.

    Raises:
        InputError: a flag or a value that cannot be used, in one line.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    first = Parser(add_help=False)
    first.add_argument("--model", default="cnn")
    first.add_argument("--recipe")
    chosen, _ = first.parse_known_args(argv)
    groups, passed = make_parser(chosen.model, chosen.recipe).parse(argv)
    return RunConfig(*groups, passed)


def parse_runs(argv: Sequence[str] | None = None) -> list[RunConfig]:
    """One RunConfig a seed: --seed, --seed + 1, ... for --seeds of them, on one split unless --vary_split.

    Flags without effect are named in a warning.

    Raises:
        InputError: see `parse_run`.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    whole = parse_run(argv)
    if is_main_process():
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
        runs.append(parse_run([*argv, *own]))
    return runs


def make_run(*, model: str = "cnn", recipe: str | None = None, **values: Any) -> RunConfig:
    """A RunConfig from Python, with the same defaults, checks and warnings as the command line.

    Args:
        values: fields of DataArguments, RunArguments or the model's Options.

    Raises:
        InputError: see `parse_run`.
    """
    parser = make_parser(model, recipe)
    groups, passed = parser.parse(parser.spell(values))
    config = RunConfig(*groups, passed | values.keys())
    config.warn_about_ignored()
    return config


def parse_options(model: str, argv: Sequence[str]) -> Any:
    """A model's own flags alone, as its Options; its first recipe sets what the flags do not.

    Raises:
        InputError: unknown model, unknown flag, bad value.
    """
    defaults = recipes.recipe_values(model)
    groups, _ = RunParser([recipes.recipe_module(model).Options], defaults=defaults, short_names={}).parse(argv)
    return groups[0]
