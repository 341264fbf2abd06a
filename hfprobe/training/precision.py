"""The precision of a run: `auto` replaced by what the device computes faster, before the run starts."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from accelerate.utils import broadcast_object_list

from hfprobe.models import find_family
from hfprobe.settings.run_config import RunConfig
from hfprobe.system.precision import EMULATION, PRECISIONS, Precision, preferred_precision
from hfprobe.training.record import RunRecord
from hfprobe.training.run_files import RUN_FILE

logger = logging.getLogger(__name__)


def settle_precision(config: RunConfig) -> RunConfig:
    """The run with what `auto` stands for in its settings, so that every record has it; one log line says why.

    That is `precision`, and the option for the frozen part of the model where it has one.
    A device that is not known to have native bfloat16 support computes in float32. All processes of a run take what the
    main process found. A resumed run takes what its record says, except bfloat16 on a device without native support.
    """
    arguments = config.training
    if "precision" in config.ignored_settings:
        if not arguments.bf16 and (arguments.precision == "bf16" or arguments.recorded_precision == "auto"):
            config = config.with_training(precision="fp32", mixed_precision="no")
    elif arguments.recorded_precision == "auto":
        found, reason = _choose("precision", config)
        config = config.with_training(precision=found, mixed_precision="bf16" if found == "bf16" else "no")
        how = "in mixed precision: bf16" if found == "bf16" else "in float32"
        logger.info("Training %s, because %s.", how, reason)
    elif arguments.mixed_precision != "no":
        logger.info("Training in mixed precision: %s.", PRECISIONS[arguments.mixed_precision])
        on_cpu = arguments.device.type == "cpu"
        if arguments.mixed_precision == "bf16" and on_cpu and preferred_precision(arguments.device)[0] == "fp32":
            logger.warning("This CPU has no native bfloat16 support: training takes %s.", EMULATION)
    frozen = find_family(arguments.model).frozen_precision
    if frozen is not None and getattr(config.model, frozen) == "auto" and frozen not in config.ignored_settings:
        found, reason = _choose(frozen, config)
        config = replace(config, model=replace(config.model, **{frozen: found}))
        logger.info("Features of the training images in %s, because %s.", found, reason)
    return config


def _choose(name: str, config: RunConfig) -> tuple[Precision, str]:
    """fp32 or bf16 for one setting, and the reason."""
    arguments = config.training
    found, reason = preferred_precision(arguments.device)
    folder = Path(arguments.output_dir)
    if arguments.resume and (folder / RUN_FILE).exists():
        settings = RunRecord.load(folder).config
        before = (settings.training if name == "precision" else settings.model).get(name, "fp32")
        if found is None or before == "fp32":  # otherwise the difference is refused
            found, reason = before, "the run was started so"
    found, reason = broadcast_object_list([found or "fp32", reason])
    return found, reason
