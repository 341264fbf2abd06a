"""The ONNX files of a model's export, to be timed beside the model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from hfprobe.system.errors import InputError, first_line
from hfprobe.system.model_files import EXPORT_FOLDER
from hfprobe.tasks.export.result import INT8_NETWORK, NETWORK, check_export

logger = logging.getLogger(__name__)

Step = Callable[[], object]


def find_networks(folder: Path, *, name: str, device: torch.device) -> list[Path]:
    """The ONNX files of a model folder that take `pixel_values`, in float32 and in int8; empty without an export.

    A line says why an export is not timed: it is stale or damaged, onnxruntime is not installed, or the model runs on a
    GPU, which the files would not use.
    """
    place = folder / EXPORT_FOLDER
    if not place.is_dir():
        return []
    try:
        if device.type != "cpu":
            raise InputError("ONNX files are timed on the CPU only.")
        if find_spec("onnxruntime") is None:
            raise InputError("It needs onnxruntime: pip install 'hfprobe[export]'.")
        files = check_export(folder).files
    except InputError as error:
        logger.warning("The export of %s is not timed. %s", name, first_line(error))
        return []
    return [place / file for file in (NETWORK, INT8_NETWORK) if file in files]


def make_network_steps(file: Path, batches: dict[int, torch.Tensor]) -> dict[int, Step]:
    """Batch size -> a function that runs the file on one batch, on as many threads as torch uses.

    Args:
        batches: batch size B -> (B, 3, H, W) float32.
    """
    from hfprobe.models.onnx_files import open_session

    session = open_session(file)

    def make_step(pixels: np.ndarray) -> Step:
        return lambda: session.run(["logits"], {"pixel_values": pixels})

    return {size: make_step(np.ascontiguousarray(images.numpy())) for size, images in batches.items()}
