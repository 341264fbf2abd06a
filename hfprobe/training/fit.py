"""The training itself: fit the weights, check the figures that they give, write the result to the run folder."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import PredictionOutput

from hfprobe.data.splits.decoded import Splits
from hfprobe.models import find_family
from hfprobe.models.base import STATISTICS
from hfprobe.models.passport import Passport
from hfprobe.models.thresholds import Thresholds
from hfprobe.settings.arguments import RunArguments
from hfprobe.settings.files import write_config_file
from hfprobe.settings.run_config import RunConfig
from hfprobe.statistics.imbalance import METRIC_NAMES, score_baseline
from hfprobe.statistics.intervals import fit_temperature
from hfprobe.statistics.selective import choose_thresholds
from hfprobe.system import process
from hfprobe.system.errors import CheckFailedError
from hfprobe.system.model_files import PROCESSOR_FILE
from hfprobe.system.ranges import ACCURACIES
from hfprobe.training import checkpoints
from hfprobe.training.callbacks import EarlyStopping
from hfprobe.training.callbacks.profiler import NOTHING_LEFT
from hfprobe.training.record import RunRecord, RunResult, describe_run
from hfprobe.training.run_files import MODEL_FOLDER
from hfprobe.training.trainer import ProbeTrainer

logger = logging.getLogger(__name__)


def train(trainer: ProbeTrainer, *, config: RunConfig, splits: Splits) -> RunResult:
    """Train, keep the best epoch's weights in the model, write `run.json` and the Trainer's own result files.

    `--resume` continues from the newest checkpoint; a run that was stopped before its first one starts again.

    Raises:
        CheckFailedError: a loss, a weight or a prediction is not finite; the weights do not give the figures that were
            logged for them; a frozen backbone changed.
    """
    arguments = config.training
    checkpoint = find_checkpoint(arguments) if arguments.resume else None
    family = find_family(arguments.model)
    describe = partial(describe_run, config=config, splits=splits, accelerator=trainer.described_accelerator)
    record = describe(model=trainer.model)
    # The result of a run that is resumed after its end stays until there is a new one.
    before = RunRecord.find(arguments.output_dir) if arguments.resume else None
    if trainer.is_world_process_zero() and not (before and before.result):
        record.save(arguments.output_dir)
    if trainer.is_world_process_zero():  # after run.json, which tells that the folder is a run's
        write_config_file(Path(arguments.output_dir) / "config.yaml", config.to_settings())
    process.advice = (
        f"To continue from what is saved in {arguments.output_dir}, {checkpoints.resume_command(arguments)}."
    )
    if checkpoint is not None:
        # Computed again by other versions of the libraries, their last bits may differ.
        saved = json.loads((checkpoint / PROCESSOR_FILE).read_text())
        for name in STATISTICS:
            setattr(trainer.processing_class, name, saved[name])
    try:
        chosen, logged = fit(trainer, config=config, checkpoint=checkpoint)
        passport = Passport.of(trainer.model)
        assert passport is not None  # stamped by `build_trainer`
        trainer.check_finite()
        predicted = trainer.predict(trainer.eval_dataset)
    finally:
        trainer.close_loaders()
    if arguments.mixed_precision != "no":
        # Without accelerate's autocast: whoever uses the model afterwards computes in float32.
        trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    evaluated_here = checkpoint is None or logged["step"] > checkpoints.step_of(checkpoint)
    metrics = check_figures(predicted, logged=logged, evaluated_here=evaluated_here)
    # Not `temperature`: transformers takes that for a setting of text generation and refuses to save it.
    temperature = fit_temperature(labels=predicted.label_ids, logits=predicted.predictions)
    if temperature == 1:
        logger.info("The calibration temperature stays at 1: the validation images determine no other.")
    trainer.model.config.calibration_temperature = temperature
    find_thresholds(predicted, temperature=temperature).stamp(trainer.model)
    refitted = refit(trainer, config=config, chosen=chosen)
    replace(passport, solution=chosen, refit=refitted).stamp(trainer.model)
    solved = family.is_solved(config.model)
    result = RunResult(
        metrics=metrics,
        baseline=score_baseline(predicted.label_ids, class_names=splits.class_names, answer=passport.majority_class),
        n_validation=len(splits.part("validation")),
        images_per_class=splits.images_per_class("validation").tolist(),
        epochs=None if solved else trainer.state.epoch,
        best_epoch=None if solved else logged.get("epoch"),
        seconds=trainer.seconds,
        refit=refitted,
    )
    try:
        family.check_weights(trainer.model)
    except ValueError as error:
        raise CheckFailedError(
            f"Training changed weights that are frozen: {error}. Nothing was pushed; this is a bug, please report it "
            "with run.json."
        ) from error
    if trainer.is_world_process_zero():
        if solved:  # no checkpoint holds the weights
            trainer.model.save_pretrained(Path(arguments.output_dir) / MODEL_FOLDER)
            trainer.processing_class.save_pretrained(Path(arguments.output_dir) / MODEL_FOLDER)
        record = describe(model=trainer.model)  # a search may have chosen a smaller head
        replace(record, solution=chosen, result=result).save(arguments.output_dir)
    return result


def fit(
    trainer: ProbeTrainer, *, config: RunConfig, checkpoint: Path | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Solve the weights in closed form, or let the Trainer take gradient steps; then evaluate them once.

    Returns:
        The settings that were chosen on validation, name -> value; the logged evaluation of the weights.
    """
    family, outcome = find_family(config.training.model), None
    chosen: dict[str, Any] = {}
    if family.is_solved(config.model):
        chosen = family.solve(trainer.model, **_data_of(trainer, config))
    elif checkpoint is not None and stopped_early(checkpoint, config.training):
        take_best(trainer, checkpoint)
    else:
        outcome = trainer.train(resume_from_checkpoint=checkpoint)
    logged = held_evaluation(trainer)
    if logged is None:  # nothing was evaluated, or the last step was not
        trainer.evaluate()
        logged = evaluations(trainer)[-1]
    if outcome is not None:
        trainer.save_metrics("train", outcome.metrics)
        trainer.save_state()
    return chosen, logged


