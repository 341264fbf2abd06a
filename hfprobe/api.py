"""What hfprobe does, for Python: images in, models out, evaluations, comparisons. The command line calls the same code.

Errors are those of the command line, `hfprobe.InputError` (a ValueError), `hfprobe.CheckFailedError` and
`hfprobe.MachineError` (RuntimeErrors), with the same one-line messages, which name settings instead of flags.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hfprobe.data.arguments import DEFAULT_DATASET, IDENTITY, DataArguments
from hfprobe.data.memory import read_memory
from hfprobe.data.splits import images as splits
from hfprobe.data.splits.images import Images
from hfprobe.hub.local import resolve_model
from hfprobe.models.loading import load_model
from hfprobe.models.runtimes import RUNTIMES, Runtime, open_network
from hfprobe.settings.arguments import RunArguments
from hfprobe.settings.names import name_model
from hfprobe.settings.run_config import image_settings, make_run
from hfprobe.settings.values import check_value, one_line_errors
from hfprobe.system.errors import InputError, settings_instead_of_flags, shorten
from hfprobe.system.files import check_writable
from hfprobe.system.machine import quiet_bars
from hfprobe.system.setting import AUGMENTATION, rows_of
from hfprobe.tasks.audit import measure as audits
from hfprobe.tasks.audit.page import save_audit
from hfprobe.tasks.audit.result import Audit
from hfprobe.tasks.compare import measure as comparison
from hfprobe.tasks.compare.comparable import make_comparable, name_results, name_runs
from hfprobe.tasks.compare.page import save_comparison
from hfprobe.tasks.compare.result import Comparison
from hfprobe.tasks.decide.measure import decide_images
from hfprobe.tasks.decide.page import save_decision
from hfprobe.tasks.decide.result import Decision
from hfprobe.tasks.decide.verdict import MARGIN
from hfprobe.tasks.decide.wishes import AUTO, MODELS, Wishes
from hfprobe.tasks.evaluate.page import save_evaluation
from hfprobe.tasks.evaluate.result import EvalResult
from hfprobe.tasks.export.result import find_network
from hfprobe.tasks.profile.result import Profile
from hfprobe.trained_model import Model
from hfprobe.training.run_files import check_places
from hfprobe.training.start import run_training

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset, DatasetDict

# Settings of `train` that say which images these are; `load_images` has set them.
IMAGE_SETTINGS = [name for name, row in rows_of(DataArguments).items() if row.group != AUGMENTATION]


@settings_instead_of_flags(split_seed="seed")
@quiet_bars()
def load_images(
    dataset: str | Path | Dataset | DatasetDict | pd.DataFrame | tuple[Any, Any] = DEFAULT_DATASET,
    *,
    classes: Sequence[str] | None = None,
    max_train_samples: int | None = None,
    max_eval_samples: int | None = None,
    seed: int = 42,
    **settings: Any,
) -> Images:
    """Load images, choose classes, and make the parts train, validation and test.

    A split that the dataset has is used. What it lacks is drawn from its training images: 20 % to validate, and 20 % to
    test. Nothing is decoded yet: each model asks for the images at its own resolution.

    Args:
        dataset: hub id, or local folder or file: one folder per class, CSV, parquet, tar shards, save_to_disk, or zip.
            Or images in memory: a Dataset or a DatasetDict; a DataFrame with a column of images (paths, bytes, PIL
            images or uint8 arrays) and one of labels, found as in a CSV file; or a tuple (images, labels), with images
            as a uint8 array or tensor of shape (N, H, W, 3) or (N, H, W), a tensor of shape (N, 3, H, W), or a list,
            and N labels.
        classes: to keep, in the order of the label numbers; None: all of them, and of CIFAR-10 the five of the default
            task.
        max_train_samples, max_eval_samples: at most this many images, stratified; None: all.
        seed: of the splits that are drawn, and of subsets.
        settings: what `hfprobe train --help` lists about the dataset: dataset_config, train_split, validation_split,
            test_split, image_column, label_column, split_column, group_column, group_by, group_regex, audit,
            drop_leaks, labels, skip_unreadable, max_pixels.

    Raises:
        InputError: no such dataset or class; a class with too few images; images in memory that cannot be used.
    """
    unknown = [name for name in settings if name not in IDENTITY]
    if unknown:
        raise InputError(f"Unknown setting '{shorten(unknown[0])}' of images. Allowed: {', '.join(IDENTITY)}.")
    in_memory = not isinstance(dataset, str | os.PathLike)
    settings["dataset"] = "in memory" if in_memory else dataset
    settings |= {"max_train_samples": max_train_samples, "max_eval_samples": max_eval_samples}
    if classes is not None:
        settings["classes"] = classes if isinstance(classes, str) else list(classes)
    # The checks of the command line, before anything is loaded.
    with one_line_errors():
        seed = check_value("seed", seed, RunArguments)
        checked = {name: check_value(name, value, DataArguments) for name, value in settings.items()}
        data = DataArguments(split_seed=seed, **checked)
    source = None
    if in_memory:
        source, data = read_memory(dataset, data)
    return splits.load_images(data, seed=seed, source=source)


@settings_instead_of_flags()
@quiet_bars()
def audit(
    images: Images,
    *,
    backbone: str = "auto",
    backbone_weights: str = "hub",
    feature_precision: Literal["auto", "fp32", "bf16"] | None = None,
) -> Audit:
    """Look at images before a model is trained: duplicates, suspect labels and outliers, as `hfprobe audit` does.

    The features are cached: training a probe with the same backbone does not extract them again. `save_report` writes
    the page, and `hfprobe.tasks.audit.result.leaked_rows` names the test images that have a duplicate in train.

    Args:
        images: from `load_images`. Those that cannot be read are named and left out.
        backbone, backbone_weights, feature_precision: as for training a probe. "auto" takes ViT-Tiny if its weights can
            be had, else the best installed package of weights.

    Raises:
        InputError: a backbone that does not exist or whose weights cannot be had.
        MachineError: disk or memory ran out.
    """
    return audits.audit(
        images, backbone=backbone, backbone_weights=backbone_weights, feature_precision=feature_precision
    )


@settings_instead_of_flags()
def train(model: str, images: Images, *, recipe: str | None = None, **settings: Any) -> Model:
    """Train a model on the Hugging Face Trainer, as `hfprobe train` does, and push it to the local hub folder.

    Args:
        model: "cnn" or "probe".
        images: from `load_images`.
        recipe: of the model; None: its first.
        settings: what `hfprobe train --help` lists, such as epochs, lr, batch_size, seed, output_dir, overwrite and
            resume; for the probe also backbone, backbone_weights and head.

    Returns:
        The model of the best epoch on validation.

    Raises:
        InputError: a setting that cannot be used; an output folder that holds a run.
        CheckFailedError: the loss is not finite, or a check of the result failed.
        MachineError: disk or memory ran out.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("hfprobe.train runs in one process. For several: accelerate launch -m hfprobe train.")
    told = [name for name in IMAGE_SETTINGS if name in settings]
    if told:
        raise InputError(f"{', '.join(told)} cannot be set in train: the images say it. Set it in load_images.")
    config = make_run(model=model, recipe=recipe, **image_settings(images), split_seed=images.seed, **settings)
    with quiet_bars(own=not config.training.disable_tqdm):
        finished = run_training(config, images=images)
    assert finished is not None  # the only process is the main one
    return Model(
        model=finished.model.eval(),
        processor=finished.processor,
        name=finished.revision.name,
        revision=finished.revision.commit,
        folder=finished.revision.path,
        validation=finished.result.metrics,
        images=images,
    )


