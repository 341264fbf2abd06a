"""What a run is: data, training arguments, recipe, and the checks they pass before anything slow happens."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from transformers import HfArgumentParser, TrainingArguments
from transformers.utils import strtobool

from hfprobe import recipes
from hfprobe.cli import OneLineErrors, Parser, is_main_process, require_writable
from hfprobe.errors import InputError
from hfprobe.preflight import find_contradictions, refuse

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


def require_positive(arguments: Any, *names: str) -> None:
    """InputError naming the first of the fields that is set and not above zero."""
    for name in names:
        value = getattr(arguments, name)
        if value is not None and not 0 < value < math.inf:
            flags = "/".join([f"--{name}", *(short for short, long in SHORT_NAMES.items() if long == name)])
            raise InputError(f"{flags} is {value}; allowed: more than 0.")


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
    crop_shift: int = field(default=4, metadata={"help": "Pixels that random crops reach beyond the image's edge."})
    crop_padding: Literal["black", "reflect"] = field(
        default="black", metadata={"help": "What random crops see beyond the image's edge."}
    )
    flips: Literal["random", "alternating"] = field(
        default="random",
        metadata={"help": "Mirror images: drawn anew each epoch, or drawn once and turned round every epoch."},
    )

    def __post_init__(self) -> None:
        require_positive(self, "max_train_samples", "max_eval_samples")
        require_not_negative(self, "crop_shift")
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


@dataclass
class RunArguments(TrainingArguments):
    """transformers' TrainingArguments, and what hfprobe adds."""

    model: str = field(default="cnn", metadata={"help": "Which model: a module of hfprobe/models."})
    recipe: str | None = field(default=None, metadata={"help": "Table of defaults; any flag given beside it wins."})
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
    resume: bool = field(default=False, metadata={"help": "Go on from the newest checkpoint in the output folder."})
    overwrite: bool = field(default=False, metadata={"help": "Delete the run that the output folder holds."})

    def __post_init__(self) -> None:
        require_positive(
            self,
            "num_train_epochs",
            "per_device_train_batch_size",
            "per_device_eval_batch_size",
            "learning_rate",
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


@dataclass(frozen=True)
class RunConfig:
    """Everything a run needs to know."""

    data: DataArguments
    training: RunArguments
    model: Any  # the recipe module's own Options

    @property
    def split_seed(self) -> int:
        return self.training.seed if self.data.split_seed is None else self.data.split_seed

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, for run.json: the data, the model's flags, and the training arguments that differ from default."""
        default = {f.name: f.default for f in fields(RunArguments)}
        training = {key: value for key, value in self.training.to_dict().items() if value != default.get(key)}
        return {"data": asdict(self.data), "model": asdict(self.model), "training": training}


class RunParser(OneLineErrors, HfArgumentParser):
    """One flag a field of the dataclasses; the recipe sets defaults, the command line wins."""

    def __init__(self, model: str, recipe: str | None = None):
        module = recipes.recipe_module(model)
        recipe = recipe or next(iter(module.RECIPES))
        if recipe not in module.RECIPES:
            raise InputError(f"Unknown recipe '{recipe}' for model '{model}'. Available: {', '.join(module.RECIPES)}.")
        super().__init__([DataArguments, RunArguments, module.Options], allow_abbrev=False)
        for short, long in SHORT_NAMES.items():
            action = next(action for action in self._actions if action.dest == long)
            same = {name: getattr(action, name) for name in ("dest", "type", "nargs", "const")}
            self.add_argument(short, **same, default=argparse.SUPPRESS, help=f"Short for --{long}.")
        self.set_defaults(**HOUSE_DEFAULTS | module.RECIPES[recipe] | {"model": model, "recipe": recipe})

    def parse_into_config(self, argv: Sequence[str]) -> RunConfig:
        # Unknown flags are refused first: TrainingArguments takes seconds to make.
        self.refuse_unknown(self.parse_known_args(argv)[1])
        try:
            return RunConfig(*self.parse_args_into_dataclasses(argv, look_for_args_file=False))
        except InputError:
            raise
        except (ValueError, TypeError, OSError, ImportError) as error:  # of TrainingArguments or a model's Options
            raise InputError(str(error)) from error


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
    return RunParser(chosen.model, chosen.recipe).parse_into_config(argv)


def parse_runs(argv: Sequence[str] | None = None) -> list[RunConfig]:
    """One RunConfig a seed: --seed, --seed + 1, ... for --seeds of them, on one split unless --vary_split.

    Raises:
        InputError: see `parse_run`.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    whole = parse_run(argv)
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
    """A RunConfig from Python, with the same defaults and checks as the command line.

    Args:
        values: fields of DataArguments, RunArguments or the model's Options.
    """
    parser = RunParser(model, recipe)
    parser.set_defaults(**values)
    return parser.parse_into_config([])


def parse_options(model: str, argv: Sequence[str]) -> Any:
    """A model's own flags alone, as its Options.

    Raises:
        InputError: unknown model, unknown flag, bad value.
    """
    parser = RunParser.__new__(RunParser)
    HfArgumentParser.__init__(parser, [recipes.recipe_module(model).Options], allow_abbrev=False)
    parsed, remaining = parser.parse_args_into_dataclasses(
        argv, return_remaining_strings=True, look_for_args_file=False
    )
    parser.refuse_unknown(remaining)
    return parsed


def check_output_dir(arguments: RunArguments) -> None:
    """Look whether this run may have its output folder; nothing is changed, only the main process looks.

    Raises:
        InputError: it holds another run and neither --resume nor --overwrite was given; it cannot be written.
    """
    folder = Path(arguments.output_dir)
    if not is_main_process():
        return
    if _run_files(folder) and not (arguments.resume or arguments.overwrite):
        raise InputError(
            f"The output folder '{folder}' holds another run. Go on with it: --resume. Delete it: --overwrite. "
            "Keep it: --output_dir with another name."
        )
    if arguments.resume and not _run_files(folder):
        raise InputError(f"Nothing to resume: the output folder '{folder}' holds no run. Leave --resume out.")
    require_writable(folder, flag="--output_dir")


def claim_output_dir(arguments: RunArguments) -> Path:
    """Make the output folder, and with --overwrite delete the run it holds; once all else has proved usable."""
    folder = Path(arguments.output_dir)
    if is_main_process():
        if arguments.overwrite and _run_files(folder):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _run_files(folder: Path) -> list[Path]:
    return [*folder.glob("checkpoint-*"), *folder.glob("run.json")] if folder.is_dir() else []
