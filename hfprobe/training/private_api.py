"""The private methods of transformers' Trainer that hfprobe relies on. No other file names one.

A release of transformers may rename them or change their parameters.
tests/training/test_private_api.py compares the table with the installed version.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer


@dataclass(frozen=True)
class PrivateMethod:
    """A method of Trainer whose name begins with an underscore.

    Attributes:
        parameters: their names, without `self`.
        why: what hfprobe needs it for.
        instead: the public hook that would replace it, if Trainer had it.
    """

    parameters: tuple[str, ...]
    why: str
    instead: str


READING = "a checkpoint that cannot be loaded ends the run with a one-line error"
ERROR = "an error class of its own for a checkpoint that cannot be loaded"
PRIVATE_METHODS = {
    "_save_checkpoint": PrivateMethod(
        parameters=("model", "trial"),
        why="weights are checked before a checkpoint is saved; afterwards it is sealed and renamed",
        instead="a callback event before a checkpoint is saved; `on_save` comes after it",
    ),
    "_get_output_dir": PrivateMethod(
        parameters=("trial",),
        why="a checkpoint is staged in a folder other than `output_dir`",
        instead="a training argument for the folder of the checkpoints",
    ),
    "_load_from_checkpoint": PrivateMethod(
        parameters=("resume_from_checkpoint", "model"),
        why=f"{READING}; a run that had stopped early takes its best weights",
        instead=f"a method that loads the weights of a checkpoint, and {ERROR}",
    ),
    "_load_optimizer_and_scheduler": PrivateMethod(parameters=("checkpoint",), why=READING, instead=ERROR),
    "_load_rng_state": PrivateMethod(parameters=("checkpoint",), why=READING, instead=ERROR),
    "_get_grad_norm": PrivateMethod(
        parameters=("model", "grad_norm"),
        why="no step computes the gradient norm where nothing is clipped",
        instead="a training argument that switches the norm off",
    ),
}


class HookedTrainer(Trainer):
    """A Trainer whose private methods are hooks with public names: `staging`, `saving` and `reading`.

    Attributes:
        staging: while a checkpoint is saved, the folder that takes the place of `output_dir`; otherwise None.
    """

    staging: Path | None = None

    def saving(self) -> AbstractContextManager:
        """Entered before Trainer saves a checkpoint, left when all its files are written."""
        return contextlib.nullcontext()

    def reading(self, checkpoint: str | None) -> AbstractContextManager:
        """Entered whenever Trainer loads a part of a checkpoint."""
        return contextlib.nullcontext()

    def load_weights(self, checkpoint: str | Path) -> None:
        """Load a checkpoint's weights into the model."""
        self._load_from_checkpoint(str(checkpoint))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with self.saving():
            super()._save_checkpoint(model, trial)

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self.staging is None else str(self.staging)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with self.reading(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with self.reading(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with self.reading(checkpoint):
            super()._load_rng_state(checkpoint)

    def _get_grad_norm(self, model: Any, grad_norm: torch.Tensor | None = None) -> torch.Tensor | None:
        return grad_norm  # what clipping computed