@settings_instead_of_flags()
@quiet_bars()
def load(model: str | Path, *, hub_dir: str | Path = "hub", runtime: Runtime = "torch") -> Model:
    """A model from a folder or from the local hub folder; no code from the folder is run.

    Args:
        model: a folder that `Model.save` or a run wrote, or a name in the hub folder: "hfprobe/simple-cnn", with "@"
            and a revision where it is not the newest.
        runtime: what computes its answers in `Model.predict` and `Model.evaluate`: "torch"; "onnx", onnxruntime with
            the file in float32 that `Model.export` wrote; "int8", that in int8. Both run on the CPU.

    Raises:
        InputError: no such model; damaged files; no export for this runtime, or onnxruntime is not installed.
    """
    if runtime not in RUNTIMES:
        raise InputError(f"runtime is {shorten(repr(runtime))}; allowed: {', '.join(map(repr, RUNTIMES))}.")
    folder = resolve_model(model=str(model), hub_dir=hub_dir)
    name = str(model).rstrip(os.sep)
    exported = find_network(folder, runtime, model=name, hub_dir=hub_dir)
    loaded, processor = load_model(folder)
    network = None if exported is None else open_network(loaded, exported)
    return Model(model=loaded, processor=processor, name=name, revision=folder.name, folder=folder, network=network)


def evaluate(
    model: Model | str | Path,
    images: Images | None = None,
    *,
    split: Literal["test", "validation"] = "test",
    temperature: bool = False,
    tta: bool = False,
) -> EvalResult:
    """`Model.evaluate`, for a model or for what `load` takes."""
    loaded = model if isinstance(model, Model) else load(model)
    return loaded.evaluate(images, split=split, temperature=temperature, tta=tta)


