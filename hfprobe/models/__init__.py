"""The models of the command line. A module in this folder is a model: `--model cnn` is `hfprobe/models/cnn.py`.

The contract, held for every module by tests/test_models.py:

- `HUB_NAME`: the name in the hub folder, after `hfprobe/`;
- `RECIPES`: recipe name -> values for fields of `Options` and `hfprobe.config.RunArguments`; the first is default;
- `SANITY_LEARNING_RATE`: of Adam, to learn one batch by heart;
- `Options`: a dataclass, the model's own command-line flags;
- `build(options=..., labels=...)` -> (PreTrainedModel, image processor); the model may have a `check_processor`.

Modules are self-contained (they import no other part of hfprobe when transformers loads them): a pushed model
carries a copy of its own file.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Any

from hfprobe.errors import InputError


def available_models() -> list[str]:
    """Names of the models, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def model_module(name: str) -> ModuleType:
    """The module behind a model's name.

    Raises:
        InputError: no such model.
    """
    if name not in available_models():
        raise InputError(
            f"Unknown model '{name}'. Available: {', '.join(available_models())}. "
            f"To add one, write hfprobe/models/{name}.py."
        )
    return importlib.import_module(f"{__name__}.{name}")


def build_model(name: str, *, labels: list[str], options: Any = None) -> tuple[Any, Any]:
    """A fresh model and the image processor that goes with it.

    Args:
        labels: class names, in the order of the label numbers.
        options: an instance of the module's `Options`; its defaults where None.
    """
    module = model_module(name)
    return module.build(options=options or module.Options(), labels=labels)


def check_processor(model: Any, processor: Any) -> None:
    """Let a model refuse an image processor that it was not made for.

    Raises:
        InputError: what does not fit.
    """
    if hasattr(model, "check_processor"):
        try:
            model.check_processor(processor)
        except ValueError as error:
            raise InputError(str(error)) from error


def register_models() -> None:
    """Import every model, so that transformers' Auto classes know them without running code from a model folder."""
    for name in available_models():
        model_module(name)
