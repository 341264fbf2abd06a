"""What accelerate's own configuration sets: variables of the environment, and the file of --accelerator_config."""

from __future__ import annotations

import os
from typing import Any

from hfprobe.system.errors import InputError


def adopt_compilation(arguments: Any) -> None:
    """Set what the environment compiles the model with, so that it is recorded, compared by --resume and repeated.

    Args:
        arguments: RunArguments, before transformers has looked at them.
    """
    backend = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower()
    if backend != "no" and not (
        arguments.torch_compile or arguments.torch_compile_backend or arguments.torch_compile_mode
    ):
        arguments.torch_compile_backend = backend
        mode = os.environ.get("ACCELERATE_DYNAMO_MODE", "default")
        arguments.torch_compile_mode = None if mode == "default" else mode


def check_accelerator_config(arguments: Any) -> None:
    """Raise InputError for settings of --accelerator_config that a run of hfprobe cannot have.

    Args:
        arguments: RunArguments, once transformers has read the file.
    """
    config = arguments.accelerator_config
    if not config.use_seedable_sampler:
        raise InputError(
            "--accelerator_config sets use_seedable_sampler to false: the order of the images would depend on where a "
            "run was resumed. Leave it out."
        )
    if "num_steps" in (config.gradient_accumulation_kwargs or {}):
        raise InputError(
            "--accelerator_config sets num_steps of gradient_accumulation_kwargs. Pass --gradient_accumulation_steps "
            "instead."
        )
