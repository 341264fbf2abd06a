"""Runs that differ in their seed: train those that are not finished yet, and summarise all of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfprobe.settings.names import name_run
from hfprobe.settings.run_config import RunConfig
from hfprobe.system.errors import InputError, shorten
from hfprobe.system.files import write_json
from hfprobe.system.process import command, is_main_process
from hfprobe.training.record import RunRecord, path_from
from hfprobe.training.resume import check_output_dir, holds_run, is_finished
from hfprobe.training.start import FinishedRun, run_training

if TYPE_CHECKING:
    from hfprobe.data.splits.images import Images


@dataclass(frozen=True)
class FinishedSeeds:
    """Finished runs that differ in their seed.

    Attributes:
        summary: see `summarize_seeds`.
        path: the JSON file that holds it; `hfprobe eval --seeds` reads it.
    """

    summary: dict[str, Any]
    path: Path


def train_seeds(
    runs: list[RunConfig],
    *,
    images: Images | None = None,
    announce: Callable[[RunConfig, FinishedRun | None], None] = lambda config, run: None,
) -> FinishedSeeds | None:
    """Train the runs that are not finished yet, one after the other, and write a summary of all of them.

    Args:
        runs: of `hfprobe.cli.run_flags.parse_runs`.
        images: see `run_training`; the same for every seed.
        announce: called in the main process after each run, with None for one that was finished before.

    Returns:
        The summary; None in every process but the main one.

    Raises:
        InputError: a folder of any of the runs cannot be used; nothing is trained then.
        CommandError: see `run_training`.
    """
    # All of them before the first is trained; what was not begun cannot be resumed.
    runs = [run.with_training(resume=run.training.resume and holds_run(run.training.output_dir)) for run in runs]
    finished = []
    for config in runs:
        arguments = config.training
        record = RunRecord.find(arguments.output_dir)
        if not arguments.overwrite and is_finished(config) and record is not None and record.pushed:
            finished.append(config)
        else:
            check_output_dir(config)
    for config in runs:
        run = None if config in finished else run_training(config, images=images)
        if is_main_process():
            announce(config, run)
        del run  # its model is not kept in memory while the next one is trained
    if not is_main_process():
        return None
    first = runs[0].training
    folder = Path(first.output_dir).parent
    summary = summarize_seeds(runs, folder=folder)
    path = folder / f"{name_run(first.model, first.recipe, dataset=runs[0].data.dataset)}-seeds.json"
    write_json(path, summary)
    return FinishedSeeds(summary, path)


def summarize_seeds(runs: list[RunConfig], *, folder: Path) -> dict[str, Any]:
    """Mean, standard deviation (of a sample: n - 1) and values over finished runs that differ in their seed.

    Args:
        folder: of the file that will hold the summary; its paths are relative to it, as runs and hub may be moved.
    """
    from hfprobe.statistics.imbalance import METRIC_NAMES, leading_metrics
    from hfprobe.statistics.intervals import summarize_values

    folders = [Path(run.training.output_dir) for run in runs]
    records = [RunRecord.load(run) for run in folders]
    results = [record.result for record in records if record.result is not None]
    pushed = [record.pushed for record in records if record.pushed is not None]
    values = {f"validation_{name}": [result.metrics[name] for result in results] for name in METRIC_NAMES}
    values["seconds"] = [result.seconds for result in results]
    return {
        "model": runs[0].training.model,
        "recipe": runs[0].training.recipe,
        "n": len(runs),
        "seeds": [run.training.seed for run in runs],
        "folders": [path_from(folder, run) for run in folders],
        "models": [
            vars(found) | {"hub_dir": path_from(folder, run / found.hub_dir)}
            for run, found in zip(folders, pushed, strict=True)
        ],
        "leading": leading_metrics(results[0].images_per_class),
        **{name: vars(summarize_values(found)) for name, found in values.items()},
    }


def pushed_models(file: Path) -> dict[int, tuple[str, str]]:
    """Seed -> name with revision, and hub folder, of the model that each run of a summary pushed.

    Raises:
        InputError: the file was not written by `train_seeds`.
    """
    try:
        summary = json.loads(file.read_text())
        return {
            int(seed): (
                f"{pushed['model']}@{pushed['revision'][:12]}",
                os.path.normpath(file.resolve().parent / pushed["hub_dir"]),
            )
            for seed, pushed in zip(summary["seeds"], summary["models"], strict=True)
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"'{shorten(file)}' is not a summary that {command('train')} --seeds wrote: {shorten(repr(error))}. "
            "Pass the file that it printed."
        ) from error
