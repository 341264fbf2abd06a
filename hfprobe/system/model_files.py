"""The files of a model folder, as transformers names them; its own constants are slow to import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hfprobe.system.files import read_json

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
PROCESSOR_FILE = "preprocessor_config.json"
# The folder in it that holds ONNX files, where standard clients look for them.
EXPORT_FOLDER = "onnx"


def read_run(folder: Path) -> dict[str, Any]:
    """What the config of a model says of its training run; empty if it is damaged, or not of a run."""
    run = read_json(folder / CONFIG_FILE).get("run")
    return run if isinstance(run, dict) else {}
