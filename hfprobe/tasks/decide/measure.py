"""Make a decision: train each model, evaluate all on test, profile and compare them. Each stage is a task of its own.

This is the one task that calls other tasks' `measure` and `page`: it adds their order, the plan and the page.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from hfprobe.data.splits.images import Images
from hfprobe.hub.local import resolve_model
from hfprobe.models.loading import load_model
from hfprobe.statistics.leaks import compare_leaks, measure_leaks
from hfprobe.system.errors import InputError
from hfprobe.system.files import replace_together
from hfprobe.tasks.audit.result import Audit, leaked_rows
from hfprobe.tasks.compare.comparable import make_comparable, name_runs
from hfprobe.tasks.compare.measure import compare
from hfprobe.tasks.compare.page import save_comparison
from hfprobe.tasks.compare.result import Comparison
from hfprobe.tasks.decide.commands import list_commands
from hfprobe.tasks.decide.prepare import (
    PROFILE_ROUNDS,
    PROFILE_SECONDS,
    fingerprint_of,
    measure_curve,
    plan_stages,
    prepare_images,
    train_with_few,
)
from hfprobe.tasks.decide.result import (
    COMPARISON_FOLDER,
    PROFILE_FOLDER,
    Candidate,
    CleanPair,
    DataLook,
    Decision,
    folder_of_seeds,
)
from hfprobe.tasks.decide.runs import choose_runs
from hfprobe.tasks.decide.stages import Stages, make_key, one_line_per_stage
from hfprobe.tasks.decide.training import find_cut, planned_values, train, with_teacher
from hfprobe.tasks.decide.verdict import judge, judge_alone, say
from hfprobe.tasks.decide.wishes import Wishes
from hfprobe.tasks.evaluate.measure import evaluate_images
from hfprobe.tasks.evaluate.page import save_evaluation
from hfprobe.tasks.evaluate.result import EvalResult, EvaluatedSeeds
from hfprobe.tasks.export.result import check_export
from hfprobe.tasks.profile.measure import profile_models
from hfprobe.tasks.profile.page import write_profile
from hfprobe.tasks.profile.result import Profile

logger = logging.getLogger(__name__)

BATCH_SIZES = [1]


def decide_images(images: Images, wishes: Wishes) -> Decision:
    """Train the models on these images, evaluate, profile and compare them, and write the page.

    A call that was interrupted is continued by the same call: a stage is repeated only if something that it depends on
    has changed.

    Raises:
        InputError: a model or a setting that cannot be used; images that cannot be read.
        CheckFailedError, MachineError, StoppedError: see `run_training`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("A decision is made in one process. Start it without accelerate launch or torch.distributed.")
    stages = Stages(wishes.folder)
    with one_line_per_stage():
        images.check_headers()
        runs, missing = choose_runs(images, wishes)
        wishes.folder.mkdir(parents=True, exist_ok=True)
        runs, ranking, plan = plan_stages(stages, images, runs, wishes)
        given = images
        prepared = prepare_images(stages, given, runs, plan, wishes)
        images, look = prepared.images, prepared.audit
        runs = [replace(run, values=run.values | planned_values(run, images, plan)) for run in runs]
        fingerprint = fingerprint_of(images, runs)
        trained: dict[str, Candidate] = {}
        for run in runs:
            trained[run.name] = train(stages, with_teacher(run, trained), images, fingerprint, wishes)
        with_curve = "curve" in plan.seconds
        curve = measure_curve(stages, runs, images, fingerprint, wishes) if with_curve else []
        few = train_with_few(stages, runs, images, fingerprint, wishes) if "shots" in plan.seconds else {}
        results = _evaluate(stages, trained, images, fingerprint, wishes)
        first = {run.name: results[run.name] for run in runs if run.values["seed"] == wishes.seed}
        comparison, cut = None, list[str]()
        if len(first) > 1:
            profile, cut = _profile(stages, {name: trained[name] for name in first}, wishes)
            comparison = _compare(stages, _group_runs(first, trained, results), profile, wishes)
    name = next(iter(results))
    judgement = judge_alone(name, results[name], margin=wishes.margin)
    if comparison is not None:
        judgement = judge(comparison, margin=wishes.margin)
    return Decision(
        judgement=judgement,
        sentences=say(judgement, comparison, alone=results[name]),
        class_names=images.class_names,
        dataset=images.arguments.recorded_dataset,
        candidates=trained,
        compared=list(first),
        stages=stages.finished,
        audit=None if look is None else look_at_data(look, first, dropped=wishes.drop_leaks),
        budget=wishes.budget,
        gave_up=plan.gave_up + prepared.cut + find_cut(trained, runs, plan, wishes) + cut,
        ranking=ranking,
        missing=missing,
        commands=list_commands(given, images, wishes, trained),
        label_curve=curve,
        few_labels=few,
        results=results,
        comparison=comparison,
    )


