"""What run.json and the model card say about a run before it has a result."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from hfprobe.config.run import RunConfig
from hfprobe.data.splits import Splits
from hfprobe.models import find_family
from hfprobe.system import provenance

# Of accelerate's mixed_precision, as run.json and the card name them.
PRECISIONS = {"no": "fp32", "bf16": "bf16", "fp16": "fp16"}


def describe_run(*, config: RunConfig, model: PreTrainedModel, splits: Splits) -> dict[str, Any]:
    """What `run.json` holds before there is a result."""
    parameters = list(model.parameters())
    return {
        "model": config.training.model,
        "recipe": config.training.recipe,
        "seed": config.training.seed,
        "config": config.to_dict(),
        "class_names": splits.class_names,
        "source": splits.source,
        "data_fingerprint": splits.fingerprint,
        "images": {name: len(getattr(splits, name)) for name in ("train", "validation")},
        "parameters": sum(p.numel() for p in parameters),
        "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        **find_family(config.training.model).describe(model),
        "processes": config.training.world_size,
        "effective_batch_size": config.effective_batch_size,
        "git_sha": provenance.git_sha(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware() | {"device": config.training.device.type},
    }
