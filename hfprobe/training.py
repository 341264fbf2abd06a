"""From a RunConfig to a trained model: data, Trainer and callbacks together, and a run folder that explains itself."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, Trainer
from transformers.integrations import TensorBoardCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerState
from transformers.trainer_utils import PredictionOutput

from hfprobe import checkpoints, hub, provenance
from hfprobe.callbacks import Curves, EarlyStopping, EpochProgress, Histograms, Profiler, SetEpoch
from hfprobe.config import RunArguments, RunConfig
from hfprobe.data.resident import ImageBatches
from hfprobe.data.splits import Splits
from hfprobe.errors import CheckFailedError
from hfprobe.features import FeatureBatches, extract_features, install_head, solve_head
from hfprobe.metrics import compute_metrics
from hfprobe.models import check_processor, initialize_from_images, model_module
from hfprobe.preflight import find_shortages, refuse
from hfprobe.recipes import AUGMENTATION
from hfprobe.results import write_json
from hfprobe.run_folder import RUN_FILE, check_same_run, holds_run, read_result
from hfprobe.statistics import fit_temperature, summarize_values
from hfprobe.trainer import ProbeTrainer, identity

logger = logging.getLogger(__name__)

# Of accelerate's mixed_precision, as run.json and the card name them.
PRECISIONS = {"no": "fp32", "bf16": "bf16", "fp16": "fp16"}
# Settings that the model card shows, each where it has an effect; then those of images and model.
CARD_SETTINGS = (
    "optim",
    "optimizer",
    "learning_rate",
    "lr_scale",
    "muon_learning_rate",
    "muon_momentum",
    "weight_decay",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "max_steps",
    "label_smoothing_factor",
    "patience",
)


def build_trainer(*, config: RunConfig, model: PreTrainedModel, processor: Any, splits: Splits) -> ProbeTrainer:
    """The Trainer of a run.

    Args:
        splits: train and validation are used; test is not touched.
    """
    arguments = config.training
    check_before_start(config=config, model=model, splits=splits)
    check_processor(model, processor)
    # Travels with the weights, so that an evaluation finds the same images again.
    model.config.run = {
        "recipe": arguments.recipe,
        "seed": arguments.seed,
        "split_seed": config.split_seed,
        "dataset": config.data.dataset,
        "data_fingerprint": splits.fingerprint,
    }
    if getattr(config.model, "first_filters", "random") == "principal":
        first = ImageBatches(splits.train, processor=processor).__getitems__(range(min(len(splits.train), 1000)))
        initialize_from_images(model, options=config.model, pixel_values=first["pixel_values"])
    with arguments.main_process_first(desc="feature extraction"):
        train, validation = make_datasets(config=config, model=model, processor=processor, splits=splits)
    trainer = ProbeTrainer(
        model=model.to(memory_format=torch.channels_last),  # the batches come so; a quarter faster on a CPU
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=identity,
        processing_class=processor,
        compute_metrics=compute_metrics,
        callbacks=[SetEpoch(train), EarlyStopping(arguments.patience)],
    )
    # What the features cost when they were made: a comparison is not to depend on what the cache holds.
    features = [part for part in (train, validation) if isinstance(part, FeatureBatches)]
    trainer.preparation_seconds = sum(part.split.seconds for part in features)
    trainer.pop_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback):
        trainer.add_callback(EpochProgress())
    folder = Path(arguments.output_dir)
    if arguments.profile:
        trainer.add_callback(Profiler(folder / "profile"))
    if trainer.pop_callback(TensorBoardCallback):
        curves = Curves(folder / "tensorboard")
        trainer.add_callback(curves)
        if arguments.histogram_epochs:
            trainer.add_callback(Histograms(curves, arguments.histogram_epochs))
    return trainer


def check_before_start(*, config: RunConfig, model: PreTrainedModel, splits: Splits) -> None:
    """Raise InputError or MachineError with everything that would end the run later, or spoil it."""
    arguments = config.training
    if arguments.resume and holds_run(arguments.output_dir):
        check_same_run(config, class_names=splits.class_names, fingerprint=splits.fingerprint)
    exact = getattr(config.model, "head", "sgd") == "exact"
    lacking = find_shortages(
        parameters=model.num_parameters(only_trainable=True),
        output_dir=Path(arguments.output_dir),
        kept=arguments.save_total_limit,
        epochs=0 if exact else arguments.num_train_epochs,
        # float64, before and after standardising
        feature_bytes=2 * 8 * config.model.views * len(splits.train) * model.config.feature_size if exact else 0,
    )
    refuse([], lacking)


def make_datasets(
    *, config: RunConfig, model: PreTrainedModel, processor: Any, splits: Splits
) -> tuple[ImageBatches | FeatureBatches, ImageBatches | FeatureBatches]:
    """Train and validation as the Trainer reads them: images, or cached features for a model with a frozen part."""
    seed = config.training.seed
    if getattr(config.model, "feature_cache", "off") == "off":
        return (
            ImageBatches(splits.train, processor=processor, augment=config.data.augmentation, seed=seed),
            ImageBatches(splits.validation, processor=processor),
        )
    model.to(config.training.device, memory_format=torch.channels_last)
    extract = partial(extract_features, model=model, processor=processor, seed=seed)
    return (
        FeatureBatches(extract(split=splits.train, views=config.model.views, name="training images")),
        FeatureBatches(extract(split=splits.validation, name="validation images")),
    )


@dataclass(frozen=True)
class RunResult:
    """What a run came to, on validation.

    Attributes:
        metrics: `accuracy`, `macro_f1` and `loss` of the weights that the model holds.
        n_validation: images they are over.
        epochs: trained until it ended.
        best_epoch: the one whose weights the model holds.
        seconds: of training, evaluations included, and of feature extraction, also where an earlier run did it.
    """

    metrics: dict[str, float]
    n_validation: int
    epochs: float
    best_epoch: float
    seconds: float


def train(trainer: ProbeTrainer, *, config: RunConfig, splits: Splits) -> RunResult:
    """Train, keep the best epoch's weights in the model, write `run.json` and the Trainer's own result files.

    `--resume` continues from the newest checkpoint; a run that was stopped before its first one starts again.

    Raises:
        CheckFailedError: a loss, a weight or a prediction is not finite; the weights do not give the figures that were
            logged for them; a frozen backbone changed.
    """
    arguments = config.training
    checkpoint = find_checkpoint(arguments) if arguments.resume else None
    precision = PRECISIONS[trainer.accelerator.mixed_precision]
    if precision != "fp32":
        logger.info("Training in mixed precision: %s.", precision)
    record = describe_run(config=config, model=trainer.model, splits=splits) | {"precision": precision}
    # The result of a run that is resumed after its end stays until there is a new one.
    if trainer.is_world_process_zero() and not (arguments.resume and read_result(arguments.output_dir)):
        write_json(Path(arguments.output_dir) / RUN_FILE, record)
    if getattr(config.model, "head", "sgd") == "exact":
        record["penalty"] = train_exact_head(trainer)
    elif checkpoint is not None and stopped_early(checkpoint, arguments):
        take_best(trainer, checkpoint)
    else:
        outcome = trainer.train(resume_from_checkpoint=checkpoint)
        if held_evaluation(trainer) is None:  # nothing was evaluated, or the last step was not
            trainer.evaluate()
        trainer.save_metrics("train", outcome.metrics)
        trainer.save_state()
    trainer.check_finite()
    logged = held_evaluation(trainer)
    predicted = trainer.predict(trainer.eval_dataset)
    evaluated_here = checkpoint is None or logged["step"] > checkpoints.step_of(checkpoint)
    metrics = check_figures(predicted, logged=logged, evaluated_here=evaluated_here)
    # Not `temperature`: transformers takes that for a setting of text generation and refuses to save it.
    temperature = fit_temperature(labels=predicted.label_ids, logits=predicted.predictions)
    if temperature == 1:
        logger.info("The calibration temperature stays at 1: the validation images determine no other.")
    trainer.model.config.calibration_temperature = temperature
    result = RunResult(
        metrics=metrics,
        n_validation=len(splits.validation),
        epochs=trainer.state.epoch,
        best_epoch=logged["epoch"],
        seconds=trainer.seconds,
    )
    check_frozen(trainer.model)
    if trainer.is_world_process_zero():
        if trainer.state.global_step == 0:  # no checkpoint holds a head that was solved
            trainer.model.save_pretrained(Path(arguments.output_dir) / "model")
            trainer.processing_class.save_pretrained(Path(arguments.output_dir) / "model")
        write_json(Path(arguments.output_dir) / RUN_FILE, record | {"result": asdict(result)})
    return result


def find_checkpoint(arguments: RunArguments) -> Path | None:
    """The newest intact checkpoint of the run; says which ones were passed over."""
    found, passed = checkpoints.find_newest(Path(arguments.output_dir))
    for sentence in passed:
        logger.warning("%s", sentence)
    if found is None:
        logger.info("No intact checkpoint was saved before the run was stopped: it starts again.")
    else:
        logger.info("Continuing from %s.", found)
    return found


def stopped_early(checkpoint: Path, arguments: RunArguments) -> bool:
    """Whether the run that a checkpoint is of has had as many evaluations without a better one as it may."""
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    return EarlyStopping(arguments.patience).is_exhausted(arguments, state)


def take_best(trainer: ProbeTrainer, checkpoint: Path) -> None:
    """Bring a trainer to where a run stood that had stopped early: its state, and the weights that it held."""
    trainer.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    logger.info("The run had stopped early, after epoch %g: nothing is left to train.", trainer.state.epoch)
    trainer.continue_from(checkpoint)
    best = trainer.state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
    trainer._load_from_checkpoint(best or str(checkpoint))


def train_exact_head(trainer: ProbeTrainer) -> float:
    """Solve the head on the cached features, evaluate it once; the penalty that validation chose."""
    head = solve_head(trainer.train_dataset.split, trainer.eval_dataset.split, classes=trainer.model.config.num_labels)
    install_head(trainer.model, head)
    trainer.model.config.run["penalty"] = head.penalty
    trainer.state.epoch = 1.0  # one pass over the images
    trainer.evaluate()
    return head.penalty


def check_frozen(model: PreTrainedModel) -> None:
    """Raise CheckFailedError where a frozen backbone is not what it was before training, to the bit."""
    before = getattr(model.config, "backbone_sha256", None)
    if before is not None and model.frozen_sha256() != before:
        raise CheckFailedError(
            f"The frozen backbone changed in training: SHA-256 {model.frozen_sha256()}, before {before}. "
            "Nothing was pushed; this is a bug, please report it with run.json."
        )


def push_best(
    trainer: ProbeTrainer, *, config: RunConfig, splits: Splits, result: RunResult, repository: str | None = None
) -> hub.Revision:
    """Push the model that the trainer holds to the local hub folder, with a card that says what it can do.

    Args:
        repository: where the revision is to be uploaded afterwards (`hfprobe.hub_client`); the card names it.
    """
    module = model_module(config.training.model)
    effective = config.to_dict()
    card = describe_run(config=config, model=trainer.model, splits=splits) | {
        "summary": module.__doc__.strip(),
        "dataset": config.data.dataset,
        "local_dataset": Path(config.data.dataset).is_dir(),  # the hub refuses a card that lists it under `datasets`
        "settings": {name: effective["training"][name] for name in CARD_SETTINGS if name in effective["training"]}
        | {"effective_batch_size": config.effective_batch_size, "penalty": trainer.model.config.run.get("penalty")}
        | {name: effective["data"][name] for name in AUGMENTATION if name in effective["data"]}
        | effective["model"]
        | {"precision": PRECISIONS[trainer.accelerator.mixed_precision]}
        | frozen_part(trainer.model),
        "result": result,
        "repository": repository,
    }
    trainer.model.config.run |= {"epochs": result.epochs, "best_epoch": result.best_epoch, "seconds": result.seconds}
    return hub.push_model(
        model=trainer.model,
        processor=trainer.processing_class,
        hub_dir=config.training.hub_dir,
        name=module.HUB_NAME,
        card=card,
    )


def summarize_seeds(runs: list[RunConfig]) -> dict[str, Any]:
    """Mean, standard deviation (of a sample: n - 1) and values over finished runs that differ in their seed."""
    results = [read_result(run.training.output_dir) for run in runs]
    values = {
        "validation_accuracy": [result["metrics"]["accuracy"] for result in results],
        "validation_macro_f1": [result["metrics"]["macro_f1"] for result in results],
        "seconds": [result["seconds"] for result in results],
    }
    return {
        "model": runs[0].training.model,
        "recipe": runs[0].training.recipe,
        "n": len(runs),
        "seeds": [run.training.seed for run in runs],
        "folders": [run.training.output_dir for run in runs],
        **{name: summarize_values(found) for name, found in values.items()},
    }


def evaluations(trainer: Trainer) -> list[dict[str, float]]:
    """The log's entries that are evaluations, in their order."""
    return [entry for entry in trainer.state.log_history if "eval_accuracy" in entry]


