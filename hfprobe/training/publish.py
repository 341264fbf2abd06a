"""The model that a run chose, pushed to the local hub folder with its model card."""

from __future__ import annotations

import inspect
import logging
import os
from dataclasses import replace

from hfprobe.data.arguments import IN_MEMORY, same_dataset
from hfprobe.data.splits.decoded import Splits
from hfprobe.hub import local as hub
from hfprobe.models import find_family
from hfprobe.models.passport import Passport
from hfprobe.settings.run_config import RunConfig
from hfprobe.statistics.imbalance import METRIC_NAMES, leading_metrics
from hfprobe.system import provenance
from hfprobe.system.model_files import read_run
from hfprobe.training.record import RunResult, describe_run
from hfprobe.training.trainer import ProbeTrainer

logger = logging.getLogger(__name__)


def push_best(
    trainer: ProbeTrainer, *, config: RunConfig, splits: Splits, result: RunResult, repository: str | None = None
) -> hub.Revision:
    """Push the model that the trainer holds to the local hub folder, with a card that says what it can do.

    Args:
        repository: the hub id that the revision is uploaded to afterwards; the card names it.
    """
    family = find_family(config.training.model)
    effective, dataset = config.to_dict(), config.data.dataset
    shown = [name for name, row in config.rows.items() if row.on_card]
    is_folder = os.path.exists(dataset)
    name = os.path.basename(os.path.abspath(dataset)) if is_folder else dataset  # not the folders of the user
    passport = Passport.of(trainer.model)
    assert passport is not None  # stamped by `build_trainer`
    record = describe_run(config=config, model=trainer.model, splits=splits, accelerator=trainer.described_accelerator)
    card = vars(record) | {
        "summary": (inspect.getmodule(family).__doc__ or "").strip(),
        "dataset": name,
        "base_model": family.base_model(trainer.model),
        # The hub refuses a card that lists it under `datasets`.
        "local_dataset": is_folder or dataset.startswith(IN_MEMORY),
        "source": splits.source.replace(dataset, name) if is_folder else splits.source,
        "settings": {name: effective["training"][name] for name in shown if name in effective["training"]}
        | {"effective_batch_size": config.effective_batch_size}
        | passport.solution
        | {name: effective["data"][name] for name in shown if name in effective["data"]}
        | effective["model"]
        | {"class_weights": passport.class_weights}
        | {"precision": config.training.recorded_precision}
        | family.describe(trainer.model),
        "hardware": provenance.hardware() | {"device": record.device},
        "solution": passport.solution,
        "result": result,
        "metrics": {METRIC_NAMES[name]: name for name in leading_metrics(result.images_per_class)},
        "repository": repository,
    }
    replace(passport, epochs=result.epochs, best_epoch=result.best_epoch, seconds=result.seconds).stamp(trainer.model)
    say_other_dataset(config)
    return hub.push_model(
        model=trainer.model,
        processor=trainer.processing_class,
        hub_dir=config.training.hub_dir,
        name=config.hub_name,
        card=card,
    )


def say_other_dataset(config: RunConfig) -> None:
    """Log that the newest model of this name was trained on a dataset elsewhere, whose folder has the same name.

    Nothing of that model is lost: it stays as a revision.
    """
    revisions = hub.list_revisions(hub_dir=config.training.hub_dir, name=config.hub_name)
    newest = next((revision for revision in revisions if revision.is_main), None)
    if newest is None:
        return
    dataset = read_run(newest.path).get("dataset")
    if dataset is not None and not same_dataset(dataset, config.data.dataset):
        logger.warning(
            "The newest %s so far was trained on '%s'. It stays as %s@%s. To keep the models of two datasets apart, "
            "rename one of the folders, or pass --hub_dir.",
            newest.name,
            dataset,
            newest.name,
            newest.commit[:12],
        )
