"""The training arguments of a run: transformers' own and what hfprobe adds, with their checks."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from transformers import TrainingArguments
from transformers.utils import strtobool

from hfprobe.data.arguments import DEFAULT_DATASET
from hfprobe.models import find_family
from hfprobe.settings.accelerator import adopt_compilation, check_accelerator_config
from hfprobe.settings.class_weights import read_class_weights
from hfprobe.settings.contradictions import find_contradictions
from hfprobe.settings.names import name_run
from hfprobe.settings.optim_args import check_optim_args
from hfprobe.settings.schedules import check_schedule, read_table
from hfprobe.settings.training_arguments import LOADING, LOGGING, NO_EVALUATION, PLACE, ROWS, SELECTION
from hfprobe.system.errors import InputError, raise_problems, shorten
from hfprobe.system.precision import DEFAULT_PRECISION, EMULATION, PRECISIONS, preferred_precision
from hfprobe.system.ranges import RATE, SEED, SEEDS, SHARE, Range
from hfprobe.system.setting import GRADIENT_TRAINING, Case, Setting, check_ranges, find_refused

NOT_MUON = Case("only --optimizer muon reads it", lambda a: a.optimizer != "muon")
NO_TENSORBOARD = Case("histograms need --report_to tensorboard", lambda a: "tensorboard" not in a.report_to)


def default_output_dir(model: str, recipe: str | None, *, seed: int, dataset: str = DEFAULT_DATASET) -> str:
    """The folder of a run whose --output_dir is not passed."""
    return f"runs/{name_run(model, recipe, dataset=dataset)}-seed{seed}"


def has_accelerator() -> bool:
    """Whether torch sees a GPU, or what else it computes on beside the CPU."""
    import torch

    return torch.accelerator.is_available()


@dataclass
class RunArguments(TrainingArguments):
    """transformers' TrainingArguments, and what hfprobe adds."""

    if TYPE_CHECKING:  # transformers allows None, which __post_init__ replaces
        output_dir: str

    ROWS: ClassVar[dict[str, Setting]] = ROWS

    model: str = field(default="cnn", metadata={"help": "Which model: cnn or probe."})
    recipe: str | None = field(default=None, metadata={"help": "Table of defaults; a flag that you pass wins over it."})
    learning_rate: float = field(
        default=5e-5,
        metadata={
            "help": "Initial learning rate. With --optimizer muon it is that of the linear layers, biases and norms "
            "only; convolutions have --muon_learning_rate. To change both at once, pass --lr_scale.",
            "row": Setting(short="lr", range=RATE, group=GRADIENT_TRAINING, on_card=True),
        },
    )
    lr_scale: float = field(
        default=1.0,
        metadata={
            "help": "Factor on every learning rate of the run, on --muon_learning_rate too.",
            "row": Setting(range=RATE, group=GRADIENT_TRAINING, on_card=True),
        },
    )
    optimizer: Literal["optim", "adam", "sgd", "muon"] = field(
        default="optim",
        metadata={
            "help": "optim: what --optim names. adam, sgd: torch's, momentum 0.9, L2 weight decay on all. muon: "
            "orthogonalised momentum for convolutions, AdamW for the rest.",
            "row": Setting(group=GRADIENT_TRAINING, on_card=True),
        },
    )
    muon_learning_rate: float = field(
        default=0.12,
        metadata={
            "help": "Of the convolutions under --optimizer muon: relative length of a step.",
            "row": Setting(range=RATE, ignored=(NOT_MUON,), group=GRADIENT_TRAINING, on_card=True),
        },
    )
    muon_momentum: float = field(
        default=0.6,
        metadata={
            "help": "Of the convolutions under --optimizer muon, [0, 1).",
            "row": Setting(range=SHARE, ignored=(NOT_MUON,), group=GRADIENT_TRAINING, on_card=True),
        },
    )
    seeds: int = field(
        default=1,
        metadata={
            "help": "Number of seeds: trains --seed, --seed + 1, ..., each in its own folder, on one split.",
            "row": Setting(range=SEEDS, may_differ=SELECTION, repeat="never"),
        },
    )
    vary_split: bool = field(
        default=False,
        metadata={
            "help": "With --seeds: another split for each seed too.",
            "row": Setting(
                ignored=(Case("--seeds is 1", lambda a: a.seeds == 1),), may_differ=SELECTION, repeat="never"
            ),
        },
    )
    precision: Literal["auto", "fp32", "bf16"] | None = field(
        default=None,
        metadata={
            "help": "Of the forward and backward pass; weights, optimizer, losses and evaluations are in float32. "
            "bf16: bfloat16 autocast. auto: bf16 on a GPU of compute capability 8.0 or newer and on a CPU with native "
            f"bfloat16 support, otherwise fp32. Default: {DEFAULT_PRECISION}. --bf16, --fp16 and mixed_precision in "
            "accelerate's configuration win over auto."
        },
    )
    resident: Literal["auto", "device", "host"] = field(
        default="auto",
        metadata={
            "help": "Where the decoded images are kept. device: in the memory of the device that trains, which also "
            "crops, mirrors and normalises each batch; host: in a memory map, from which the loader makes each batch. "
            "auto: device on a GPU whose free memory is at least twice the size of the images, but host with --crop "
            "resized, --teacher, --dataloader_num_workers or --dataloader_pin_memory; host without a GPU.",
            "row": Setting(group=GRADIENT_TRAINING, may_differ=LOADING),
        },
    )
    class_weights: dict[str, Any] | str | None = field(
        default="none",
        metadata={
            "help": "Weights of the classes in the training loss. none; balanced: inversely proportional to the "
            'training images of the class, as in scikit-learn; JSON, or a file with it: {"cat": 2}, where a class that '
            "is not named has the weight 1."
        },
    )
    patience: int = field(
        default=15,
        metadata={
            "help": "Stop after this many evaluations without a better --metric_for_best_model.",
            "row": Setting(range=Range(1, 10**6), ignored=(NO_EVALUATION,), group=GRADIENT_TRAINING, on_card=True),
        },
    )
    histogram_epochs: int = field(
        default=5,
        metadata={
            "help": "Number of epochs between histograms of weights and gradients; 0: none.",
            "row": Setting(
                range=Range(0, 10**6), ignored=(NO_TENSORBOARD,), group=GRADIENT_TRAINING, may_differ=LOGGING
            ),
        },
    )
    profile: bool = field(
        default=False,
        metadata={
            "help": "torch.profiler over a few steps: a trace and operator tables in the run folder.",
            "row": Setting(group=GRADIENT_TRAINING, may_differ=LOGGING),
        },
    )
    hub_dir: str = field(
        default="hub",
        metadata={
            "help": "Local hub folder that the best model is pushed to.",
            "row": Setting(may_differ=PLACE),
        },
    )
    resume: bool = field(
        default=False,
        metadata={
            "help": "Continue from the newest checkpoint in the output folder. Every setting must be that of the run, "
            "except those that have a reason in `may_differ` of their row, such as more --epochs, other loader "
            "workers, logging.",
            "row": Setting(may_differ=SELECTION, repeat="never"),
        },
    )
    overwrite: bool = field(
        default=False,
        metadata={
            "help": "Delete the run that the output folder holds; other files stay.",
            "row": Setting(may_differ=SELECTION, repeat="never"),
        },
    )

    def __post_init__(self) -> None:
        self.model = find_family(self.model).name  # an alias stands for it
        check_ranges(self)
        for name in self._VALID_DICT_FIELDS:
            value = getattr(self, name)
            # Other texts are names of files, except of settings that have no file.
            if name.endswith("kwargs") or str(value).startswith("{"):
                read_table(name, value)
        self.class_weights = read_class_weights(self.class_weights)
        self._check_precision()
        if self.resume and self.overwrite:
            raise InputError("--resume and --overwrite exclude each other: keep the run, or delete it.")
        if self.seed + self.seeds - 1 not in SEED:
            raise InputError(f"--seed {self.seed} with --seeds {self.seeds} passes {SEED.high}. Pass a smaller --seed.")
        raise_problems(find_contradictions(self) + find_refused(self))
        if self.output_dir is None:  # not in a run: see `hfprobe.settings.run_config.build_run`
            self.output_dir = default_output_dir(self.model, self.recipe, seed=self.seed)
        bf16: bool = vars(self)["bf16"]
        self.bf16 = bf16 and not self._is_on_cpu()  # otherwise transformers demands --use_cpu where no GPU is
        adopt_compilation(self)
        super().__post_init__()
        self.bf16 = bf16
        if bf16 or self.precision == "bf16":
            self.mixed_precision = "bf16"
        elif self.precision == "fp32":
            self.mixed_precision = "no"
        check_accelerator_config(self)
        check_schedule(self)
        check_optim_args(self)
        self._check_reporters()

    def _check_reporters(self) -> None:
        from transformers.integrations import get_available_reporting_integrations  # takes seconds

        installed = get_available_reporting_integrations()
        lacking = sorted(set(self.report_to) - set(installed))
        if lacking:
            raise InputError(
                f"--report_to is {shorten(', '.join(lacking))}, which is unknown or not installed. Installed: "
                f"{', '.join(installed)}. Pass one of them, or none."
            )

    @property
    def recorded_precision(self) -> str:
        """What the forward and backward pass compute in: fp32, bf16, fp16; auto until the model is built."""
        asked = DEFAULT_PRECISION if self.precision is None else self.precision
        is_open = asked == "auto" and self.mixed_precision == "no"
        return "auto" if is_open else PRECISIONS[self.mixed_precision]

    def _is_on_cpu(self) -> bool:
        return bool(self.use_cpu or strtobool(os.environ.get("ACCELERATE_USE_CPU", "False")) or not has_accelerator())

    def _check_precision(self) -> None:
        """Raise InputError for a precision that this machine emulates or ignores."""
        # `accelerate launch` passes its configuration in the environment; it counts where no flag says otherwise.
        flagged = self.bf16 or self.fp16 or self.precision in ("fp32", "bf16")
        configured = "no" if flagged else os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        if configured not in PRECISIONS:
            raise InputError(f"mixed_precision is {configured} in accelerate's configuration. Allowed: no, bf16, fp16.")
        if self.precision == "bf16" and not self.bf16:
            self.check_emulation("--precision bf16", remedy="Pass --precision fp32, or add --bf16 to train so anyway.")
        if self.fp16 and self._is_on_cpu():
            raise InputError("--fp16 needs a GPU, and none is here. Leave it out.")
        what, remedy = f"mixed_precision: {configured} in accelerate's configuration", "Set it to 'no'."
        if configured == "fp16" and self._is_on_cpu():
            raise InputError(f"{what} needs a GPU, and none is here. {remedy}")
        if configured == "bf16":
            self.check_emulation(what, remedy=remedy)

    def check_emulation(self, what: str, *, remedy: str) -> None:
        """Raise InputError where the device of this run has no native bfloat16 support.

        Args:
            what: the setting that asks for bfloat16, as the message names it.
        """
        import torch

        on_cpu = self._is_on_cpu()
        found, reason = preferred_precision(torch.device("cpu" if on_cpu else torch.accelerator.current_accelerator()))
        if found == "fp32" and on_cpu:
            raise InputError(
                f"{what} needs a GPU, or a CPU with native bfloat16 support; this one has none and takes "
                f"{EMULATION}. {remedy}"
            )
        if found == "fp32":
            raise InputError(f"{what} would be slower than float32: {reason}. {remedy}")

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """Steps of the warm-up. One that is a share of the run ends before the run's last step, however short."""
        steps = super().get_warmup_steps(num_training_steps)
        return min(steps, num_training_steps - 1) if self.warmup_steps < 1 else steps
