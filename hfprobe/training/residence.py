"""Where the images of a run are kept while it trains: `--resident`."""

from __future__ import annotations

import logging
import math

import torch

from hfprobe.data.pixels.resident import ResidentBatches, is_shifted, resident_bytes
from hfprobe.data.pixels.store import ImageBatches
from hfprobe.models.base import Inputs
from hfprobe.models.student import StudentOptions
from hfprobe.settings.run_config import RunConfig
from hfprobe.system.errors import MachineError
from hfprobe.system.machine import available_memory

logger = logging.getLogger(__name__)

# Of the free memory of a GPU, for the images where `auto` decides; the rest is for the model and its activations.
LARGEST_SHARE = 0.5


def find_obstacle(config: RunConfig) -> tuple[str, str] | None:
    """Why a run cannot keep its images on the device that trains, and what to pass; None where it can."""
    augmentation, arguments, options = config.data.augmentation, config.training, config.model
    if isinstance(options, StudentOptions) and options.has_teacher:
        return "images with the answers of a teacher are read from the host", "--teacher none"
    if augmentation is not None and not is_shifted(augmentation):
        return "--crop resized interpolates, which devices round differently", "--crop shift"
    if arguments.dataloader_num_workers:
        return "loader workers cannot read the memory of a device", "--dataloader_num_workers 0"
    if arguments.dataloader_pin_memory:
        return "--dataloader_pin_memory pins images of the host only", "--dataloader_pin_memory false"
    return None


def check_residence(config: RunConfig) -> list[str]:
    """One line if a run cannot have `--resident device`; otherwise none."""
    obstacle = find_obstacle(config)
    if config.training.resident != "device" or "resident" in config.ignored_settings or obstacle is None:
        return []
    reason, remedy = obstacle
    return [f"--resident device: {reason}. Pass {remedy}, or leave out --resident."]


def place_inputs(config: RunConfig, *parts: Inputs) -> tuple[Inputs, ...]:
    """The inputs of a run where `--resident` wants them; on a GPU, one log line says where they are.

    Inputs that are not images stay as they are.

    Raises:
        MachineError: the device has too little free memory for the images.
    """
    arguments = config.training
    wanted, device = arguments.resident, arguments.device
    images = [part for part in parts if isinstance(part, ImageBatches)]
    if wanted == "host" or "resident" in config.ignored_settings or len(images) < len(parts):
        return parts
    if wanted == "auto" and device.type != "cuda":
        return parts
    needed, free = sum(map(resident_bytes, images)), free_memory(device)
    sizes = f"they take {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB of {device} are free"
    if wanted == "auto":
        obstacle = find_obstacle(config)
        if obstacle is not None or needed > LARGEST_SHARE * free:
            logger.info("Images stay on the host: %s.", sizes if obstacle is None else obstacle[0])
            return parts
    elif needed > free:
        raise MachineError(
            f"--resident device: the images do not fit, {sizes}. Pass --resident host or a smaller --max_train_samples."
        )
    if device.type == "cuda":
        logger.info("Images are kept on the device: %s.", sizes)
    return tuple(ResidentBatches(part, device=device) for part in images)


def free_memory(device: torch.device) -> float:
    """Free bytes of the memory of a device; infinite where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    available = available_memory()
    return math.inf if available is None else available