def refit(trainer: ProbeTrainer, *, config: RunConfig, chosen: dict[str, Any]) -> bool:
    """Compute the final weights on train + validation, if the model's options say so; whether they do.

    After this, the figures of the validation images would not be honest: those of the weights before stay.

    Args:
        chosen: of `fit`.

    Raises:
        CheckFailedError: a weight is not finite.
    """
    done = find_family(config.training.model).refit(trainer.model, **_data_of(trainer, config), solution=chosen)
    if done:
        trainer.check_finite()
        logger.info("Solved on train + validation. The validation figures are those of the weights before that.")
    return done


def _data_of(trainer: ProbeTrainer, config: RunConfig) -> dict[str, Any]:
    """What a solver of a model gets."""
    return {
        "train": trainer.train_dataset,
        "validation": trainer.eval_dataset,
        "options": config.model,
        "class_weights": trainer.class_weights,
    }


def find_checkpoint(arguments: RunArguments) -> Path | None:
    """The newest intact checkpoint of the run; the log names those that were passed over."""
    found, passed = checkpoints.find_newest(Path(arguments.output_dir))
    for sentence in passed:
        logger.warning("%s", sentence)
    if found is None:
        logger.info("No intact checkpoint was saved before the run was stopped: it starts again.")
    else:
        logger.info("Continuing from %s.", found)
    return found


def stopped_early(checkpoint: Path, arguments: RunArguments) -> bool:
    """Whether a run had stopped early when it saved this checkpoint."""
    state = TrainerState.load_from_json(str(checkpoint / checkpoints.STATE_FILE))
    return EarlyStopping(arguments.patience).is_exhausted(arguments, state)


def take_best(trainer: ProbeTrainer, checkpoint: Path) -> None:
    """Give a trainer the state and the weights of a run that had stopped early."""
    trainer.state = TrainerState.load_from_json(str(checkpoint / checkpoints.STATE_FILE))
    logger.info("The run had stopped early, after epoch %g: nothing is left to train.", trainer.state.epoch)
    if trainer.args.profile:
        logger.warning(NOTHING_LEFT)
    trainer.continue_from(checkpoint)
    best = trainer.state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
    trainer.load_weights(best or checkpoint)


def evaluations(trainer: Trainer) -> list[dict[str, Any]]:
    """The evaluations in the log, in order."""
    return [entry for entry in trainer.state.log_history if "eval_accuracy" in entry]


def held_evaluation(trainer: Trainer) -> dict[str, Any] | None:
    """The logged evaluation of the step whose weights the model holds after training; None where it was not evaluated.

    That is the step of the best checkpoint where Trainer loads it at the end, otherwise the last step.
    """
    best = trainer.state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
    step = trainer.state.global_step if best is None else checkpoints.step_of(best)
    return next((entry for entry in reversed(evaluations(trainer)) if entry["step"] == step), None)


def find_thresholds(predicted: PredictionOutput, *, temperature: float) -> Thresholds:
    """The thresholds of the validation images for ACCURACIES, of the probabilities that evaluation computes."""
    logits, labels = torch.from_numpy(predicted.predictions).float(), predicted.label_ids
    plain, calibrated = (
        choose_thresholds(labels=labels, probabilities=(logits / divisor).softmax(-1).numpy(), accuracies=ACCURACIES)
        for divisor in (1.0, temperature)
    )
    return Thresholds(plain, calibrated)


def check_figures(predicted: PredictionOutput, *, logged: dict[str, Any], evaluated_here: bool) -> dict[str, float]:
    """`accuracy`, `macro_f1`, `balanced_accuracy` and `loss` of the weights that are about to be pushed.

    Args:
        predicted: of the validation images, by these weights.
        logged: the evaluation that chose the weights.
        evaluated_here: whether this process logged it. Another machine may round differently, so a figure of an
            earlier process may differ; the figures found here are then reported.

    Raises:
        CheckFailedError: a logit is not finite; this process evaluated the weights and now gets other figures.
    """
    if not np.isfinite(predicted.predictions).all():
        raise CheckFailedError("The model's predictions are not finite. Nothing was pushed. Use a smaller --lr.")
    found = {name: predicted.metrics[f"test_{name}"] for name in (*METRIC_NAMES, "loss")}
    expected = {name: logged[f"eval_{name}"] for name in found}
    counted = all(found[name] == expected[name] for name in METRIC_NAMES)
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
