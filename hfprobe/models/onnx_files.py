"""Running ONNX files. Needs onnxruntime, which is in the extra `export`."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import torch


def open_session(file: Path | bytes, *, threads: int = 0) -> onnxruntime.InferenceSession:
    """A graph, ready to run on the processor.

    Args:
        threads: 0 for as many as torch uses.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    source = file if isinstance(file, bytes) else str(file)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def answer_pixels(session: onnxruntime.InferenceSession, pixels: torch.Tensor) -> torch.Tensor:
    """(B, C) float32 logits of a graph that takes `pixel_values`.

    Args:
        pixels: (B, 3, H, W) float32, in any memory format.
    """
    (logits,) = session.run(["logits"], {"pixel_values": pixels.contiguous().numpy()})
    return torch.from_numpy(logits)
