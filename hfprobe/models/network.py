"""What the inference cost of a model depends on."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from hfprobe.models import family_of

if TYPE_CHECKING:  # slow to import
    from transformers import PreTrainedModel


def describe_network(model: PreTrainedModel, *, side: int) -> dict[str, Any]:
    """What the cost of a forward pass depends on; it does not depend on the values of the weights.

    Args:
        side: side of the input in pixels.

    Returns:
        JSON-able, equal for two models if they run the same network on inputs of one size: `architecture`, `input`
        (channels, height, width), `classes`, `parameters`, and `tensors`, a digest of the names, shapes and dtypes of
        all weights and buffers.
    """
    tensors = sorted((name, list(value.shape), str(value.dtype)) for name, value in model.state_dict().items())
    # Without the tag with which timm names the weights: resnet18.a1_in1k is a resnet18.
    backbone = family_of(model).describe(model).get("backbone", "").partition(".")[0]
    return {
        "architecture": backbone or model.config.model_type.removeprefix("hfprobe-"),
        "input": [3, side, side],
        "classes": model.config.num_labels,
        "parameters": model.num_parameters(),
        "tensors": hashlib.sha256(json.dumps(tensors).encode()).hexdigest(),
    }
