"""The stages of a decision before the training: the plan, the choice of a backbone, decoding, features, the audit."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from hfprobe.data.splits.editing import drop_leaks, keep_together
from hfprobe.data.splits.images import Images
from hfprobe.data.splits.unlabelled import find_unlabelled
from hfprobe.models import build_model, find_family
from hfprobe.models.student import StudentOptions
from hfprobe.tasks.audit.measure import audit
from hfprobe.tasks.audit.page import save_audit
from hfprobe.tasks.audit.result import Audit
from hfprobe.tasks.decide.features import read_features
from hfprobe.tasks.decide.label_curve import measure_label_curve
from hfprobe.tasks.decide.plan import PARTS, Plan, limit_images, make_plan
from hfprobe.tasks.decide.ranking import estimate_ranking, rank
from hfprobe.tasks.decide.rates import measure_rates
from hfprobe.tasks.decide.result import AUDIT_FOLDER, FEW_FOLDER
from hfprobe.tasks.decide.runs import Run, choose_variant, first_of_each
from hfprobe.tasks.decide.stage_results import CurvePoint, Extracted, LabelCurve, Measurement, Ranking
from hfprobe.tasks.decide.stages import Stages, make_key
from hfprobe.tasks.decide.wishes import Wishes
from hfprobe.tasks.label_efficiency.measure import measure_label_efficiency
from hfprobe.training.precision import settle_precision

PROFILE_ROUNDS, PROFILE_SECONDS = 5, 0.25
# A ranking may take this share of a budget; otherwise the fastest variant is taken.
RANKING_SHARE = 0.15
SHOTS = (10, 50, 200, 1000)
# In a budget, features are extracted in so many steps, after each of which the time is looked at.
EXTRACTION_STEPS = 10


@dataclass(frozen=True)
class Prepared:
    """What the models are trained on.

    Attributes:
        images: without what the budget does not allow, and with duplicates in one part.
        cut: sentences on stages that took longer than planned.
        audit: None if there was none.
    """

    images: Images
    cut: list[str] = field(default_factory=list)
    audit: Audit | None = None


def plan_stages(
    stages: Stages, images: Images, runs: list[Run], wishes: Wishes
) -> tuple[list[Run], Ranking | None, Plan]:
    """Measure for some seconds, choose a variant of each model, and choose what fits into the budget.

    Returns:
        The runs, each with one variant; the ranking, if there was a choice; the plan.

    Raises:
        InputError: the budget is too small.
    """
    firsts = first_of_each(runs)
    variants = {name: run.choose(name) for run in firsts.values() for name in run.variants}

    def work() -> Measurement:
        rates = {name: measure_rates(run, images) for name, run in variants.items()}
        found = Measurement(rates, spent=time.perf_counter() - wishes.started)
        found.save(wishes.folder)
        return found

    counts = {part: len(rows) for part, rows in images.parts.items()}
    settings = [[name, run.values, run.variants[name]] for name, run in variants.items()]
    key = make_key(images.class_names, images.membership, counts, settings, wishes.budget)
    title = "measure this machine and plan"
    measured = stages.run("plan", title, key=key, work=work, load=lambda: Measurement.find(wishes.folder))
    full = {run.stage: float(run.config(images).training.num_train_epochs) for run in runs if not run.solved}
    several = [run for run in firsts.values() if len(run.variants) > 1]
    students = [run.config(images).model for run in runs if run.teacher is not None]
    views = [
        options.teacher_views if options.teacher_sees == "crop" else 1
        for options in students
        if isinstance(options, StudentOptions)
    ]
    unlabelled = sum(len(found.rows) for found in find_unlabelled(images, wishes.unlabelled)) if views else 0
    ranking = sum(estimate_ranking(run, measured.rates, images) for run in several)

    def plan(chosen: list[Run], ranking: float) -> Plan:
        how: dict[str, Any] = {"budget": wishes.budget, "spent": measured.spent, "full": full, "ranking": ranking}
        how |= {"shots": choose_shots(images, wishes), "classes": len(images.class_names)}
        how |= {"unlabelled": unlabelled, "views": max(views, default=0)}
        how["kept"] = ["audit"] if wishes.drop_leaks else []
        return make_plan(chosen, images, measured.rates, rounds=PROFILE_ROUNDS, seconds=PROFILE_SECONDS, **how)

    gave_up = []
    if several and wishes.budget is not None and ranking > RANKING_SHARE * wishes.budget:
        for run in several:
            fastest = min(run.variants, key=lambda name: measured.rates[name].train)
            runs = choose_variant(runs, fastest)
            others = ", ".join(name for name in run.variants if name != fastest)
            gave_up.append(f"{run.name} takes {fastest}, which is the fastest; {others} were not compared with it.")
        several, ranking = [], 0.0
    planned = plan(runs, ranking)
    stages.plan(planned.seconds, beside=len(stages.finished))
    found = _rank(stages, several, images, firsts, key, wishes) if several else None
    if found is not None:
        for run in several:
            runs = choose_variant(runs, found.chosen[run.family])
        planned = plan(runs, ranking)
        stages.plan(planned.seconds, beside=1)
    planned = replace(planned, gave_up=gave_up + planned.gave_up)
    stages.announce(planned.gave_up)
    return runs, found, planned


def _rank(
    stages: Stages, several: list[Run], images: Images, firsts: dict[str, Run], key: str, wishes: Wishes
) -> Ranking:
    def work() -> Ranking:
        processors = {name: each for run in firsts.values() for name, each in run.processors.items()}
        rounds = {run.family: rank(run, images, processors) for run in several}
        found = Ranking(rounds, {name: ranked[-1].ranked[0].name for name, ranked in rounds.items()})
        found.save(wishes.folder)
        return found

    title = "choose the " + " and the ".join(find_family(run.family).chosen_option or "" for run in several)
    return stages.run("rank", title, key=key, work=work, load=lambda: Ranking.find(wishes.folder))


def prepare_images(stages: Stages, images: Images, runs: list[Run], plan: Plan, wishes: Wishes) -> Prepared:
    """Decode the images for all models at once, extract their features, and look at them before anything is trained.

    Raises:
        InputError: images cannot be read.
    """
    images = limit_images(
        images, train=plan.sizes["train"], evaluation=max(plan.sizes["validation"], plan.sizes["test"])
    )
    firsts = first_of_each(runs)

    def decode() -> str:
        images.decode_for([run.processors[run.variant] for run in firsts.values()])
        return fingerprint_of(images, runs)

    fingerprint = stages.run("decode", "decode the images", key="", work=decode)
    with_features = next((run for run in firsts.values() if "extract" in plan.seconds and run.solved), None)
    if with_features is None:
        return Prepared(images)
    prepared = _extract(stages, with_features, images, fingerprint, wishes)
    if "audit" not in plan.seconds:
        return prepared
    return _audit(stages, with_features, prepared, fingerprint_of(prepared.images, runs), wishes)


def fingerprint_of(images: Images, runs: list[Run]) -> str:
    """Of the images; it is the same at the resolution of each model."""
    return images.decode(*PARTS, processor=runs[0].processors[runs[0].variant]).fingerprint


def _extract(stages: Stages, run: Run, images: Images, fingerprint: str, wishes: Wishes) -> Prepared:
    """Extract the features of all parts; with a budget, of as many images of each part as its time allows."""
    config = settle_precision(run.config(images))
    options = config.model
    steps = 1 if wishes.budget is None else EXTRACTION_STEPS
    counts = {part: len(rows) for part, rows in images.parts.items()}

    def sizes(step: int) -> Extracted:
        evaluation = max(counts["validation"], counts["test"])
        fewest = len(images.class_names)
        train, evaluated = (max(fewest, size * step // steps) for size in (counts["train"], evaluation))
        return Extracted(train, evaluated)

    def work() -> Extracted:
        set_seed(config.training.seed)
        family = find_family(config.training.model)
        model, processor = build_model(config.training.model, labels=images.class_names, options=options)
        splits = images.decode(*PARTS, processor=processor)
        model.to(config.training.device, memory_format=torch.channels_last)
        deadline = stages.deadline("extract", wishes)
        done = {part: np.empty(0, dtype=np.int64) for part in PARTS}
        found = sizes(steps)
        for step in range(1, steps + 1):
            start = time.perf_counter()
            some = limit_images(images, train=sizes(step).train, evaluation=sizes(step).evaluation)
            for part in PARTS:
                split = splits.part(part)
                wanted = np.flatnonzero(np.isin(split.index, some.parts[part]["index"]))
                new = split if steps == 1 else split.take(np.setdiff1d(wanted, done[part]))
                done[part] = wanted
                how: dict[str, Any] = {"options": options, "train": True} if part == "train" else {}
                name = f"{'training' if part == 'train' else part} images"
                if len(new):
                    family.inputs(model, processor, new, name=name, seed=config.training.seed, **how)
            now = time.perf_counter()
            if step < steps and now + (now - start) > deadline:
                found = sizes(step)
                break
        found.save(wishes.folder)
        return found

    key = make_key(fingerprint, config.to_settings(), wishes.budget)
    found = stages.run(
        "extract", "extract the features", key=key, work=work, load=lambda: Extracted.find(wishes.folder)
    )
    images = limit_images(images, train=found.train, evaluation=found.evaluation)
    if found == sizes(steps):
        return Prepared(images)
    counted = ", ".join(f"{len(images.parts[part]):,} of {counts[part]:,} planned {part}" for part in PARTS)
    late = f"The extraction of features was stopped after {counted} images, because it took longer than planned."
    return Prepared(images, [late])


def _audit(stages: Stages, run: Run, prepared: Prepared, fingerprint: str, wishes: Wishes) -> Prepared:
    """Look for duplicates and suspect labels, and keep duplicates together in the parts that were drawn."""
    folder, images = wishes.folder / AUDIT_FOLDER, prepared.images
    options = vars(run.config(images).model)
    how = {name: options[name] for name in ("backbone", "backbone_weights", "feature_precision")}

    def work() -> Audit:
        found = audit(images, together=True, **how)
        save_audit(found, folder)
        return found

    key = make_key(fingerprint, how)
    found = stages.run("audit", "look at the data", key=key, work=work, load=lambda: Audit.find(folder))
    # The training runs record the audit, so that their own commands make the same parts.
    arguments = replace(images.arguments, audit=str(folder.absolute()), drop_leaks=wishes.drop_leaks)
    groups = [[(image.split, image.row) for image in group.images] for group in found.duplicates]
    images = keep_together(replace(images, arguments=arguments), groups)
    return replace(prepared, images=drop_leaks(images, groups) if wishes.drop_leaks else images, audit=found)


def choose_shots(images: Images, wishes: Wishes) -> list[int]:
    """Training images per class with which models that take gradient steps are trained too."""
    fewest = min(images.counts()["train"])
    return [count for count in SHOTS if count < fewest] if wishes.label_efficiency else []


def train_with_few(
    stages: Stages, runs: list[Run], images: Images, fingerprint: str, wishes: Wishes
) -> dict[str, list[CurvePoint]]:
    """The accuracy on validation of the models that take gradient steps, trained with few images per class."""
    # Validation takes the place of test, which is not read for this.
    held_out = replace(
        images,
        parts=images.parts | {"test": images.parts["validation"]},
        origins=images.origins | {"test": images.origins["validation"]},
    )
    firsts = {name: run for name, run in first_of_each(runs).items() if not run.solved}
    models = {name: run.variants[run.variant] for name, run in firsts.items()}
    shots = choose_shots(images, wishes)
    folder, key = wishes.folder / FEW_FOLDER, make_key(fingerprint, models)
    if not stages.is_begun("shots", key):
        shutil.rmtree(folder, ignore_errors=True)  # its points are of other images

    def work() -> dict[str, list[CurvePoint]]:
        folder.mkdir(exist_ok=True)
        how: dict[str, Any] = {"shots": shots, "seeds": [wishes.seed], "folder": folder}
        points = measure_label_efficiency(models=models, images=held_out, **how).points
        return {
            run.name: [CurvePoint(each.shots, each.accuracy, 0.0, 1, each.n) for each in points if each.model == name]
            for name, run in firsts.items()
        }

    # Each point is kept in the folder, so a stage that is finished reads them.
    return stages.run("shots", "train with few images", key=key, work=work) if shots else {}


def measure_curve(
    stages: Stages, runs: list[Run], images: Images, fingerprint: str, wishes: Wishes
) -> list[CurvePoint]:
    """The accuracy of a solved head on validation against training images per class, from cached features."""
    run = next(run for run in runs if run.solved)

    def work() -> LabelCurve:
        features = read_features(run, images)
        sides = (features.train.split, features.validation.split)
        arrays = [array for side in sides for array in (side.features[0], side.labels)]
        points = measure_label_curve(*arrays, class_count=len(images.class_names), seed=wishes.seed)
        found = LabelCurve(points)
        found.save(wishes.folder)
        return found

    key = make_key(fingerprint, run.config(images).to_settings())
    title = "measure accuracy against labels"
    return stages.run("curve", title, key=key, work=work, load=lambda: LabelCurve.find(wishes.folder)).points
