"""The folder of a run: whether a run may use it, and whether `--resume` continues the run that it holds."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from hfprobe.hub import local as hub
from hfprobe.models import find_family
from hfprobe.models.passport import Taught
from hfprobe.settings.arguments import RunArguments
from hfprobe.settings.run_config import RunConfig
from hfprobe.system import provenance
from hfprobe.system.errors import InputError
from hfprobe.system.files import check_writable, locked
from hfprobe.system.process import is_main_process
from hfprobe.system.setting import spell_flag
from hfprobe.training import checkpoints
from hfprobe.training.record import RunRecord
from hfprobe.training.run_files import (
    LOCK_FILE,
    RUN_FILE,
    check_overwriting,
    check_places,
    claim,
    delete_run,
    find_run_files,
)

logger = logging.getLogger(__name__)

# Schedules that do not know how many epochs a run has.
OPEN_SCHEDULES = ("constant", "constant_with_warmup", "inverse_sqrt", "reduce_lr_on_plateau", "greedy")


def check_output_dir(config: RunConfig) -> None:
    """Check that this run may use its output folder. Nothing is changed, and no image is loaded yet.

    Raises:
        InputError: it holds another run and neither --resume nor --overwrite was passed; --resume was passed and the
            settings are not those of the run; another run is writing into it; it cannot be written; files of another
            program would be written over or deleted; it is or holds the dataset, the hub folder or the working
            directory, or lies inside the dataset.
    """
    arguments = config.training
    folder = Path(arguments.output_dir)
    if is_main_process():
        check_writable(folder, flag="--output_dir")
        check_writable(arguments.hub_dir, flag="--hub_dir")
        pushed = {"hub_dir": arguments.hub_dir, "name": config.hub_name}
        for place in hub.push_folders(**pushed):
            check_writable(place, flag="--hub_dir")
        _check_push_lock(hub.push_folders(**pushed)[0] / hub.PUSH_LOCK, hub_dir=arguments.hub_dir)
        if not hub.moves_files(**pushed):
            raise InputError(
                f"--hub_dir '{arguments.hub_dir}' spans several file systems: a push cannot move files from its .locks "
                "to its models. Pass a folder that is on one."
            )
        _warn_of_copies(arguments.hub_dir)
    check_places(folder, flag="--output_dir", dataset=config.data.dataset, hub_dir=arguments.hub_dir)
    check_places(arguments.hub_dir, flag="--hub_dir", dataset=config.data.dataset)
    if is_main_process() and os.path.lexists(folder / LOCK_FILE):
        with claim(folder):
            pass
    _check_free(arguments)
    find_run_files(folder)  # refuses another one's files where checkpoints are saved and deleted
    saves_model = find_family(arguments.model).is_solved(config.model)
    check_overwriting(folder, holds_run=holds_run(folder), saves_model=saves_model)
    if arguments.resume:
        if not holds_run(folder):
            raise InputError(f"Nothing to resume: the output folder '{folder}' holds no run. Leave --resume out.")
        check_same_run(config)


def _check_push_lock(lock: Path, *, hub_dir: str) -> None:
    try:
        if os.path.lexists(lock):
            with locked(lock, wait=False):
                pass
    except BlockingIOError:
        pass  # another push is running; it will have ended by then
    except OSError as error:
        raise InputError(
            f"--hub_dir '{hub_dir}' cannot be pushed to: '{lock}': {error.strerror or error}. Remove it, or pass "
            "another --hub_dir."
        ) from error


@cache  # one line, however many seeds are trained
def _warn_of_copies(hub_dir: str) -> None:
    if not hub.makes_links(hub_dir):
        logger.warning("The file system of --hub_dir '%s' has no links: files are copied.", hub_dir)


@contextmanager
def claimed(arguments: RunArguments) -> Iterator[Path]:
    """Make and lock the output folder, once everything else is checked; --overwrite deletes the run that it holds.

    Inside the context no other run can use the folder.

    Raises:
        InputError: another run has taken it meanwhile; --overwrite met a file that no run wrote.
    """
    folder = Path(arguments.output_dir)
    if not is_main_process():
        yield folder
        return
    folder.mkdir(parents=True, exist_ok=True)
    with claim(folder):
        _check_free(arguments)
        if arguments.overwrite and holds_run(folder):
            delete_run(folder)
        yield folder


def _check_free(arguments: RunArguments) -> None:
    if holds_run(arguments.output_dir) and not (arguments.resume or arguments.overwrite):
        raise InputError(
            f"The output folder '{arguments.output_dir}' holds another run. Continue it: --resume. Delete it: "
            "--overwrite. Keep it: --output_dir with another name."
        )


def holds_run(folder: str | Path) -> bool:
    """Whether a folder holds a run's record or one of its checkpoints."""
    try:
        names = os.listdir(folder)
    except (OSError, ValueError):  # no such folder, or no valid path
        names = []
    return any(name == RUN_FILE or checkpoints.NAME.fullmatch(name) for name in names)


def is_finished(config: RunConfig) -> bool:
    """Whether the output folder holds this very run, and the run has ended.

    Raises:
        InputError: it holds a run with other settings, see `check_same_run`.
    """
    folder = Path(config.training.output_dir)
    record = RunRecord.find(folder)
    if record is None or record.result is None:
        return False
    check_same_run(config)
    before, now = vars(record.config), config.to_dict()
    return all(
        before[group].get(name) == now[group].get(name)
        for group, name in (("data", "dataset"), ("training", "num_train_epochs"))
    )


