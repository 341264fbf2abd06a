"""The packages of the extra `export`, which hfprobe works without."""

from __future__ import annotations

from importlib.util import find_spec

from hfprobe.system.errors import InputError

PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def check_extra() -> None:
    """Check that the packages of the extra are installed; nothing is imported.

    Raises:
        InputError: one is missing.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(f"An export needs {', '.join(missing)}. Install the extra: pip install 'hfprobe[export]'")
