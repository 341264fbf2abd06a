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


def build_model(name: str, *, labels: list[str], options: Any) -> tuple[Any, Any]:
    """A fresh model and the image processor that goes with it.

    Args:
        labels: class names, in the order of the label numbers.
        options: the recipe module's `Options`: `make_run(model=name, recipe=...).model`, or `recipe_options`.

    Raises:
        InputError: no such model.
    """
    recipe_module(name)  # refuses an unknown name
    return model_module(name).build(options=options, labels=labels)


def initialize_from_images(model: Any, *, options: Any, pixel_values: Any) -> None:
    """Set first weights that the options derive from training images; nothing for most models.

    Args:
        pixel_values: (B, 3, H, W) float, some hundred training images as the image processor gives them.
    """
    if getattr(options, "first_filters", "random") == "principal":
        model.set_principal_filters(pixel_values)


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
