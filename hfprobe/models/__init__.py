"""The models of the command line: each folder here is one, see `hfprobe.models.base`."""

from __future__ import annotations

import importlib
import json
import pkgutil
from reprlib import repr as shortened
from typing import Any

from hfprobe.models.base import ModelFamily
from hfprobe.system.errors import InputError, shorten


def families() -> list[ModelFamily]:
    """Every model, sorted by name."""
    folders = [module.name for module in pkgutil.iter_modules(__path__) if module.ispkg]
    return sorted((importlib.import_module(f"{__name__}.{folder}").FAMILY for folder in folders), key=lambda f: f.name)


def available_models() -> list[str]:
    """Names of the models, sorted."""
    return [family.name for family in families()]


def find_family(name: str) -> ModelFamily:
    """The model with a name or alias.

    Raises:
        InputError: no such model.
    """
    for family in families():
        if name in (family.name, *family.aliases):
            return family
    raise InputError(
        f"Unknown model '{shorten(name)}'. Available: {', '.join(available_models())}. To add one, write a "
        "folder of hfprobe/models with an object FAMILY."
    )


def family_of(model: Any) -> ModelFamily:
    """The family that a PreTrainedModel belongs to."""
    return next(family for family in families() if family.model_class is type(model))


def build_model(name: str, *, labels: list[str], options: Any) -> tuple[Any, Any]:
    """A fresh model and the image processor that goes with it.

    Args:
        labels: class names, in the order of the label numbers.
        options: the family's `Options`: `make_run(model=name, recipe=...).model`, or its `recipe_options()`.

    Raises:
        InputError: no such model, or an option that cannot be used.
    """
    return find_family(name).build(options=options, labels=labels)


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
    family_of(model).check_preprocessing(model, values)


def register_models() -> list[type]:
    """Import every model, so that transformers' Auto classes know them without running code from a model folder.

    Returns:
        The models' classes.
    """
    return [family.model_class for family in families()]
