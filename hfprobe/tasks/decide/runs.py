"""The training runs of a decision."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import BaseImageProcessor

from hfprobe.data.splits.images import Images
from hfprobe.models import build_model, find_family
from hfprobe.models.base import ModelFamily
from hfprobe.settings.names import name_model
from hfprobe.settings.run_config import RunConfig, build_run, image_settings
from hfprobe.system.errors import InputError
from hfprobe.tasks.decide.result import RUNS_FOLDER
from hfprobe.tasks.decide.wishes import Wishes

logger = logging.getLogger(__name__)

STUDENT, STUDENT_FAMILY = "student", "cnn"


@dataclass(frozen=True)
class Run:
    """One training run of a decision.

    Attributes:
        stage: name of its stage, and of its folder.
        name: in the comparison.
        values: for `build_run`.
        variants: name -> further values for `build_run`; the first one is used. Several are ranked before.
        solved: whether its weights are solved in closed form.
        teacher: stage of the run whose model teaches it; None: no teacher.
        processors: variant -> image processor.
    """

    stage: str
    name: str
    values: dict[str, Any]
    variants: dict[str, dict[str, Any]]
    solved: bool
    teacher: str | None = None
    processors: dict[str, BaseImageProcessor] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """Name of its model."""
        return str(self.values["model"])

    @property
    def group(self) -> str:
        """What its training runs with other seeds have in common."""
        return self.family if self.teacher is None else STUDENT

    @property
    def variant(self) -> str:
        """The variant that is used."""
        return next(iter(self.variants))

    def choose(self, variant: str) -> Run:
        """The run with one of its variants."""
        return replace(self, variants={variant: self.variants[variant]})

    def config(self, images: Images, **values: Any) -> RunConfig:
        """The settings of the run.

        They are made anew for each use, because transformers keeps the precision of the settings that were made last.
        """
        return build_run(**self.values | self.variants[self.variant] | values).for_images(images)


def first_of_each(runs: Sequence[Run]) -> dict[str, Run]:
    """Family -> its first run."""
    return {run.family: run for run in reversed(runs)}


def choose_variant(runs: Sequence[Run], variant: str) -> list[Run]:
    """The runs, where those that have the variant use it."""
    return [run.choose(variant) if variant in run.variants else run for run in runs]


def choose_runs(images: Images, wishes: Wishes) -> tuple[list[Run], str | None]:
    """The training runs of a decision, those that are solved in closed form first.

    Returns:
        The runs, and why a model is missing: no weights of a backbone can be had.

    Raises:
        InputError: a model or a setting that cannot be used; weights that cannot be read; no model is left.
    """
    runs: list[Run] = []
    missing = None
    for name in wishes.models:
        family = find_family(name)
        try:
            variants = _list_variants(family, wishes)
        except InputError as error:
            if "auto" not in wishes.backbones or len(wishes.models) == 1:
                raise
            missing = str(error)
            continue
        processors: dict[str, BaseImageProcessor] = {}
        for seed in range(wishes.seed, wishes.seed + wishes.seeds):
            stage = f"{family.name}-seed{seed}"
            values: dict[str, Any] = {"model": family.name, "seed": seed, "split_seed": images.seed}
            values |= {"hub_dir": wishes.hub_dir, "output_dir": str(wishes.folder / RUNS_FOLDER / stage)}
            values |= image_settings(images)
            config = build_run(**values | next(iter(variants.values())))
            called = name_model(family.hub_name, dataset=config.data.dataset)
            solved = family.is_solved(config.model)
            if wishes.epochs is not None and not solved:
                values["epochs"] = wishes.epochs
            shown = called if seed == wishes.seed else f"{called} (seed {seed})"
            run = Run(stage, shown, values, variants, solved)
            processors = processors or {name: _build_processor(run.choose(name), images) for name in variants}
            runs.append(replace(run, processors=processors))
            if solved:  # each seed gives the same weights
                break
    if wishes.unlabelled is not None:
        runs += _choose_students(images, wishes, runs)
    if missing:
        logger.warning("%s", missing)
    if wishes.drop_leaks and not any(run.solved and find_family(run.family).frozen_precision for run in runs):
        raise InputError(
            "--drop_leaks needs an audit, and none of the models has a frozen backbone for it. Add probe to --models, "
            "or leave --drop_leaks out."
        )
    return sorted(runs, key=lambda run: not run.solved), missing


def _choose_students(images: Images, wishes: Wishes, runs: Sequence[Run]) -> list[Run]:
    """A run of the student for each seed; its teacher is known once it is trained.

    Raises:
        InputError: no model can teach it; there is a budget.
    """
    if wishes.budget is not None:
        raise InputError("--budget cannot limit the time that --unlabelled takes. Leave one of them out.")
    teacher = next((run for run in runs if run.solved and find_family(run.family).frozen_precision), None)
    if teacher is None:
        raise InputError(
            "--unlabelled needs a probe that labels the images, and there is none. Add probe to --models, or leave "
            "--unlabelled out."
        )
    family = find_family(STUDENT_FAMILY)
    variants = _list_variants(family, wishes)
    called = name_model(STUDENT, dataset=images.arguments.dataset)
    found = []
    for seed in range(wishes.seed, wishes.seed + wishes.seeds):
        stage = f"{STUDENT}-seed{seed}"
        values: dict[str, Any] = {"model": family.name, "recipe": "distill", "teacher": "none", "seed": seed}
        values |= {"unlabelled": wishes.unlabelled, "split_seed": images.seed, "hub_dir": wishes.hub_dir}
        values |= {"output_dir": str(wishes.folder / RUNS_FOLDER / stage)} | image_settings(images)
        values |= {} if wishes.epochs is None else {"epochs": wishes.epochs}
        shown = called if seed == wishes.seed else f"{called} (seed {seed})"
        run = Run(stage, shown, values, variants, solved=False, teacher=teacher.stage)
        found.append(replace(run, processors={run.variant: _build_processor(run, images)}))
    return found


def _build_processor(run: Run, images: Images) -> BaseImageProcessor:
    config = run.config(images)
    return build_model(config.training.model, labels=images.class_names, options=config.model)[1]


def _list_variants(family: ModelFamily, wishes: Wishes) -> dict[str, dict[str, Any]]:
    """Name -> settings of each variant of a model; a model without a choice has one of its own name."""
    found = family.list_variants(wishes.backbones)
    option = family.chosen_option
    if option is None:
        return {family.name: found[0]}
    names = [values[option] for values in found]
    several = {name for name in names if names.count(name) > 1}
    return {
        "=".join(values.values()) if name in several else name: values
        for name, values in zip(names, found, strict=True)
    }