def _group_runs(
    first: dict[str, EvalResult], trained: dict[str, Candidate], results: dict[str, EvalResult]
) -> dict[str, list[EvalResult]]:
    """Name in the comparison -> the evaluation of each training run of its family."""
    return {
        name: [results[other] for other, found in trained.items() if found.family == trained[name].family]
        for name in first
    }


def _evaluate(
    stages: Stages, trained: dict[str, Candidate], images: Images, fingerprint: str, wishes: Wishes
) -> dict[str, EvalResult]:
    """Evaluate all models on test, which nothing was chosen by."""

    def load() -> dict[str, EvalResult] | None:
        try:
            return {name: EvalResult.load(wishes.folder / found.report) for name, found in trained.items()}
        except InputError:
            return None

    def evaluate() -> dict[str, EvalResult]:
        results = {}
        for name, candidate in trained.items():
            folder = _model_folder(candidate, wishes)
            model, processor = load_model(folder)
            results[name] = evaluate_images(
                model=model,
                processor=processor,
                images=images,
                split="test",
                name=candidate.name,
                revision=folder.name,
            )
            save_evaluation(results[name], wishes.folder / candidate.report)
        for family in {candidate.family for candidate in trained.values()}:
            names = [name for name, candidate in trained.items() if candidate.family == family]
            if len(names) > 1:
                folder = wishes.folder / folder_of_seeds(family)
                folder.mkdir(exist_ok=True)
                EvaluatedSeeds.of({f"../{trained[name].report}": results[name] for name in names}).save(folder)
        return results

    key = make_key(fingerprint, [[name, found.revision, found.report] for name, found in trained.items()])
    return stages.run("test", "evaluate on test", key=key, work=evaluate, load=load)


def look_at_data(found: Audit, results: dict[str, EvalResult], *, dropped: bool) -> DataLook:
    """What the audit says, and the scores without the test images that have a duplicate in training or validation."""
    leaked, clean, any_result = leaked_rows(found), {}, next(iter(results.values()))
    # All models are evaluated on the same images.
    same: dict[str, Any] = {"labels": any_result.labels, "index": any_result.index, "leaked": leaked}
    for name, result in results.items():
        effect = measure_leaks(predictions=result.predictions, **same)
        if effect.leaked and effect.clean is not None:
            clean[name] = effect.clean
    pairs = []
    for one, other in combinations(clean, 2):
        predictions = (results[one].predictions, results[other].predictions)
        pairs.append(CleanPair(one, other, compare_leaks(predictions=predictions, **same)))
    return DataLook(found.sentences, len(leaked), clean, pairs, dropped)


def _model_folder(candidate: Candidate, wishes: Wishes) -> Path:
    return resolve_model(model=f"{candidate.name}@{candidate.revision}", hub_dir=wishes.hub_dir)


def _exported_files(candidate: Candidate, wishes: Wishes) -> dict[str, str]:
    """ONNX file -> SHA-256 of the export of a model, which is timed too; empty without an intact one."""
    try:
        return check_export(_model_folder(candidate, wishes)).files
    except InputError:
        return {}


def _profile(stages: Stages, trained: dict[str, Candidate], wishes: Wishes) -> tuple[Profile | None, list[str]]:
    """Measure the inference cost of the models, in as many rounds as the budget allows.

    Returns:
        The profile, and a sentence if its rounds, or the profile itself, were given up.
    """
    folder = wishes.folder / PROFILE_FOLDER
    planned, rounds = stages.planned.get("profile"), PROFILE_ROUNDS
    if wishes.budget is not None and planned:
        left = stages.deadline("profile", wishes) - time.perf_counter()
        rounds = min(rounds, int(rounds * left / planned))

    def profile() -> Profile:
        with replace_together(folder, last=Profile.FILE) as staging:
            found = profile_models(
                {name: _model_folder(candidate, wishes) for name, candidate in trained.items()},
                batch_sizes=BATCH_SIZES,
                only_own=True,
                rounds=rounds,
                seconds=PROFILE_SECONDS,
                trace_dir=staging,
            )
            found.save(staging)
            write_profile(found, staging)
        return found

    models = [[name, found.revision, _exported_files(found, wishes)] for name, found in trained.items()]
    key = make_key(models, PROFILE_ROUNDS, PROFILE_SECONDS)
    if rounds < 1 and not stages.is_finished("profile", key):
        stages.skip("profile")
        return None, ["The inference cost was not measured; hfprobe profile does it."]
    found = stages.run(
        "profile", "measure the inference cost", key=key, work=profile, load=lambda: Profile.find(folder)
    )
    fewer = f"The inference cost was measured in {found.rounds} instead of {PROFILE_ROUNDS} rounds."
    return found, [fewer] * (found.rounds < PROFILE_ROUNDS)


def _compare(stages: Stages, runs: dict[str, list[EvalResult]], profile: Profile | None, wishes: Wishes) -> Comparison:
    def work() -> Comparison:
        places = name_runs(list(runs), list(runs.values()))
        comparison = compare(make_comparable(runs, places=places), profile=profile)
        save_comparison(comparison, wishes.folder / COMPARISON_FOLDER)
        return comparison

    return stages.run("compare", "compare", key="", work=work)
