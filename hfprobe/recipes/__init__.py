"""Flags and recipes of each model, apart from the models because those take seconds to import.

The contract, held for every module by tests/test_models.py:

- `RECIPES`: recipe name -> values for fields of `Options` and `hfprobe.config.RunArguments`; the first is default;
- `SANITY_LEARNING_RATE`: of Adam, to overfit one batch;
- `Options`: a dataclass, the model's own command-line flags. A field that any recipe sets has no default: its value
  comes from a recipe (`recipe_options`). `ignored_settings()` names settings without effect, each with the reason.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import fields
from types import ModuleType
from typing import Any

from hfprobe.errors import InputError

# Groups of settings that a model may leave without effect.
AUGMENTATION = ("augment", "crop_shift", "crop_padding", "flips")
GRADIENT_TRAINING = (
    *("num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("learning_rate", "lr_scale", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "weight_decay"),
    *("optimizer", "optim", "optim_args", "optim_target_modules", "adam_beta1", "adam_beta2", "adam_epsilon"),
    *("muon_learning_rate", "muon_momentum", "max_grad_norm", "label_smoothing_factor", "patience"),
    *("eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "save_strategy", "save_steps", "save_total_limit"),
    *("save_only_model", "load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
    *("logging_strategy", "logging_steps", "logging_first_step", "logging_nan_inf_filter", "histogram_epochs"),
    *("profile", "data_seed", "ignore_data_skip", "train_sampling_strategy", "auto_find_batch_size"),
    *("activation_checkpointing", "activation_checkpointing_kwargs", "gradient_checkpointing"),
    *("gradient_checkpointing_kwargs", "torch_empty_cache_steps"),
)


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


def recipe_values(model: str, recipe: str | None = None) -> dict[str, Any]:
    """The table of a model's recipe, and its name under `recipe`; None: the first recipe.

    Raises:
        InputError: no such model, no such recipe.
    """
    known = recipe_module(model).RECIPES
    recipe = recipe or next(iter(known))
    if recipe not in known:
        raise InputError(f"Unknown recipe '{recipe}' for model '{model}'. Available: {', '.join(known)}.")
    return known[recipe] | {"recipe": recipe}


def recipe_options(model: str, recipe: str | None = None, **values: Any) -> Any:
    """The Options of a model's recipe, with `values` in place of the recipe's own.

    Raises:
        InputError: no such model, no such recipe.
    """
    options = recipe_module(model).Options
    own = {field.name for field in fields(options)}
    return options(**{name: value for name, value in recipe_values(model, recipe).items() if name in own} | values)
