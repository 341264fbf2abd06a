"""A run from its RunConfig to the pushed model; what `hfprobe train` and `hfprobe.train` call.

The imports at the top are the fast ones: whatever is wrong with the folders is reported before the slow imports.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hfprobe.settings.class_weights import check_class_names
from hfprobe.settings.run_config import RunConfig
from hfprobe.system.machine import use_every_core
from hfprobe.system.process import is_main_process
from hfprobe.system.ranks import first_before_others
from hfprobe.training.resume import check_output_dir, claimed

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedModel

    from hfprobe.data.splits.images import Images
    from hfprobe.hub.local import Revision
    from hfprobe.training.record import RunResult
    from hfprobe.training.trainer import ProbeTrainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinishedRun:
    """A trained and pushed model.

    Attributes:
        model: with the weights of the best epoch.
        processor: the image processor that belongs to it.
        result: its figures on validation.
        output_dir: the folder of the run.
        revision: in the local hub folder.
        uploaded: the address on the hub; None without `push_to_hub`.
    """

    model: PreTrainedModel
    processor: BaseImageProcessor
    result: RunResult
    output_dir: Path
    revision: Revision
    uploaded: str | None


def run_training(
    config: RunConfig,
    *,
    images: Images | None = None,
    prepare: Callable[[ProbeTrainer], None] = lambda trainer: None,
) -> FinishedRun | None:
    """Train a model, push its best epoch to the local hub folder, and upload it where `push_to_hub` is set.

    Args:
        images: those that `config.data` describes; loaded where they are None.
        prepare: called with the Trainer before it starts, to add or remove callbacks.

    Returns:
        The finished run; None in every process but the main one.

    Raises:
        InputError: the folders, the hub, the images or the settings cannot be used.
        CheckFailedError: see `hfprobe.training.fit.train`.
        MachineError: out of disk or memory; the upload failed, and the model is in the local hub folder.
        StoppedError: a signal ended the run, which can be resumed.
    """
    check_output_dir(config)

    from hfprobe.hub.upload import check_upload, upload_revision

    uploads = config.training.push_to_hub and is_main_process()
    repository = check_upload(config.training) if uploads else None

    from transformers import enable_full_determinism, set_seed

    from hfprobe.data.splits.images import load_images
    from hfprobe.models import build_model
    from hfprobe.training.assembly import build_trainer, settle
    from hfprobe.training.fit import train
    from hfprobe.training.lessons import prepare_lesson
    from hfprobe.training.publish import push_best
    from hfprobe.training.record import Pushed, RunRecord, path_from

    use_every_core()
    with first_before_others():
        if images is None:
            # The files of --audit and --labels may have changed since the run was started.
            record = RunRecord.find(config.training.output_dir) if config.training.resume else None
            images = load_images(config.data, seed=config.split_seed, edits=None if record is None else record.edits)
        config = config.for_images(images)
        check_class_names(config.training.class_weights, class_names=images.class_names)
        (enable_full_determinism if config.training.full_determinism else set_seed)(config.training.seed)
        model, processor = build_model(config.training.model, labels=images.class_names, options=config.model)
    splits = images.decode("train", "validation", processor=processor)
    with claimed(config.training) as output_dir:
        config = settle(config, splits)
        lesson = prepare_lesson(config, images=images, splits=splits, processor=processor)
        trainer = build_trainer(config=config, model=model, processor=processor, splits=splits, lesson=lesson)
        prepare(trainer)
        result = train(trainer, config=config, splits=splits)
        if not is_main_process():
            return None
        revision = push_best(trainer, config=config, splits=splits, result=result, repository=repository)
        pushed = Pushed(revision.name, revision.commit, path_from(output_dir, config.training.hub_dir))
        replace(RunRecord.load(output_dir), pushed=pushed).save(output_dir)
    uploaded = None
    if repository is not None:
        # Before the upload: where it fails, no FinishedRun is returned.
        logger.info("Validation accuracy %.2f%%. The model is in %s.", 100 * result.metrics["accuracy"], revision.path)
        uploaded = upload_revision(revision, repository=repository, arguments=config.training)
    return FinishedRun(trainer.model, processor, result, output_dir, revision, uploaded)
