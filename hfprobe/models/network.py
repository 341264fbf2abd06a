"""What results record of a model: its network, on which the inference cost depends, and its training."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hfprobe.models import family_of

if TYPE_CHECKING:  # slow to import
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Network:
    """What the cost of a forward pass depends on; it does not depend on the values of the weights.

    Attributes:
        input: channels, height, width.
        tensors: a digest of the names, shapes and dtypes of all weights and buffers.
    """

    architecture: str
    input: list[int]
    classes: int
    parameters: int
    tensors: str

    def __str__(self) -> str:
        _, height, width = self.input
        size = f"{height} x {width} pixels, {self.classes:,} classes, {self.parameters:,} parameters"
        return f"{self.architecture}, {size}"


def describe_network(model: PreTrainedModel, *, side: int) -> Network:
    """The network of a model with inputs of `side` x `side` pixels."""
    tensors = sorted((name, list(value.shape), str(value.dtype)) for name, value in model.state_dict().items())
    # Without the tag with which timm names the weights: resnet18.a1_in1k is a resnet18.
    backbone = family_of(model).describe(model).get("backbone", "").partition(".")[0]
    return Network(
        architecture=backbone or model.config.model_type.removeprefix("hfprobe-"),
        input=[3, side, side],
        classes=model.config.num_labels,
        parameters=model.num_parameters(),
        tensors=hashlib.sha256(json.dumps(tensors).encode()).hexdigest(),
    )
