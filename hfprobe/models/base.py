"""The interface of a model on the command line: one object per model; general code uses models only through it.

A model is a folder of `hfprobe/models` whose `__init__.py` holds an object `FAMILY`. Importing it must be fast, because
`--help` and error messages need its options and recipes: import torch, timm and transformers inside the methods.
tests/models/test_base.py checks this interface for every model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from hfprobe.system.errors import InputError, shorten

if TYPE_CHECKING:  # slow to import
    import numpy as np
    import torch
    from transformers import BaseImageProcessor, PreTrainedModel

    from hfprobe.data.pixels.store import ImageBatches, ImageSplit
    from hfprobe.data.splits.images import Images
    from hfprobe.models.answers import Solved, Views

# Settings of an image processor that change the input of a model.
PREPROCESSING = (
    *("image_processor_type", "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale"),
    *("rescale_factor", "do_normalize", "do_pad", "pad_size"),
)
STATISTICS = ("image_mean", "image_std")


class FamilyOptions(Protocol):
    """A dataclass of the flags of one model. A field may have a row (`hfprobe.system.setting`) in its metadata."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def ignored_settings(self) -> dict[str, str]:
        """Setting, or group of settings (AUGMENTATION, GRADIENT_TRAINING), that has no effect -> the reason."""


# The model class of a family, and the dataclass of its flags.
ModelT = TypeVar("ModelT", bound="PreTrainedModel")
OptionsT = TypeVar("OptionsT", bound=FamilyOptions)