def held_evaluation(trainer: Trainer) -> dict[str, Any] | None:
    """The logged evaluation of the step whose weights the model holds after training; None where it was not evaluated.

    That is the step of the best checkpoint where Trainer loads it at the end, otherwise the last step.
    """
    best = trainer.state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
    step = trainer.state.global_step if best is None else checkpoints.step_of(best)
    return next((entry for entry in reversed(evaluations(trainer)) if entry["step"] == step), None)


def check_figures(predicted: PredictionOutput, *, logged: dict[str, Any], evaluated_here: bool) -> dict[str, float]:
    """`accuracy`, `macro_f1` and `loss` of the weights that are about to be pushed.

    Args:
        predicted: of the validation images, by these weights.
        logged: the evaluation that chose the weights.
        evaluated_here: whether this process logged it. Another machine may round otherwise, so that a figure from an
            earlier process may differ; what the weights score here is then reported.

    Raises:
        CheckFailedError: a logit is not finite; this process evaluated the weights and they now score otherwise.
    """
    if not np.isfinite(predicted.predictions).all():
        raise CheckFailedError("The model's predictions are not finite. Nothing was pushed. Use a smaller --lr.")
    found = {name: predicted.metrics[f"test_{name}"] for name in ("accuracy", "macro_f1", "loss")}
    expected = {name: logged[f"eval_{name}"] for name in found}
    counted = all(found[name] == expected[name] for name in ("accuracy", "macro_f1"))
    if counted and math.isclose(found["loss"], expected["loss"], rel_tol=1e-4, abs_tol=1e-6):
        return found
    text = (
        f"The weights of step {logged['step']} were evaluated with accuracy {expected['accuracy']:.2%}, macro-F1 "
        f"{expected['macro_f1']:.2%} and loss {expected['loss']:.4f}, and now score {found['accuracy']:.2%}, "
        f"{found['macro_f1']:.2%} and {found['loss']:.4f}."
    )
    if evaluated_here:
        raise CheckFailedError(f"{text} Nothing was pushed; this is a bug, please report it with run.json.")
    logger.warning("%s The evaluation is that of an earlier process; the present figures are reported.", text)
    return found


def frozen_part(model: PreTrainedModel) -> dict[str, str]:
    """Name, weights and SHA-256 of a frozen backbone; nothing for a model without one."""
    names = ("backbone", "backbone_weights", "backbone_sha256")
    return {name: getattr(model.config, name) for name in names if hasattr(model.config, name)}


def describe_run(*, config: RunConfig, model: PreTrainedModel, splits: Splits) -> dict[str, Any]:
    """What `run.json` holds before there is a result."""
    parameters = list(model.parameters())
    return {
        "model": config.training.model,
        "recipe": config.training.recipe,
        "seed": config.training.seed,
        "config": config.to_dict(),
        "class_names": splits.class_names,
        "source": splits.source,
        "data_fingerprint": splits.fingerprint,
        "images": {name: len(getattr(splits, name)) for name in ("train", "validation")},
        "parameters": sum(p.numel() for p in parameters),
        "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        **frozen_part(model),
        "processes": config.training.world_size,
        "effective_batch_size": config.effective_batch_size,
        "git_sha": provenance.git_sha(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware() | {"device": config.training.device.type},
    }