def check_same_run(
    config: RunConfig,
    *,
    class_names: list[str] | None = None,
    fingerprint: str | None = None,
    taught: Taught | None = None,
) -> None:
    """Compare a run with the record of the run that its output folder holds.

    Versions and hardware may differ, and so may each setting whose row has a reason in `may_differ`.

    Args:
        class_names, fingerprint: of the images, once they are loaded. The log then says what else has changed.
        taught: by which teacher and with which images, once the images are loaded.

    Raises:
        InputError: all differences in one line; the record is missing, damaged or of another version.
    """
    folder = Path(config.training.output_dir)
    record = RunRecord.load(folder)
    differences = find_differences(record, config, folder, images_are_loaded=fingerprint is not None)
    if fingerprint is not None:
        differences += _differing("the classes", record.class_names, class_names)
        differences += _differing("the images' fingerprint", record.data_fingerprint, fingerprint)
        before, now = (vars(found) if found else {} for found in (record.taught, taught))
        for name, what in (("sha256", "the weights of the teacher"), ("fingerprints", "the unlabelled images")):
            differences += _differing(what, before.get(name), now.get(name))
    if differences:
        raise InputError(
            f"The run in '{folder}' cannot be resumed with other settings: {'; '.join(differences)}. Pass what the run "
            "was started with, or start another one: --output_dir with another name."
        )
    if fingerprint is not None and is_main_process():
        _log_allowed_changes(record, config)


def find_differences(
    record: RunRecord, config: RunConfig, folder: Path, *, images_are_loaded: bool = True
) -> list[str]:
    """Each setting that has an effect, must be equal and is not, with both values.

    Args:
        images_are_loaded: False where the metric of the best epoch may still be chosen by the images.
    """
    now = json.loads(json.dumps(config.to_dict()))  # lists and strings as the record has them
    family = find_family(config.training.model)
    if record.model != family.name:
        return _differing("--model", record.model, config.training.model)  # all else follows from it
    differences, rows = [], config.rows
    for group, values in now.items():
        before = vars(record.config)[group]
        # A newer version of a library adds arguments: the run had their defaults.
        defaults = getattr(config, group).__dataclass_fields__
        for name in sorted(name for name in values if not rows[name].may_differ):
            if name == "classes":  # of a run that kept all classes, its record has their names
                if values[name] is not None:
                    differences += _differing("--classes", record.class_names, values[name])
                continue
            old = before.get(name, getattr(defaults.get(name), "default", None))
            if name in ("precision", family.frozen_precision) and values[name] == "auto":
                continue  # compared once `settle_precision` has found what it stands for
            if name == "metric_for_best_model" and name not in config.passed and not images_are_loaded:
                continue
            differences += _differing(spell_flag(name, rows[name]), old, values[name])
    if config.effective_batch_size is not None:
        differences += _differing("the number of processes", record.processes, config.training.world_size)
        differences += _differing("the effective batch size", record.effective_batch_size, config.effective_batch_size)
    epochs, before = now["training"].get("num_train_epochs"), record.config.training.get("num_train_epochs") or 0
    planned = _planned_epochs(folder)  # by transformers rounded up
    if epochs is not None and (epochs < before or math.ceil(epochs) < planned):
        was = max(before, planned if planned > math.ceil(before) else 0)
        differences += [f"--num_train_epochs/--epochs was {was:g}, is {epochs:g} (it may only rise)"]
    return differences


def _planned_epochs(folder: Path) -> int:
    """The most epochs that the checkpoints of a run were made for: a later attempt may have extended it."""
    planned = [0]
    for path in folder.glob(f"checkpoint-*/{checkpoints.STATE_FILE}"):
        try:
            planned.append(json.loads(path.read_text())["num_train_epochs"])
        except (OSError, ValueError, TypeError, KeyError):
            continue  # a damaged checkpoint is passed over later, with a warning
    return max(planned)


def _differing(name: str, before: Any, now: Any) -> list[str]:
    return [] if before == now else [f"{name} was {_text(before)}, is {_text(now)}"]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "empty"
    return "none" if value is None else json.dumps(value) if isinstance(value, dict | bool) else str(value)


def _log_allowed_changes(record: RunRecord, config: RunConfig) -> None:
    changed = []
    device = config.training.device.type
    for before, now in (
        (record.versions, provenance.versions()),
        (vars(record.hardware), vars(provenance.find_hardware())),
        ({"device": record.device}, {"device": device}),
        ({"commit of hfprobe": record.git_sha}, {"commit of hfprobe": provenance.git_sha()}),
    ):
        for key in sorted(before.keys() | now.keys()):
            changed += _differing(key, before.get(key), now.get(key))
    if changed:
        logger.warning(
            "The last bits of the result may differ from those of an uninterrupted run: %s.", "; ".join(changed)
        )
    planned, epochs = record.config.training.get("num_train_epochs"), config.training.num_train_epochs
    schedule = config.training.lr_scheduler_type.value
    if planned is not None and epochs > planned:
        logger.info(
            "The run is continued to %g epochs instead of %g. %s",
            epochs,
            planned,
            f"The {schedule} schedule does not depend on their number."
            if schedule in OPEN_SCHEDULES and config.training.warmup_steps in (0, None)
            else f"The {schedule} schedule is that of {epochs:g} epochs from here on: the learning rate jumps to its "
            f"value there, so the result is neither that of {planned:g} nor that of {epochs:g} epochs from the start.",
        )
