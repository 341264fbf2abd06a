"""The models of the command line: one per subfolder, and those that other packages register as entry points.

`hfprobe.models.base` defines what a model provides.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any

from hfprobe.models.base import ModelFamily
from hfprobe.system.errors import InputError, first_line, shorten

if TYPE_CHECKING:  # slow to import
    from transformers import BaseImageProcessor, PreTrainedModel

ENTRY_POINTS = "hfprobe.models"


def families() -> list[ModelFamily]:
    """All models, sorted by name.

    Raises:
        InputError: a package that registers a model cannot be imported.
    """
    folders = [module.name for module in pkgutil.iter_modules(__path__) if module.ispkg]
    found = [importlib.import_module(f"{__name__}.{folder}").FAMILY for folder in folders]
    return sorted([*found, *_registered()], key=lambda family: family.name)


@cache
def _registered() -> tuple[ModelFamily, ...]:
    """The models of other packages: entry points of the group ENTRY_POINTS, each an object such as `pixels:FAMILY`."""
    found = []
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            found.append(entry.load())
        except Exception as error:  # whatever the code of another package raises
            raise InputError(
                f"The model '{entry.name}' ({entry.value}) cannot be imported: {first_line(error)}. Repair or "
                "uninstall its package."
            ) from error
    return tuple(found)


def available_models() -> list[str]:
    """Names of the models, sorted."""
    return [family.name for family in families()]


def find_family(name: str) -> ModelFamily:
    """The model with the given name or alias.

    Raises:
        InputError: the model does not exist.
    """
    for family in families():
        if name in (family.name, *family.aliases):
            return family
    raise InputError(
        f"Unknown model '{shorten(name)}'. Available: {', '.join(available_models())}. To add one, write a "
        "folder of hfprobe/models with an object FAMILY, or register it as an entry point."
    )


def family_of(model: PreTrainedModel) -> ModelFamily:
    """The family of a model."""
    return next(family for family in families() if family.model_class is type(model))


def class_names_of(model: PreTrainedModel) -> list[str]:
    """The classes of a model, in the order of the label numbers."""
    return [model.config.id2label[number] for number in range(model.config.num_labels)]


def build_model(name: str, *, labels: list[str], options: Any) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """A new model and its image processor.

    Args:
        labels: class names, in the order of the label numbers.
        options: the family's `Options`: `make_run(model=name, recipe=...).model`, or its `recipe_options()`.

    Raises:
        InputError: the model does not exist, or an option cannot be used.
    """
    return find_family(name).build(options=options, labels=labels)


def check_processor(model: PreTrainedModel, processor: BaseImageProcessor) -> None:
    """Check that an image processor is the one that a model was made for.

    Raises:
        InputError: a setting of the image processor does not match the model.
    """
    try:
        check_preprocessing(model, json.loads(processor.to_json_string()))
    except ValueError as error:
        raise InputError(f"{error}. Use the image processor that build_model returns.") from error


def check_preprocessing(model: PreTrainedModel, values: dict[str, Any]) -> None:
    """Check that the settings of an image processor are those that a model was made for.

    Args:
        values: the content of preprocessor_config.json.

    Raises:
        ValueError: a setting does not match; the message names the value found and what is allowed.
    """
    for name, low in (("image_mean", 0), ("image_std", 0.001)):  # of pixels from 0 to 1
        found = values.get(name)
        if not (
            isinstance(found, list)
            and len(found) == 3
            and all(type(value) in (int, float) and low <= value <= 1 for value in found)
        ):
            raise ValueError(f"The image processor's {name} is {shortened(found)}; allowed: 3 numbers from {low} to 1")
    family_of(model).check_preprocessing(model, values)


def register_models() -> list[type[PreTrainedModel]]:
    """Import all models, so that the Auto classes of transformers know them without running code from a model folder.

    Returns:
        The classes of the models.
    """
    return [family.model_class for family in families()]