class Inputs(Protocol):
    """A split as the Trainer and the evaluation read it: a dataset that returns complete batches."""

    @property
    def preparation_seconds(self) -> float:
        """Time in seconds that preparing the inputs took."""

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the augmentation depends on."""

    def take(self, positions: np.ndarray) -> Inputs:
        """The images at `positions`, (B,) integers."""

    def __len__(self) -> int: ...

    def __getitems__(self, positions: Sequence[int] | np.ndarray) -> dict[str, torch.Tensor]:
        """Keyword arguments of `forward` of the model with a leading dimension B, and `labels` (B,) int64."""


class ModelFamily(Generic[ModelT, OptionsT]):
    """A model of the command line: its flags, its recipes, and how it is built and trained, and on which inputs.

    Attributes:
        name: name of the model, the value of `--model`.
        aliases: other names that `--model` accepts.
        hub_name: name in the hub folder, after `hfprobe/`.
        Options: a dataclass of the model's own flags. A field that a recipe sets has no default, because its value
            always comes from a recipe. Its method `ignored_settings()` returns the settings without effect, each with
            the reason.
        RECIPES: recipe name -> values for fields of `Options`, `DataArguments` and `RunArguments`; the first recipe is
            the default.
        sanity_learning_rate: learning rate of Adam for the check that the model can overfit one batch.
        fixed_statistics: whether images must be normalised with one fixed mean and standard deviation, as for a
            pretrained backbone. Otherwise the training images set them, unless they are the default dataset.
        frozen_precision: name of the option with the precision of the frozen part; None: there is no such option.
        profile_batch_size: images per batch in a profile of this model, in addition to the sizes common to all models.
        chosen_option: the option of which a decision compares several values, such as the backbone; None: none.
        memory_remedy: what to pass if `memory_needed` exceeds the memory of the machine.
    """

    name: str
    aliases: tuple[str, ...] = ()
    hub_name: str
    Options: type[OptionsT]
    RECIPES: Mapping[str, Mapping[str, Any]]
    sanity_learning_rate: float = 1e-3
    fixed_statistics: bool = False
    frozen_precision: str | None = None
    profile_batch_size: int = 128
    chosen_option: str | None = None
    memory_remedy: str = "a smaller --max_train_samples"

    @property
    def model_class(self) -> type[ModelT]:
        """The class of the model; its config class raises a ValueError for invalid values."""
        raise NotImplementedError

    def complete_options(self, options: OptionsT, *, images: Images) -> OptionsT:
        """The options with a value for each that was left to the images, such as the size of the input.

        Args:
            images: those that the model will be trained on, not decoded.
        """
        return options

    def build(self, *, options: OptionsT, labels: list[str]) -> tuple[ModelT, BaseImageProcessor]:
        """A new model and its image processor.

        Args:
            labels: class names, in the order of the label numbers.

        Raises:
            InputError: an option cannot be used.
        """
        raise NotImplementedError

    def initialize(self, model: ModelT, *, options: OptionsT, images: ImageBatches) -> None:
        """Set initial weights that depend on the training images; most models have none.

        Args:
            images: the training images, without augmentation.
        """
        return

    def inputs(
        self,
        model: ModelT,
        processor: BaseImageProcessor,
        split: ImageSplit,
        *,
        name: str,
        options: OptionsT | None = None,
        train: bool = False,
        augmentation: dict[str, Any] | None = None,
        seed: int = 0,
        mirror: bool = False,
    ) -> Inputs:
        """A split as the Trainer and the evaluation read it.

        By default these are pixels; a model with a frozen part may return cached features instead.

        Args:
            name: name of the split in progress bars and log lines, such as "test images".
            options: the options of the run; None in an evaluation.
            train: whether the inputs are used for training, and therefore augmented.
            augmentation: keyword arguments of `hfprobe.data.pixels.transforms.crop_and_flip`; None: no augmentation.
            seed: seed of the augmentation.
            mirror: whether every image is mirrored.
        """
        from hfprobe.data.pixels.store import ImageBatches

        return ImageBatches(
            split, processor=processor, augment=augmentation if train else None, seed=seed, mirror=mirror
        )

    def answer_views(
        self,
        model: ModelT,
        processor: BaseImageProcessor,
        split: ImageSplit,
        *,
        views: Views,
        name: str,
        solved: Solved | None = None,
    ) -> tuple[np.ndarray, float]:
        """The logits of a trained model for each view of each image; the targets of a student.

        Args:
            name: of the images, in progress bars and log lines.
            solved: what the model was trained with. A model that can be solved again answers for each of these images
                as for one that it has not seen. None: none of them are in the split.

        Returns:
            (V, N, C) float32, and the seconds that they took, even if a cache held them.
        """
        from hfprobe.models.answers import answer_views

        return answer_views(model, processor, split, views=views, name=name)

    def list_variants(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Settings of each variant of the model that a decision chooses between on validation.

        Args:
            names: of the values of `chosen_option`; `auto` stands for all that can be had on this machine.

        Raises:
            InputError: none can be had.
        """
        return [{}]

    def is_solved(self, options: OptionsT) -> bool:
        """Whether `solve` computes the weights, instead of gradient steps of the Trainer."""
        return False

    def solve(
        self,
        model: ModelT,
        *,
        train: Inputs,
        validation: Inputs,
        options: OptionsT,
        class_weights: np.ndarray | None = None,
    ) -> dict[str, Any]:
        """Compute the weights with a solver, without the Trainer.

        Args:
            train, validation: what `inputs` returned.
            class_weights: (C,) weights of the classes in the loss; None: all are 1.

        Returns:
            Name -> value of what was chosen on validation, for run.json and the model card.
        """
        raise NotImplementedError(f"{self.name} is trained by gradient steps")

    def refit(
        self,
        model: ModelT,
        *,
        train: Inputs,
        validation: Inputs,
        options: OptionsT,
        solution: dict[str, Any],
        class_weights: np.ndarray | None = None,
    ) -> bool:
        """Compute the final weights on train + validation, if the options say so, after `solve` and its evaluation.

        Args:
            solution: what `solve` returned.
            train, validation, class_weights: see `solve`.

        Returns:
            Whether the weights are those of train + validation now.
        """
        return False

    def memory_needed(self, model: ModelT, *, options: OptionsT, images: int) -> int:
        """Bytes of main memory that training needs in addition to the model and that grow with the training images.

        Args:
            images: number of training images.
        """
        return 0

    def processor_for(self, model: ModelT) -> BaseImageProcessor:
        """The image processor for which a model was made."""
        raise NotImplementedError

    def check_preprocessing(self, model: ModelT, values: dict[str, Any]) -> None:
        """Check that an image processor is the one of the model; another one silently costs several points of accuracy.

        Args:
            values: the content of preprocessor_config.json.

        Raises:
            ValueError: a setting does not match; the message names the value found and what is allowed.
        """
        expected = json.loads(self.processor_for(model).to_json_string())
        for name in PREPROCESSING + STATISTICS * self.fixed_statistics:
            # As JSON, because True == 1 == 1.0.
            if json.dumps(values.get(name), sort_keys=True) != json.dumps(expected.get(name), sort_keys=True):
                raise ValueError(
                    f"The image processor's {name} is {shortened(values.get(name))}; allowed: {expected.get(name)}"
                )

    def check_weights(self, model: ModelT) -> None:
        """Check that the weights match the config of the model, for example that a frozen part has not changed.

        Raises:
            ValueError: the weights do not match; the message names the found and the expected value.
        """
        return

    def describe(self, model: ModelT) -> dict[str, Any]:
        """Additional facts about the model for run.json, metrics.json and the model card."""
        return {}

    def base_model(self, model: ModelT) -> str | None:
        """Hub id of the pretrained model that this one is built on; None: no such model, or it is not on the hub."""
        return None

    def recipe_values(self, recipe: str | None = None) -> dict[str, Any]:
        """The values of a recipe, and its name under the key `recipe`.

        Args:
            recipe: name of the recipe; None: the first one.

        Raises:
            InputError: the recipe does not exist.
        """
        recipe = next(iter(self.RECIPES)) if recipe is None else recipe
        if recipe not in self.RECIPES:
            known = ", ".join(self.RECIPES)
            raise InputError(f"Unknown recipe '{shorten(recipe)}' for model '{self.name}'. Available: {known}.")
        return {**self.RECIPES[recipe], "recipe": recipe}

    def recipe_options(self, recipe: str | None = None, **values: Any) -> OptionsT:
        """The Options of a recipe.

        Args:
            recipe: name of the recipe; None: the first one.
            values: fields of Options that replace the values of the recipe.

        Raises:
            InputError: the recipe does not exist.
        """
        own = {field.name for field in fields(self.Options)}
        chosen = {name: value for name, value in self.recipe_values(recipe).items() if name in own}
        return self.Options(**chosen | values)
