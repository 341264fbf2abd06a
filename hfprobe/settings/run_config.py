"""What a run is: data, training arguments, recipe, and the checks they pass before anything slow happens."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from copy import copy
from dataclasses import MISSING, asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hfprobe.data.arguments import DEFAULT_DATASET, SMALL_SIDE, DataArguments
from hfprobe.models import find_family
from hfprobe.models.base import FamilyOptions, ModelFamily
from hfprobe.models.student import pin_teacher
from hfprobe.settings.arguments import RunArguments, default_output_dir
from hfprobe.settings.contradictions import rises
from hfprobe.settings.names import name_model
from hfprobe.settings.origins import name_origins
from hfprobe.settings.values import check_value, check_values, groups_of, one_line_errors
from hfprobe.system.errors import InputError
from hfprobe.system.precision import DEFAULT_PRECISION
from hfprobe.system.setting import AUGMENTATION, UNCHANGED, Setting, find_ignored, rows_of, spell_flag

if TYPE_CHECKING:  # slow to import
    from hfprobe.data.splits.images import Images

logger = logging.getLogger(__name__)

# What parts of a recipe depend on, see `starting_values`.
CHOICES = ("lr_scheduler_type", "optimizer", "metric_for_best_model")


@dataclass(frozen=True)
class RunConfig:
    """Everything a run needs to know.

    Attributes:
        model: the model's own Options.
        passed: fields that the user set, on the command line, in a file or in Python.
    """

    data: DataArguments
    training: RunArguments
    model: FamilyOptions
    passed: frozenset[str] = frozenset()

    @property
    def split_seed(self) -> int:
        return self.training.seed if self.data.split_seed is None else self.data.split_seed

    @property
    def default_output_dir(self) -> str:
        arguments = self.training
        return default_output_dir(arguments.model, arguments.recipe, seed=arguments.seed, dataset=self.data.dataset)

    @property
    def hub_name(self) -> str:
        """The name of the model in the hub folder, after `hfprobe/`."""
        return name_model(find_family(self.training.model).hub_name, dataset=self.data.dataset)

    @property
    def recipe_values(self) -> dict[str, Any]:
        """The settings that the recipe sets."""
        return find_family(self.training.model).recipe_values(self.training.recipe)

    @property
    def rows(self) -> dict[str, Setting]:
        """Setting -> its row, of all settings of the run."""
        return rows_of(type(self.data)) | rows_of(type(self.training)) | rows_of(type(self.model))

    @property
    def ignored_settings(self) -> dict[str, str]:
        """Setting -> why it has no effect in this run."""
        ignored = find_ignored(self.data) | find_ignored(self.training) | find_ignored(self.model)
        for name, reason in self.model.ignored_settings().items():
            members = [setting for setting, row in self.rows.items() if row.group == name]
            ignored |= dict.fromkeys(members or [name], reason)
        if self.data.split_seed is not None:
            ignored["vary_split"] = "--split_seed sets one split"
        return ignored

    def warn_about_ignored(self) -> None:
        """Log each setting that the user passed and that has no effect, with the reason."""
        by_reason: dict[str, list[str]] = {}
        ignored = self.ignored_settings
        values, rows = vars(self.data) | vars(self.training) | vars(self.model), self.rows
        for name in sorted(self.passed & ignored.keys()):
            by_reason.setdefault(ignored[name], []).append(spell_flag(name, rows[name]))
        for reason, flags in by_reason.items():
            reason = name_origins(reason, values=values, passed=self.passed, recipe=self.recipe_values)
            logger.warning("%s %s no effect: %s.", ", ".join(flags), "have" if len(flags) > 1 else "has", reason)

    def for_images(self, images: Images) -> RunConfig:
        """This run with a value for each setting that was left to the images; the log says which."""
        data, family = self.data, find_family(self.training.model)
        if data.crop is None and data.augment and AUGMENTATION not in self.model.ignored_settings():
            data = replace(data, crop="shift" if images.median_side <= SMALL_SIDE else "resized")
        model = family.complete_options(self.model, images=images)
        chosen = {
            name: value
            for before, after in ((self.data, data), (self.model, model))
            for name, value in vars(after).items()
            if value != getattr(before, name)
        }
        if chosen:
            flags = ", ".join(f"--{name} {value}" for name, value in chosen.items())
            side = f"{images.median_side:g} pixels"
            logger.info("Chosen from the training images, whose shorter side has a median of %s: %s.", side, flags)
        return replace(self, data=data, model=model)

    def with_training(self, **values: Any) -> RunConfig:
        """This run with other training arguments, which are not checked again."""
        training = copy(self.training)
        for name, value in values.items():
            setattr(training, name, value)
        return replace(self, training=training)

    @property
    def effective_batch_size(self) -> int | None:
        """Images an optimizer step is made of: per device x devices x processes x accumulated steps; None: no steps."""
        arguments = self.training
        if "per_device_train_batch_size" in self.ignored_settings:
            return None
        processes = 1 if arguments.accelerator_config.split_batches else arguments.world_size
        return arguments.train_batch_size * processes * arguments.gradient_accumulation_steps

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, for run.json and the model card: every setting that has an effect, in three groups."""
        training = self.training.to_dict() | {"precision": self.training.recorded_precision}
        del training["hub_token"]
        groups = {
            "data": asdict(self.data) | {"split_seed": self.split_seed, "dataset": self.data.recorded_dataset},
            "model": asdict(self.model),
            "training": training,
        }
        ignored = self.ignored_settings
        return {
            group: {name: value for name, value in values.items() if name not in ignored}
            for group, values in groups.items()
        }

    def to_settings(self) -> dict[str, Any]:
        """The settings that repeat this run: model, recipe and seeds, and what is not as the recipe has it.

        JSON-able, for `make_run(**settings)` or a file for `--config`. Of several seeds it is the first one's run;
        folders and tokens are left out.
        """
        family, arguments = find_family(self.training.model), self.training
        chosen = {"lr_scheduler_type": arguments.lr_scheduler_type.value, "optimizer": arguments.optimizer}
        chosen["metric_for_best_model"] = arguments.metric_for_best_model
        defaults = starting_values(family, arguments.recipe, chosen=chosen)
        settings = {"model": arguments.model, "recipe": arguments.recipe, "seed": arguments.seed}
        settings |= {"split_seed": self.split_seed}
        precision = self.training.recorded_precision
        flagged = arguments.bf16 or arguments.fp16  # which are among the settings below
        settled = precision != DEFAULT_PRECISION and "precision" not in self.ignored_settings
        if not flagged and precision != "fp16" and (settled or "precision" in self.passed):
            settings["precision"] = precision  # the one that was taken, on whatever machine the run is repeated
        rows = self.rows
        for part in (self.data, arguments, self.model):
            values = part.to_dict() if part is arguments else asdict(part)
            for field in fields(part):
                name, value = field.name, values.get(field.name)
                own = field.default if field.default_factory is MISSING else field.default_factory()
                if part is self.data:
                    own = getattr(DataArguments(dataset=self.data.dataset), name)  # the classes depend on the dataset
                default = defaults.get(name, own)
                repeat = rows[name].repeat
                # transformers makes a list of one string, and an empty list or False of what is not set.
                differs = repeat == "changed" and value not in (default, [default]) and bool(value or default)
                repeated = repeat != "never" and (differs or name in self.passed)
                if field.init and repeated and name not in (*settings, "precision"):
                    settings[name] = value
        if "dataset" in settings:
            settings["dataset"] = self.data.recorded_dataset
        return json.loads(json.dumps(settings))


