"""The training runs of a decision: each is trained, or what an earlier command has trained is taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hfprobe.data.splits.images import Images
from hfprobe.data.splits.unlabelled import find_unlabelled
from hfprobe.hub.local import resolve_model
from hfprobe.settings.run_config import RunConfig, image_settings
from hfprobe.system.errors import InputError
from hfprobe.system.files import read_json
from hfprobe.tasks.decide.plan import Plan, StopAtDeadline
from hfprobe.tasks.decide.result import Candidate, Epoch
from hfprobe.tasks.decide.runs import Run
from hfprobe.tasks.decide.stages import Stages, make_key
from hfprobe.tasks.decide.wishes import Wishes
from hfprobe.training.callbacks import EpochLines
from hfprobe.training.checkpoints import STATE_FILE
from hfprobe.training.record import RunRecord
from hfprobe.training.resume import holds_run
from hfprobe.training.start import run_training
from hfprobe.training.trainer import ProbeTrainer


def with_teacher(run: Run, trained: dict[str, Candidate]) -> Run:
    """The run with the revision of its teacher, which is trained before it."""
    if run.teacher is None:
        return run
    teacher = next(candidate for candidate in trained.values() if candidate.report == run.teacher)
    return replace(run, values=run.values | {"teacher": f"{teacher.name}@{teacher.revision}"})


def planned_values(run: Run, images: Images, plan: Plan) -> dict[str, Any]:
    """The settings of a run that the plan has chosen."""
    values = image_settings(images)
    return values | ({"epochs": plan.epochs[run.stage]} if run.stage in plan.epochs else {})


def find_cut(trained: dict[str, Candidate], runs: list[Run], plan: Plan, wishes: Wishes) -> list[str]:
    """Sentences on the runs that a budget stopped before their last planned epoch."""
    found = []
    for run in runs if wishes.budget is not None else ():
        epochs = trained[run.name].epochs
        if epochs is not None and epochs < plan.epochs.get(run.stage, 0):
            planned = f"{epochs:g} of {plan.epochs[run.stage]:g} planned epochs"
            found.append(
                f"The training of {run.name} was stopped after {planned}, because it took longer than planned."
            )
    return found


def train(stages: Stages, run: Run, images: Images, fingerprint: str, wishes: Wishes) -> Candidate:
    """Train one model, or load what an earlier command has trained."""
    config = run.config(images)
    arguments = config.training
    places = [] if run.teacher is None else find_unlabelled(images, wishes.unlabelled)
    key = make_key(fingerprint, config.to_settings(), *(place.key for place in places))
    # A run that was begun with the same settings on the same images is continued, any other one is deleted.
    kept = stages.is_begun(run.stage, key) and holds_run(arguments.output_dir)

    def load() -> Candidate | None:
        record = RunRecord.find(arguments.output_dir)
        if record is None or record.result is None or record.pushed is None:
            return None
        try:
            resolve_model(model=f"{record.pushed.model}@{record.pushed.revision}", hub_dir=wishes.hub_dir)
        except InputError:  # removed from the hub folder
            return None
        return _describe(record, config, run)

    def prepare(trainer: ProbeTrainer) -> None:
        trainer.remove_callback(EpochLines)
        if wishes.budget is not None:
            trainer.add_callback(StopAtDeadline(stages.deadline(run.stage, wishes)))

    def work() -> Candidate:
        run_training(config.with_training(resume=kept, overwrite=not kept), images=images, prepare=prepare)
        found = load()
        assert found is not None  # the run has just ended
        return found

    return stages.run(run.stage, f"train {run.name}", key=key, work=work, load=load)


def _describe(record: RunRecord, config: RunConfig, run: Run) -> Candidate:
    assert record.result is not None
    assert record.pushed is not None
    return Candidate(
        family=run.group,
        seed=config.training.seed,
        name=record.pushed.model,
        revision=record.pushed.revision,
        report=run.stage,
        validation_accuracy=record.result.metrics["accuracy"],
        train_images=record.images["train"],
        epochs=record.result.epochs,
        history=_read_history(Path(config.training.output_dir)),
        settings=config.to_settings(),
        taught=record.taught,
    )


def _read_history(folder: Path) -> list[Epoch]:
    """The evaluated epochs of a run, from the log of the Trainer; empty without one."""
    log = read_json(folder / STATE_FILE).get("log_history", [])
    losses = {entry["step"]: entry["loss"] for entry in log if "loss" in entry}
    return [
        Epoch(entry["epoch"], losses.get(entry["step"]), entry["eval_loss"], entry["eval_accuracy"])
        for entry in log
        if "eval_accuracy" in entry and entry["step"] > 0
    ]
