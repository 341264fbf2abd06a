"""What computes the answers of a loaded model: torch, or onnxruntime with a file of the model's export."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from hfprobe.models import family_of
from hfprobe.system.machine import find_device

if TYPE_CHECKING:  # slow to import
    import torch
    from transformers import BaseImageProcessor, PreTrainedModel

    from hfprobe.data.pixels.store import ImageSplit
    from hfprobe.models.base import Inputs

logger = logging.getLogger(__name__)

# torch; onnxruntime in float32; onnxruntime in int8.
Runtime = Literal["torch", "onnx", "int8"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
# The files of an export that take `pixel_values`, under the names that optimum and transformers.js expect.
RUNTIME_FILES: dict[Runtime, str] = {"onnx": "model.onnx", "int8": "model_quantized.onnx"}


def add_runtime(name: str, runtime: Runtime) -> str:
    """The name of a model on pages and in tables: with its runtime, unless that is torch."""
    return name if runtime == "torch" else f"{name} ({runtime})"


class Network(Protocol):
    """A loaded model that is ready to answer."""

    @property
    def runtime(self) -> Runtime:
        """What computes its answers."""

    @property
    def versions(self) -> dict[str, str]:
        """Package -> version of what the runtime needs beyond `hfprobe.system.provenance.PACKAGES`."""

    def inputs(self, processor: BaseImageProcessor, split: ImageSplit, *, name: str, mirror: bool = False) -> Inputs:
        """The images of a split as `answer` takes them; see `hfprobe.models.base.ModelFamily.inputs`."""

    def answer(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(B, C) float32 logits for a batch of `inputs`, or for `pixel_values` (B, 3, H, W) float32 alone."""


class TorchNetwork:
    """The model in torch, on the fastest device."""

    runtime: Runtime = "torch"

    def __init__(self, model: PreTrainedModel):
        self.device = find_device()
        self.model = model.to(self.device).eval()
        self.versions: dict[str, str] = {}

    def inputs(self, processor: BaseImageProcessor, split: ImageSplit, *, name: str, mirror: bool = False) -> Inputs:
        return family_of(self.model).inputs(self.model, processor, split, name=name, mirror=mirror)

    def answer(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return self.model(**{name: value.to(self.device) for name, value in inputs.items()}).logits.float()


class ExportedNetwork:
    """One of RUNTIME_FILES in onnxruntime, on the processor, on as many threads as torch uses.

    Its inputs are always pixels: a file has no features of a frozen part to start from.
    """

    def __init__(self, file: Path):
        import onnxruntime

        from hfprobe.models.onnx_files import open_session

        (self.runtime,) = (runtime for runtime, name in RUNTIME_FILES.items() if name == file.name)
        self.session = open_session(file)
        self.versions = {"onnxruntime": onnxruntime.__version__}
        if find_device().type != "cpu":
            logger.warning("Files of an export run on the CPU, so the GPU of this machine is not used.")

    def inputs(self, processor: BaseImageProcessor, split: ImageSplit, *, name: str, mirror: bool = False) -> Inputs:
        from hfprobe.data.pixels.store import ImageBatches

        return ImageBatches(split, processor=processor, mirror=mirror)

    def answer(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        from hfprobe.models.onnx_files import answer_pixels

        return answer_pixels(self.session, inputs["pixel_values"])


def open_network(model: PreTrainedModel, file: Path | None = None) -> Network:
    """A loaded model, ready to answer.

    Args:
        file: of its export, one of RUNTIME_FILES; None: the model in torch.
    """
    return TorchNetwork(model) if file is None else ExportedNetwork(file)