def image_settings(images: Images) -> dict[str, Any]:
    """The settings of a run that say which images these are, without the seed of the split."""
    names = [name for name, row in rows_of(DataArguments).items() if row.group != AUGMENTATION and name != "split_seed"]
    given = vars(images.arguments)
    return {name: given[name] for name in names if given[name]}


def starting_values(
    family: ModelFamily, recipe: str | None, *, chosen: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """What the settings of a run are where nothing is passed: hfprobe's defaults, and the recipe's.

    Args:
        chosen: those of CHOICES that are set. A recipe's settings of another schedule and of another optimizer are left
            out, and its schedule waits for the smallest loss where that is the metric of the best epoch.

    Raises:
        InputError: no such recipe.
    """
    defaults = {name: row.default for name, row in rows_of(RunArguments).items() if row.default is not UNCHANGED}
    values = defaults | family.recipe_values(recipe) | {"model": family.name}
    if chosen.get("lr_scheduler_type") not in (None, values.get("lr_scheduler_type")):
        values.pop("lr_scheduler_kwargs", None)
    if chosen.get("optimizer") not in (None, "optim"):
        values.pop("optim", None)
    if "mode" in values.get("lr_scheduler_kwargs", {}) and rises(chosen.get("metric_for_best_model")) is False:
        values["lr_scheduler_kwargs"] = values["lr_scheduler_kwargs"] | {"mode": "min"}
    return values


def build_run(*, model: str = "cnn", recipe: str | None = None, **values: Any) -> RunConfig:
    """`make_run` without its warnings: the one way from settings to a RunConfig."""
    with one_line_errors():
        given = check_values(values, model=model)
        family = find_family(model)
        recipe = check_value("recipe", recipe, RunArguments)
        settings = starting_values(family, recipe, chosen=given) | given
        if settings.get("crop") is None and given.keys() & {"crop_shift", "crop_padding"}:
            settings["crop"] = "shift"  # what is passed is not ignored, whatever the images are
        named: dict[str, Any] = {"seed": settings.get("seed", 42), "dataset": settings.get("dataset", DEFAULT_DATASET)}
        folder = default_output_dir(family.name, settings["recipe"], **named)
        settings = {"output_dir": folder} | settings
    try:
        with one_line_errors():
            data, training, own = (
                group(**{field.name: settings[field.name] for field in fields(group) if field.name in settings})
                for group in groups_of(family)
            )
            own = pin_teacher(own, hub_dir=training.hub_dir, probe=name_model("linear-probe", dataset=data.dataset))
            frozen = family.frozen_precision
            if frozen is not None and getattr(own, frozen) == "bf16":
                training.check_emulation(f"--{frozen} bf16", remedy=f"Pass --{frozen} fp32.")
    except InputError as error:
        values = {field.name: field.default for group in groups_of(family) for field in fields(group)} | settings
        recipe_values = family.recipe_values(settings["recipe"])
        raise InputError(name_origins(str(error), values=values, passed=given, recipe=recipe_values)) from error
    return RunConfig(data, training, own, passed=frozenset(given))


def make_run(*, model: str = "cnn", recipe: str | None = None, **values: Any) -> RunConfig:
    """A RunConfig from Python, with the same defaults, checks and warnings as the command line.

    Args:
        values: fields of DataArguments, RunArguments or the model's Options, or their short names.

    Raises:
        InputError: unknown name, wrong type, a value or a combination that cannot be used, in one line.
    """
    config = build_run(model=model, recipe=recipe, **values)
    config.warn_about_ignored()
    return config
