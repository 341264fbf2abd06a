"""The models of the command line: `--model cnn` is `hfprobe/models/cnn.py`, its flags are in `hfprobe/recipes/cnn.py`.

The contract, held for every module by tests/test_models.py:

- `HUB_NAME`: the name in the hub folder, after `hfprobe/`;
- `MODEL`: the PreTrainedModel; its config class refuses invalid values, and its `check_preprocessing(values)` refuses
  the values (as in preprocessor_config.json) of an image processor that it was not made for, both with a ValueError;
- `build(options=..., labels=...)` -> (PreTrainedModel, image processor).

Modules are self-contained (they import no other part of hfprobe when transformers loads them): a pushed model
carries a copy of its own file.
"""

from __future__ import annotations

import importlib
import json
from reprlib import repr as shortened
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
    """Refuse an image processor that a model was not made for.

    Raises:
        InputError: what does not fit.
    """
    try:
        check_preprocessing(model, json.loads(processor.to_json_string()))
    except ValueError as error:
        raise InputError(f"{error}. Use the image processor that build_model gives.") from error


def check_preprocessing(model: Any, values: dict[str, Any]) -> None:
    """Refuse an image processor's values, as in preprocessor_config.json, that a model was not made for.

    Raises:
        ValueError: the value that was found, and what is allowed.
    """
    for name, low in (("image_mean", 0), ("image_std", 0.001)):  # of pixels from 0 to 1
        found = values.get(name)
        fits = isinstance(found, list) and len(found) == 3 and all(type(value) in (int, float) for value in found)
        if not fits or not all(low <= value <= 1 for value in found):
            raise ValueError(f"The image processor's {name} is {shortened(found)}; allowed: 3 numbers from {low} to 1")
    model.check_preprocessing(values)


def register_models() -> list[type]:
    """Import every model, so that transformers' Auto classes know them without running code from a model folder.

    Returns:
        The models' classes.
    """
    return [model_module(name).MODEL for name in available_models()]
