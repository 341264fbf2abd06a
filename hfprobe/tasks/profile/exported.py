"""The ONNX files of a model's export, to be timed beside the model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from hfprobe.models.runtimes import RUNTIME_FILES
from hfprobe.system.errors import InputError, first_line
from hfprobe.system.model_files import EXPORT_FOLDER
from hfprobe.tasks.export.result import Export, check_export
from hfprobe.tasks.profile.result import Batch, Exported

logger = logging.getLogger(__name__)

Step = Callable[[], object]


@dataclass(frozen=True)
class Networks:
    """The ONNX files of a model folder that take `pixel_values`, in float32 and int8, and the record of their export.

    Attributes:
        export: None without one that can be timed.
    """

    files: list[Path]
    export: Export | None

    def describe(self, batches: dict[str, dict[int, Batch]]) -> dict[str, Exported]:
        """Name of each file -> what the profile says of it.

        Args:
            batches: name of each file -> batch size -> cost.
        """
        if self.export is None:
            return {}
        return {
            file.name: Exported(
                disk_bytes=file.stat().st_size,
                batches=batches[file.name],
                parity=self.export.parity[file.name],
                split=self.export.split,
                images_fingerprint=self.export.images_fingerprint,
            )
            for file in self.files
        }


def find_networks(folder: Path, *, name: str, device: torch.device) -> Networks:
    """The ONNX files of a model folder; none without an export.

    A line says why an export is not timed: it is stale or damaged, onnxruntime is not installed, or the model runs on a
    GPU, which the files would not use.
    """
    place = folder / EXPORT_FOLDER
    if not place.is_dir():
        return Networks([], None)
    try:
        if device.type != "cpu":
            raise InputError("ONNX files are timed on the CPU only.")
        if find_spec("onnxruntime") is None:
            raise InputError("It needs onnxruntime: pip install 'hfprobe[export]'.")
        export = check_export(folder)
    except InputError as error:
        logger.warning("The export of %s is not timed. %s", name, first_line(error))
        return Networks([], None)
    return Networks([place / file for file in RUNTIME_FILES.values() if file in export.files], export)


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
