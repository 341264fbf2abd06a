"""From a trained model to ONNX graphs: the network alone, and with its preprocessing and its probabilities."""

from __future__ import annotations

import json
import re
from typing import Any

import onnx
import torch
from transformers import BaseImageProcessor, PreTrainedModel

import hfprobe
from hfprobe.data.pixels.transforms import input_size
from hfprobe.models import class_names_of, family_of
from hfprobe.models.thresholds import Thresholds
from hfprobe.system.errors import InputError, first_line
from hfprobe.system.records import to_json
from hfprobe.tasks.export.resizing import IR_VERSION, OPSET

LARGEST_BATCH = 4096


class _Logits(torch.nn.Module):
    """A model with one input and one output, as ONNX has them."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=pixel_values).logits


def build_network(model: PreTrainedModel, processor: BaseImageProcessor) -> onnx.ModelProto:
    """The network: `pixel_values` (B, 3, h, w) float32 -> `logits` (B, C) float32.

    Raises:
        InputError: it has an operator that the exporter does not know, which is named with the backbone.
    """
    side = input_size(processor)
    example = torch.zeros(2, 3, side, side)  # a batch of 1 would fix the size of the batch
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    try:
        program = torch.onnx.export(
            _Logits(model).eval(),
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["pixel_values"],
            output_names=["logits"],
            dynamic_shapes={"pixel_values": {0: batch}},
        )
    except Exception as error:  # the exporter raises its own errors and those of all layers below
        raise InputError(_explain(error, model)) from error
    assert program is not None
    network = program.model_proto
    _remove_traces(network)
    network.ir_version = IR_VERSION
    onnx.checker.check_model(network, full_check=True)
    return network


def _explain(error: BaseException, model: PreTrainedModel) -> str:
    """A message that names the operator that the exporter does not know, or its first reason."""
    named = family_of(model).describe(model).get("backbone", type(model).__name__)
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    unknown = re.search(r"No ONNX function found for (?:<OpOverload\(op='([\w.:]+)'|(\S+))", str(cause))
    reason = (
        f"the exporter does not know its operator {unknown[1] or unknown[2]}"
        if unknown
        else first_line(Exception(cause))
    )
    return f"'{named}' cannot be exported: {reason}. Train with another backbone, or update torch and onnxscript."


def _remove_traces(network: onnx.ModelProto) -> None:
    """Remove what the exporter notes of the source code: it holds the paths of this machine."""
    graph = network.graph
    for part in [graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    network.ClearField("metadata_props")


def add_preprocessing(
    network: onnx.ModelProto, preprocessing: onnx.ModelProto, *, temperature: float
) -> onnx.ModelProto:
    """A network behind its preprocessing: `image` (H, W, 3) uint8 -> `logits` and `probabilities`, each (1, C)."""
    first = onnx.compose.add_prefix(preprocessing, "preprocessing/", rename_inputs=False, rename_outputs=False)
    # `pixel_values` is the name of an output here and of an input there.
    whole = onnx.compose.merge_models(first, network, io_map=[("pixel_values", "pixel_values")], name="classifier")
    classes = network.graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    del whole.graph.output[:]
    divisor = onnx.numpy_helper.from_array(torch.tensor(temperature).numpy(), "temperature")
    whole.graph.initializer.append(divisor)
    whole.graph.node.append(onnx.helper.make_node("Div", ["logits", "temperature"], ["calibrated_logits"]))
    whole.graph.node.append(onnx.helper.make_node("Softmax", ["calibrated_logits"], ["probabilities"], axis=-1))
    for name in ("logits", "probabilities"):
        whole.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, classes]))
    del whole.graph.value_info[:]  # those of the network have its free batch
    onnx.checker.check_model(whole, full_check=True)
    return whole


def describe(graph: onnx.ModelProto, model: PreTrainedModel, *, name: str, revision: str, precision: str) -> None:
    """Write to a graph which model it is and what its outputs mean, for a client that has nothing else."""
    thresholds = Thresholds.of(model)
    facts: dict[str, Any] = {
        "model": name,
        "revision": revision,
        "hfprobe_version": hfprobe.__version__,
        "exporter": f"torch.onnx {torch.__version__}",
        "opset": OPSET,
        "precision": precision,
        "class_names": class_names_of(model),
        "temperature": getattr(model.config, "calibration_temperature", None),
        "thresholds": None if thresholds is None else to_json(thresholds),
    }
    graph.producer_name, graph.producer_version = "hfprobe", hfprobe.__version__
    onnx.helper.set_model_props(graph, {key: _text(value) for key, value in facts.items()})


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
