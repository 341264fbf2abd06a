"""run.json, the record of a run: what it says, and how it is read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfprobe.data.splits.parts import Edits, Membership
from hfprobe.models import find_family
from hfprobe.models.passport import Passport, Taught
from hfprobe.settings.run_config import RunConfig
from hfprobe.statistics.imbalance import Baseline
from hfprobe.system import provenance
from hfprobe.system.records import RecordFile, to_json
from hfprobe.training.run_files import RUN_FILE

if TYPE_CHECKING:  # slow to import
    from accelerate import Accelerator
    from transformers import PreTrainedModel

    from hfprobe.data.splits.decoded import Splits


@dataclass(frozen=True)
class RunResult:
    """The result of a run on the validation images.

    Attributes:
        metrics: `accuracy`, `macro_f1`, `balanced_accuracy` and `loss` of the weights that the model holds.
        n_validation: number of validation images.
        images_per_class: numbers of validation images.
        epochs: number of epochs trained; None where the weights were solved in closed form.
        best_epoch: the epoch whose weights the model holds; None likewise.
        seconds: of training with its evaluations, and of feature extraction, even if an earlier run did it.
        refit: whether the weights were solved on train + validation after that: `metrics` are of those before.
    """

    metrics: dict[str, float]
    baseline: Baseline
    n_validation: int
    images_per_class: list[int]
    epochs: float | None
    best_epoch: float | None
    seconds: float
    refit: bool = False


@dataclass(frozen=True)
class Pushed:
    """The revision that a run pushed; `hub_dir` is a path from the run folder, as both may be moved together."""

    model: str
    revision: str
    hub_dir: str


@dataclass(frozen=True)
class Config:
    """The settings of a run that have an effect, see `RunConfig.to_dict`."""

    data: dict[str, Any]
    model: dict[str, Any]
    training: dict[str, Any]


@dataclass(frozen=True)
class RunRecord(RecordFile):
    """What run.json holds.

    Attributes:
        division, left_out, identical_images, membership, edits: of `hfprobe.data.splits.decoded.Splits.summary`.
        data_fingerprint: of the images of training and validation.
        class_weights: class name -> weight in the loss; None without weights.
        images: part -> number of images.
        network: what the model says of itself, see `ModelFamily.describe`.
        accelerator: of `describe_accelerator`.
        effective_batch_size: images per optimizer step; None where the weights were solved in closed form.
        git_sha: the commit of hfprobe; None outside a checkout.
        device: type of the device of training, such as cpu.
        solution: what a solver chose on validation.
        result: None until the training has ended.
        pushed: None until the model was pushed.
    """

    FILE = RUN_FILE
    WHAT = "record of the run"
    REMEDY = "Start the run again with --overwrite, or keep it and pass another --output_dir."

    model: str
    recipe: str | None
    seed: int
    config: Config
    class_names: list[str]
    source: str
    division: str
    left_out: dict[str, list[str]]
    identical_images: list[str]
    membership: dict[str, Membership] | None
    data_fingerprint: str
    class_weights: dict[str, float] | None
    images: dict[str, int]
    parameters: int
    trainable_parameters: int
    network: dict[str, Any]
    precision: str
    accelerator: dict[str, Any]
    processes: int
    effective_batch_size: int | None
    git_sha: str | None
    versions: dict[str, str]
    hardware: provenance.Hardware
    device: str
    edits: Edits = field(default_factory=Edits)
    solution: dict[str, Any] = field(default_factory=dict)
    taught: Taught | None = None
    result: RunResult | None = None
    pushed: Pushed | None = None


def describe_accelerator(accelerator: Accelerator) -> dict[str, Any]:
    """What accelerate does with the model, whatever flag, variable or file it was told by."""
    state = accelerator.state
    compiler = state.dynamo_plugin.to_dict()
    plugins = ("deepspeed_plugin", "fsdp_plugin", "megatron_lm_plugin")
    return {
        "distributed_type": accelerator.distributed_type.value,
        "mixed_precision": accelerator.mixed_precision,
        "dynamo": compiler if compiler["backend"] != "no" else None,
        "plugins": [name for name in plugins if getattr(state, name, None) is not None],
    }


def describe_run(
    *, config: RunConfig, model: PreTrainedModel, splits: Splits, accelerator: dict[str, Any]
) -> RunRecord:
    """The record of a run before there is a result.

    Args:
        accelerator: of `describe_accelerator`.
    """
    parameters, passport = list(model.parameters()), Passport.of(model)
    return RunRecord(
        model=config.training.model,
        recipe=config.training.recipe,
        seed=config.training.seed,
        config=Config(**to_json(config.to_dict())),
        class_names=splits.class_names,
        source=splits.source,
        division=splits.summary.division,
        left_out=splits.summary.left_out,
        identical_images=splits.summary.identical_images,
        membership=splits.summary.membership,
        data_fingerprint=splits.fingerprint,
        class_weights=None if passport is None else passport.class_weights,
        images={name: len(splits.part(name)) for name in ("train", "validation")},
        parameters=sum(p.numel() for p in parameters),
        trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        network=find_family(config.training.model).describe(model),
        precision=config.training.recorded_precision,
        accelerator=accelerator,
        processes=config.training.world_size,
        effective_batch_size=config.effective_batch_size,
        git_sha=provenance.git_sha(),
        versions=provenance.versions(),
        hardware=provenance.find_hardware(),
        device=config.training.device.type,
        edits=splits.summary.edits,
        taught=None if passport is None else passport.taught,
    )


def path_from(folder: str | Path, place: str | Path) -> str:
    """The path of a place from a folder, without links, which have other folders above them."""
    return os.path.relpath(os.path.realpath(place), os.path.realpath(folder))
