"""The contract of a model on the command line: one object per model, which general code calls and nothing else.

A model is a folder of `hfprobe/models` whose `__init__.py` holds an object `FAMILY`. Importing it must be fast, because
`--help` and wrong flags need its options and recipes: torch, timm and transformers are imported inside the methods.
tests/test_models.py holds the contract for every model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from reprlib import repr as shortened
from typing import Any

from hfprobe.system.errors import InputError, shorten

# What of an image processor decides what a model sees.
PREPROCESSING = ("image_processor_type", "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale")
PREPROCESSING += ("rescale_factor", "do_normalize", "do_pad", "pad_size")
STATISTICS = ("image_mean", "image_std")
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


class ModelFamily:
    """A model of the command line, with its flags, its recipes, and how it is built, fed and fitted.

    Attributes:
        name: after `--model`.
        aliases: other names that `--model` takes.
        hub_name: in the hub folder, after `hfprobe/`.
        Options: a dataclass, the model's own flags. A field that any recipe sets has no default: its value comes from
            a recipe. Its method `ignored_settings()` names settings without effect, each with the reason.
        RECIPES: recipe name -> values for fields of `Options`, `DataArguments` and `RunArguments`; the first recipe is
            the default.
        sanity_learning_rate: of Adam, to overfit one batch.
        fixed_statistics: whether the model takes images of one mean and standard deviation only, as a pretrained
            backbone does.
        profile_batch_size: images per batch that the model is profiled at, beside the sizes common to all models.
        memory_remedy: what to pass where `memory_needed` is more than the machine has.
    """

    name: str
    aliases: tuple[str, ...] = ()
    hub_name: str
    Options: type
    RECIPES: Mapping[str, Mapping[str, Any]]
    sanity_learning_rate: float = 1e-3
    fixed_statistics: bool = False
    profile_batch_size: int = 128
    memory_remedy: str = "a smaller --max_train_samples"

    @property
    def model_class(self) -> type:
        """The PreTrainedModel. Its config class refuses invalid values with a ValueError."""
        raise NotImplementedError

    def build(self, *, options: Any, labels: list[str]) -> tuple[Any, Any]:
        """A fresh model and the image processor that goes with it.

        Args:
            labels: class names, in the order of the label numbers.

        Raises:
            InputError: an option that cannot be used.
        """
        raise NotImplementedError

    def initialize(self, model: Any, *, options: Any, images: Any) -> None:
        """Set initial weights that depend on training images; nothing for most models.

        Args:
            images: an `hfprobe.data.store.ImageBatches` of the training images, not augmented.
        """
        return

    def inputs(
        self,
        model: Any,
        processor: Any,
        split: Any,
        *,
        name: str,
        options: Any = None,
        train: bool = False,
        augmentation: dict[str, Any] | None = None,
        seed: int = 0,
        mirror: bool = False,
    ) -> Any:
        """A split as Trainer and evaluation read it: pixels here; a model with a frozen part may give cached features.

        Args:
            split: an `hfprobe.data.store.ImageSplit`.
            name: of the split in progress bars and log lines, such as "test images".
            options: of the run; None in an evaluation.
            train: whether the inputs are trained on, and augmented.
            augmentation: keyword arguments of `hfprobe.data.transforms.crop_and_flip`; None: not augmented.
            seed: of the augmentation.
            mirror: every image mirrored.

        Returns:
            A dataset whose `__getitems__(positions)` gives a finished batch: keyword arguments of the model's `forward`
            with a leading dimension B, and `labels` (B,) int64. It has `set_epoch(epoch)`, `take(positions)` and
            `preparation_seconds`, what the inputs took to make.
        """
        from hfprobe.data.store import ImageBatches

        return ImageBatches(
            split, processor=processor, augment=augmentation if train else None, seed=seed, mirror=mirror
        )

    def is_solved(self, options: Any) -> bool:
        """Whether `solve` sets the weights, instead of gradient steps of the Trainer."""
        return False

    def solve(self, model: Any, *, train: Any, validation: Any, options: Any) -> dict[str, Any]:
        """Set the weights in closed form.

        Args:
            train, validation: what `inputs` gave.

        Returns:
            What was chosen on validation, by name, for run.json and the model card.
        """
        raise NotImplementedError(f"{self.name} is trained by gradient steps")

    def memory_needed(self, model: Any, *, options: Any, images: int) -> int:
        """Bytes of main memory that fitting takes beside the model, where they grow with the training images."""
        return 0

    def processor_for(self, model: Any) -> Any:
        """The image processor that a model was made for."""
        raise NotImplementedError

    def check_preprocessing(self, model: Any, values: dict[str, Any]) -> None:
        """Refuse an image processor whose pictures the model was not made for: a silent error of several points.

        Args:
            values: as in preprocessor_config.json.

        Raises:
            ValueError: the value that was found, and what is allowed.
        """
        expected = json.loads(self.processor_for(model).to_json_string())
        for name in PREPROCESSING + STATISTICS * self.fixed_statistics:
            # As JSON, because True == 1 == 1.0.
            if json.dumps(values.get(name), sort_keys=True) != json.dumps(expected.get(name), sort_keys=True):
                raise ValueError(
                    f"The image processor's {name} is {shortened(values.get(name))}; allowed: {expected.get(name)}"
                )

    def check_weights(self, model: Any) -> None:
        """Refuse weights that contradict the model's config, such as a frozen part that has changed.

        Raises:
            ValueError: found and expected values.
        """
        return

    def describe(self, model: Any) -> dict[str, Any]:
        """What run.json, metrics.json and the model card say of the model beside its parameters."""
        return {}

    def recipe_values(self, recipe: str | None = None) -> dict[str, Any]:
        """The values of a recipe, and its name under `recipe`; None: the first recipe.

        Raises:
            InputError: no such recipe.
        """
        recipe = next(iter(self.RECIPES)) if recipe is None else recipe
        if recipe not in self.RECIPES:
            known = ", ".join(self.RECIPES)
            raise InputError(f"Unknown recipe '{shorten(recipe)}' for model '{self.name}'. Available: {known}.")
        return {**self.RECIPES[recipe], "recipe": recipe}

    def recipe_options(self, recipe: str | None = None, **values: Any) -> Any:
        """The Options of a recipe, with `values` in place of the recipe's own.

        Raises:
            InputError: no such recipe.
        """
        own = {field.name for field in fields(self.Options)}
        chosen = {name: value for name, value in self.recipe_values(recipe).items() if name in own}
        return self.Options(**chosen | values)