@settings_instead_of_flags()
def compare(
    *results: EvalResult | Sequence[EvalResult],
    names: Sequence[str] | None = None,
    profile: str | Path | None = None,
) -> Comparison:
    """Compare two or more models on the same images: differences, intervals, tests and a verdict.

    Args:
        results: an evaluation of each model, or a list with one of each of its training runs, which differ in their
            seed. With several runs, images and seeds together are the sample that a difference is judged by.
        names: of the models; None: their own.
        profile: a folder that `hfprobe profile` wrote, for speed and memory.

    Raises:
        InputError: fewer than two evaluations; evaluations of different images or classes; names that are not distinct;
            a list that is empty, or that holds the same run twice or different models.
    """
    if len(results) < 2:
        raise InputError(f"compare() needs two or more evaluations; got {len(results)}.")
    if not all(isinstance(result, EvalResult) or result for result in results):
        raise InputError("A list of evaluations is empty; allowed: one evaluation of each run of a model.")
    called = name_results(results) if names is None else list(names)
    if len(set(called)) != len(results) or len(called) != len(results):
        raise InputError(f"names are {shorten(called)}; allowed: {len(results)} different names.")
    comparable = make_comparable(dict(zip(called, results, strict=True)), places=name_runs(called, results))
    costs = None if profile is None else Profile.load(Path(profile))
    return comparison.compare(comparable, profile=costs)


@settings_instead_of_flags()
@quiet_bars()
def decide(
    images: Images,
    *,
    report_dir: str | Path | None = None,
    models: Sequence[str] = MODELS,
    backbones: Sequence[str] = AUTO,
    epochs: float | None = None,
    drop_leaks: bool = False,
    label_efficiency: bool = False,
    unlabelled: str | None = None,
    seed: int = 42,
    seeds: int = 1,
    margin: float = MARGIN,
    budget: float | None = None,
    hub_dir: str | Path = "hub",
) -> Decision:
    """Train, evaluate, profile and compare models on the same images, as `hfprobe decide` does, and write its page.

    After an interruption, the same call continues: stages that are finished are not repeated.

    Args:
        images: from `load_images`.
        report_dir: folder of decision.html, of the training runs and of the reports; None: reports/decision, followed
            by the name of the dataset.
        models: names of models, such as "cnn" and "probe".
        backbones: of the probe, as NAME or NAME=WEIGHTS with the values of `backbone` and `backbone_weights` of
            `train`; the best on validation is taken. "auto": all that can be had on this machine. Without any, the
            other models alone are trained, and the decision says what is missing.
        epochs: of the models that are trained by gradient steps; None: those of their recipes.
        drop_leaks: leave out training images that have a duplicate in validation or test, and validation images that
            have one in test, as the audit of the decision says.
        label_efficiency: train the models that are trained by gradient steps with few images too, for the curve over
            labels.
        unlabelled: images without labels, as `train --help` lists for `unlabelled`. The probe labels them for a third
            model, a CNN that learns from its answers. None: no such model.
        seed, seeds: the first seed, and the number of training runs of each model that is trained by gradient steps.
        margin: in [0, 1]; a smaller difference does not matter.
        budget: in seconds; it chooses the stages, the epochs and, if needed, the number of images. None: no limit.

    Returns:
        The decision: its `verdict`, the `winner` as a Model, and the `results` on test.

    Raises:
        InputError: a setting that cannot be used; a budget that is too small.
        CheckFailedError, MachineError: see `train`.
    """
    for name, value, low, high in (("margin", margin, 0, 1), ("budget", budget, 1e-3, 1e8)):
        if value is not None and not low <= value <= high:
            raise InputError(f"{name} is {shorten(value)}; allowed: {low:g} to {high:g}.")
    dataset = images.arguments.dataset
    folder = Path("reports") / name_model("decision", dataset=dataset) if report_dir is None else Path(report_dir)
    check_writable(folder, flag="report_dir")
    check_places(folder, flag="report_dir", dataset=dataset, hub_dir=hub_dir)
    wishes = Wishes(
        folder=folder,
        models=tuple(models),
        backbones=tuple(backbones),
        epochs=epochs,
        drop_leaks=drop_leaks,
        label_efficiency=label_efficiency,
        unlabelled=unlabelled,
        seed=check_value("seed", seed, RunArguments),
        seeds=check_value("seeds", seeds, RunArguments),
        margin=margin,
        budget=budget,
        hub_dir=str(hub_dir),
    )
    decision = decide_images(images, wishes)
    save_decision(decision, folder)
    best = decision.candidates[decision.judgement.best]
    winner = load(f"{best.name}@{best.revision}", hub_dir=hub_dir)
    return replace(decision, winner=replace(winner, name=best.name, images=images))


@settings_instead_of_flags()
def save_report(result: EvalResult | Comparison | Audit, folder: str | Path) -> Path:
    """Write an evaluation, a comparison or an audit to a folder: its JSON, tables, and a page for a browser.

    Returns:
        The page, report.html, comparison.html or audit.html.

    Raises:
        InputError: the folder cannot be written, or is or lies in that of a dataset.
        MachineError: the disk is full.
    """
    folder = Path(folder)
    check_writable(folder, flag="folder")
    if isinstance(result, Audit):
        check_places(folder, flag="folder", dataset=result.provenance.dataset)
        return save_audit(result, folder)
    results = result.results.values() if isinstance(result, Comparison) else [result]
    for dataset in [dataset for one in results for dataset in one.datasets]:
        check_places(folder, flag="folder", dataset=dataset)
    return save_comparison(result, folder) if isinstance(result, Comparison) else save_evaluation(result, folder)
