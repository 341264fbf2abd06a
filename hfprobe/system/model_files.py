"""The files of a model folder, as transformers names them; its own constants are slow to import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
PROCESSOR_FILE = "preprocessor_config.json"


def read_run(folder: Path) -> dict[str, Any]:
    """What the config of a model says of its training run; empty if it is damaged, or not of a run."""
    try:
        run = json.loads((folder / CONFIG_FILE).read_text())["run"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return run if isinstance(run, dict) else {}
