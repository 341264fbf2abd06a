"""run.json, the record of a run: what it says, and how it is read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfprobe.models import find_family
from hfprobe.settings.run_config import RunConfig
from hfprobe.system import provenance
from hfprobe.system.errors import InputError
from hfprobe.system.files import write_json
from hfprobe.system.precision import PRECISIONS
from hfprobe.training.run_files import RUN_FILE

if TYPE_CHECKING:  # slow to import
    from accelerate import Accelerator
    from transformers import PreTrainedModel

    from hfprobe.data.splits.images import Splits

# What a record must hold to be compared; early versions of hfprobe wrote only a part of it.
NEEDED = ("model", "config", "class_names", "data_fingerprint", "processes", "effective_batch_size")
# What is recorded of how the images were divided.
SUMMARIZED = ("division", "left_out", "identical_images", "membership")


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
) -> dict[str, Any]:
    """What `run.json` holds before there is a result.

    Args:
        accelerator: of `describe_accelerator`.
    """
    parameters = list(model.parameters())
    weights = model.config.run.get("class_weights")
    return {
        "model": config.training.model,
        "recipe": config.training.recipe,
        "seed": config.training.seed,
        "config": config.to_dict(),
        "class_names": splits.class_names,
        "source": splits.source,
        **{name: splits.summary[name] for name in SUMMARIZED if name in splits.summary},
        "data_fingerprint": splits.fingerprint,
        **({"class_weights": weights} if weights else {}),
        "images": {name: len(splits.part(name)) for name in ("train", "validation")},
        "parameters": sum(p.numel() for p in parameters),
        "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        **find_family(config.training.model).describe(model),
        "precision": config.training.recorded_precision,
        "accelerator": accelerator,
        "processes": config.training.world_size,
        "effective_batch_size": config.effective_batch_size,
        "git_sha": provenance.git_sha(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware() | {"device": config.training.device.type},
    }


def read_result(folder: str | Path, entry: str = "result") -> dict[str, Any] | None:
    """The result in the run.json of a run folder; None where the run has not ended.

    Args:
        entry: `result`, or `pushed`, see `record_push`.
    """
    try:
        return json.loads((Path(folder) / RUN_FILE).read_text()).get(entry)
    except (OSError, ValueError, AttributeError):
        return None


def record_push(folder: Path, *, name: str, commit: str, hub_dir: str) -> None:
    """Add to run.json what the run pushed; the hub folder as a path from the run folder: both may be moved together."""
    record = json.loads((folder / RUN_FILE).read_text())
    pushed = {"model": name, "revision": commit, "hub_dir": path_from(folder, hub_dir)}
    write_json(folder / RUN_FILE, record | {"pushed": pushed})


def path_from(folder: str | Path, place: str | Path) -> str:
    """The path of a place from a folder, without links, which have other folders above them."""
    return os.path.relpath(os.path.realpath(place), os.path.realpath(folder))


def find_precision(settings: dict[str, Any]) -> str:
    """fp32, bf16 or fp16: of the training settings in a record, also of earlier versions."""
    return settings.get("precision", PRECISIONS.get(settings.get("mixed_precision", "no"), "fp32"))


def read_record(folder: Path) -> dict[str, Any]:
    """The content of a run folder's run.json.

    Raises:
        InputError: it is missing or damaged, or an older version wrote it, without all that a comparison needs.
    """
    remedy = "Start the run again with --overwrite, or keep it and pass another --output_dir."
    path = folder / RUN_FILE
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(
            f"'{folder}' has checkpoints but no {RUN_FILE}, so no one can tell their run. {remedy}"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' is damaged, so the run cannot be resumed. {remedy}") from error
    settings = record.get("config") if isinstance(record, dict) else None
    lacking = [name for name in NEEDED if not isinstance(record, dict) or name not in record]
    if not isinstance(settings, dict):
        settings = {}
    lacking += [f"config.{name}" for name in ("data", "model", "training") if not isinstance(settings.get(name), dict)]
    if lacking:
        raise InputError(
            f"'{path}' lacks {', '.join(lacking)}: another version of hfprobe wrote it, and --resume cannot tell "
            f"whether it is the same run. {remedy}"
        )
    return record
