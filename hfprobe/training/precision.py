"""The precision of a run: `auto` replaced by what the device computes faster, once the model is built."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list
from transformers import BaseImageProcessor, PreTrainedModel

from hfprobe.data.pixels.transforms import input_size
from hfprobe.models import find_family
from hfprobe.settings.run_config import RunConfig
from hfprobe.system.precision import EMULATION, LEAST_GAIN, PRECISIONS, Precision, measure_speedup, preferred_precision
from hfprobe.training.record import find_precision, read_record
from hfprobe.training.run_files import RUN_FILE

logger = logging.getLogger(__name__)

# Images in a measured step: few, so that several steps of a large backbone fit into a second.
MEASURED_IMAGES = 8


def settle_precision(config: RunConfig, *, model: PreTrainedModel, processor: BaseImageProcessor) -> None:
    """Replace `auto` in the settings of a run, so that every record has what is computed; one log line says why.

    That is `precision`, and the option for the frozen part of the model where it has one.
    Where neither the processor nor torch can tell, some steps of the model are measured. All processes of a run take
    what the main process found. A resumed run takes what its record says, except bfloat16 on a device without native
    support.

    Args:
        config: its `training` and `model` are changed.
        model, processor: of the run, not changed.
    """
    arguments, options = config.training, config.model
    if "precision" in config.ignored_settings:
        if not arguments.bf16 and (arguments.precision == "bf16" or arguments.recorded_precision == "auto"):
            arguments.precision, arguments.mixed_precision = "fp32", "no"
    elif arguments.recorded_precision == "auto":
        found, reason = _choose("precision", config, model, processor)
        arguments.precision = found
        arguments.mixed_precision = "bf16" if found == "bf16" else "no"
        how = "in mixed precision: bf16" if found == "bf16" else "in float32"
        logger.info("Training %s, because %s.", how, reason)
    elif arguments.mixed_precision != "no":
        logger.info("Training in mixed precision: %s.", PRECISIONS[arguments.mixed_precision])
        on_cpu = arguments.device.type == "cpu"
        if arguments.mixed_precision == "bf16" and on_cpu and preferred_precision(arguments.device)[0] == "fp32":
            logger.warning("This CPU has no native bfloat16 support: training takes %s.", EMULATION)
    frozen = find_family(arguments.model).frozen_precision
    if frozen is not None and getattr(options, frozen) == "auto" and frozen not in config.ignored_settings:
        found, reason = _choose(frozen, config, model, processor)
        setattr(options, frozen, found)
        logger.info("Features of the training images in %s, because %s.", found, reason)


def _choose(
    name: str, config: RunConfig, model: PreTrainedModel, processor: BaseImageProcessor
) -> tuple[Precision, str]:
    """fp32 or bf16 for one setting, and the reason."""
    arguments = config.training
    found, reason = preferred_precision(arguments.device)
    folder = Path(arguments.output_dir)
    if arguments.resume and (folder / RUN_FILE).exists():
        settings = read_record(folder)["config"]
        before = settings["model"].get(name, "fp32")
        if name == "precision":
            before = find_precision(settings["training"])
        if found is None or before == "fp32":  # otherwise the difference is refused
            found, reason = before, "the run was started so"
    if found is None:
        images = torch.zeros(MEASURED_IMAGES, 3, *2 * [input_size(processor)])
        images = images.to(arguments.device, memory_format=torch.channels_last)
        if name == "precision":
            step = _make_training_step(model, images)
        else:
            model.to(images.device, memory_format=torch.channels_last).eval()
            step = partial(find_family(arguments.model).run_frozen, model, images)
        gain = measure_speedup(step, device=arguments.device)
        found = "bf16" if gain >= LEAST_GAIN else "fp32"
        reason = f"{reason}; measured, bf16 is {gain:.2f} times as fast as fp32"
    found, reason = broadcast_object_list([found, reason])
    return found, reason


def _make_training_step(model: PreTrainedModel, images: torch.Tensor) -> Callable[[], object]:
    """A function that computes the gradients of a copy of the model; random numbers are drawn as before afterwards."""
    model = copy.deepcopy(model).to(images.device, memory_format=torch.channels_last).train()
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)

    def step() -> None:
        with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
            model(pixel_values=images, labels=labels).loss.backward()

    return step
