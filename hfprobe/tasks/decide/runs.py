"""The training runs of a decision."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from hfprobe.data.splits.images import Images
from hfprobe.models import find_family
from hfprobe.settings.names import name_model
from hfprobe.settings.run_config import RunConfig, build_run, image_settings
from hfprobe.system.errors import InputError
from hfprobe.tasks.decide.result import RUNS_FOLDER
from hfprobe.tasks.decide.wishes import Wishes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One training run of a decision.

    Attributes:
        stage: name of its stage, and of its folder.
        name: in the comparison.
        values: for `build_run`.
        solved: whether its weights are solved in closed form.
    """

    stage: str
    name: str
    values: dict[str, Any]
    solved: bool

    def config(self, images: Images, **values: Any) -> RunConfig:
        """The settings of the run.

        They are made anew for each use, because transformers keeps the precision of the settings that were made last.
        """
        return build_run(**self.values | values).for_images(images)


def choose_runs(images: Images, wishes: Wishes) -> tuple[list[Run], str | None]:
    """The training runs of a decision, those that are solved in closed form first.

    Returns:
        The runs, and why a model is missing: no weights of a backbone can be had.

    Raises:
        InputError: a model or a setting that cannot be used; no model is left.
    """
    runs: list[Run] = []
    missing = None
    for name in wishes.models:
        family = find_family(name)
        known = family.Options.__dataclass_fields__
        own = {key: value for key, value in wishes.settings.items() if key in known}
        folder = wishes.folder / RUNS_FOLDER
        for seed in range(wishes.seed, wishes.seed + wishes.seeds):
            values: dict[str, Any] = {"seed": seed, "split_seed": images.seed, "hub_dir": wishes.hub_dir}
            stage = f"{family.name}-seed{seed}"
            values |= {"output_dir": str(folder / stage)} | image_settings(images) | own
            values["model"] = family.name
            try:
                config = build_run(**values)
            except InputError as error:
                if own.get("backbone") != "auto" or len(wishes.models) == 1:
                    raise
                missing = str(error)
                break
            called = name_model(family.hub_name, dataset=config.data.dataset)
            solved = family.is_solved(config.model)
            if "epochs" in wishes.settings and not solved:
                values["epochs"] = wishes.settings["epochs"]
            runs.append(Run(stage, called if seed == wishes.seed else f"{called} (seed {seed})", values, solved))
            if solved:  # each seed gives the same weights
                break
    if missing:
        logger.warning("%s", missing)
    return sorted(runs, key=lambda run: not run.solved), missing
