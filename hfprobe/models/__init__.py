"""The models of the command line: `--model cnn` is `hfprobe/models/cnn.py`, its flags are in `hfprobe/recipes/cnn.py`.

The contract, held for every module by tests/test_models.py:

- `HUB_NAME`: the name in the hub folder, after `hfprobe/`;
- `build(options=..., labels=...)` -> (PreTrainedModel, image processor); the model may have a `check_processor`.

Modules are self-contained (they import no other part of hfprobe when transformers loads them): a pushed model
carries a copy of its own file.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from hfprobe.errors import InputError
from hfprobe.recipes import available_models, recipe_module


def model_module(name: str) -> ModuleType:
    """The module behind the name of one of `available_models()`."""
    return importlib.import_module(f"{__name__}.{name}")


def build_model(name: str, *, labels: list[str], options: Any = None) -> tuple[Any, Any]:
    """A fresh model and the image processor that goes with it.

    Args:
        labels: class names, in the order of the label numbers.
        options: an instance of the recipe module's `Options`; its defaults where None.

    Raises:
        InputError: no such model.
    """
    options = options or recipe_module(name).Options()
    return model_module(name).build(options=options, labels=labels)


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
