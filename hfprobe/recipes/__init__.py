"""Flags and recipes of each model, apart from the models because those take seconds to import.

The contract, held for every module by tests/test_models.py:

- `RECIPES`: recipe name -> values for fields of `Options` and `hfprobe.config.RunArguments`; the first is default;
- `SANITY_LEARNING_RATE`: of Adam, to learn one batch by heart;
- `Options`: a dataclass, the model's own command-line flags.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from hfprobe.errors import InputError


def available_models() -> list[str]:
    """Names of the models, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def recipe_module(name: str) -> ModuleType:
    """The flags and recipes of a model.

    Raises:
        InputError: no such model.
    """
    if name not in available_models():
        raise InputError(
            f"Unknown model '{name}'. Available: {', '.join(available_models())}. "
            f"To add one, write hfprobe/models/{name}.py and hfprobe/recipes/{name}.py."
        )
    return importlib.import_module(f"{__name__}.{name}")
