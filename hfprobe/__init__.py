"""Decide between a small CNN trained from scratch and a linear probe on a frozen pretrained backbone.

    import hfprobe

    data = hfprobe.load_images("uoft-cs/cifar10", classes=["cat", "dog"])
    cnn = hfprobe.train("cnn", data, epochs=20)
    probe = hfprobe.train("probe", data, backbone="resnet18.a1_in1k")
    print(hfprobe.compare(cnn.evaluate(), probe.evaluate()).verdict)

Everything is imported at its first use: `import hfprobe` alone takes milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hfprobe.api import Model, audit, compare, decide, evaluate, load, load_images, save_report, train
    from hfprobe.data.splits.images import Images
    from hfprobe.system.errors import CheckFailedError, InputError, MachineError
    from hfprobe.tasks.audit.result import Audit
    from hfprobe.tasks.compare.result import Comparison
    from hfprobe.tasks.decide.result import Decision
    from hfprobe.tasks.evaluate.result import EvalResult
    from hfprobe.tasks.export.result import Export
    from hfprobe.tasks.predict.result import Predictions

# Public name -> the module that has it.
_HOMES = {
    **dict.fromkeys(("audit", "compare", "decide", "evaluate"), "hfprobe.api"),
    **dict.fromkeys(("load", "load_images", "save_report", "train"), "hfprobe.api"),
    "Model": "hfprobe.trained_model",
    "Audit": "hfprobe.tasks.audit.result",
    "Comparison": "hfprobe.tasks.compare.result",
    "Decision": "hfprobe.tasks.decide.result",
    "Images": "hfprobe.data.splits.images",
    "Predictions": "hfprobe.tasks.predict.result",
    "EvalResult": "hfprobe.tasks.evaluate.result",
    "Export": "hfprobe.tasks.export.result",
    **dict.fromkeys(("CheckFailedError", "InputError", "MachineError"), "hfprobe.system.errors"),
}

__all__ = [
    "Audit",
    "CheckFailedError",
    "Comparison",
    "Decision",
    "EvalResult",
    "Export",
    "Images",
    "InputError",
    "MachineError",
    "Model",
    "Predictions",
    "audit",
    "compare",
    "decide",
    "evaluate",
    "load",
    "load_images",
    "save_report",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hfprobe' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
