"""The Trainer of every run: transformers' own, with atomic checkpoints and without unused per-step bookkeeping."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch.utils.data import DataLoader
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_callback import TrainerCallback, TrainerControl, TrainerState
from transformers.training_args import HubStrategy, TrainingArguments

from hfprobe.settings.arguments import RunArguments
from hfprobe.settings.schedules import check_rates, warn_about_warmup
from hfprobe.system.errors import CheckFailedError, MachineError
from hfprobe.system.files import write_json
from hfprobe.training import checkpoints
from hfprobe.training.callbacks import StopOnSignal
from hfprobe.training.loaders import PersistentLoader, make_persistent
from hfprobe.training.loss import weighted_cross_entropy
from hfprobe.training.optimizers import make_optimizer, scale_learning_rates
from hfprobe.training.private_api import HookedTrainer
from hfprobe.training.record import describe_accelerator
from hfprobe.training.refusals import setting_up

# What the system, torch and safetensors raise where a file cannot be written.
FULL_DISK = (OSError, RuntimeError, SafetensorError)
LOGGED_LOSSES = {"loss": "training loss", "train_loss": "mean training loss", "eval_loss": "validation loss"}


def identity(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A collator for datasets whose `__getitems__` gives a finished batch."""
    return batch


class ProbeTrainer(HookedTrainer):
    """HF Trainer with training accuracy in its logs, more optimizers, and without unused per-step bookkeeping.

    Skipped at every step: the count of floating point operations, the gradient norm where nothing is clipped and the
    search for NaN in the loss. Numbers that are not finite are found when they are logged, and weights that are not
    finite when a checkpoint is saved; both end the run.

    The validation loss is the mean cross entropy of the images in nats, without the label smoothing and the class
    weights of the training loss. It depends neither on the number of processes nor on the batch size.

    Checkpoints are atomic (`hfprobe.training.checkpoints`). They hold the sums of the epoch so far, and a signal saves
    one (`StopOnSignal`).
    """

    args: RunArguments
    optimizer: torch.optim.Optimizer | None
    reading = staticmethod(checkpoints.reading)

    def __init__(self, *, class_weights: np.ndarray | None = None, **kwargs: Any):
        with setting_up():
            super().__init__(**kwargs)
        self.described_accelerator = describe_accelerator(self.accelerator)  # now: the next RunConfig resets its state
        self.class_weights = class_weights  # (C,), with the mean 1 over the training images
        # On the device: copied to it at each step, the weights would make the step wait for it.
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self._weights = None if weights is None else weights.to(self.args.device)
        # Trainer would upload output_dir, a pickle included, while a checkpoint is being staged there.
        self.args.hub_strategy = HubStrategy.END
        # Sums for the next log entry. On the device and read only when logged: no step waits for them.
        self._loss = torch.zeros((), device=self.args.device)
        self._correct = torch.zeros((), dtype=torch.int64, device=self.args.device)
        self._seen = 0
        self._logged_step = 0
        self.preparation_seconds = 0.0  # of feature extraction, in this run or in an earlier one
        self._seconds_before = 0.0  # of training, before the run was resumed
        self._start = time.perf_counter()
        self._resumed_from: Path | None = None
        self._loaders: list[PersistentLoader] = []
        self._begun = False  # True once loader, model, optimizer and schedule are set up
        self._stopper = StopOnSignal()
        self.add_callback(self._stopper)
        self.add_callback(_Continue(self))

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        is_new = self.optimizer is None
        if self.args.optimizer != "optim" and is_new:
            self.optimizer = make_optimizer(self.args.optimizer, self.model, self.args)
        optimizer = super().create_optimizer(model)
        if is_new:
            scale_learning_rates(optimizer, self.args.lr_scale)
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        schedule = super().create_scheduler(num_training_steps, optimizer)
        # Checked again, now that the number of steps is known: the warm-up may be as long as the run.
        warmup = self.args.get_warmup_steps(num_training_steps)
        check_rates(schedule, steps=num_training_steps, warmup=warmup)
        if self.is_world_process_zero():
            warn_about_warmup(schedule, steps=num_training_steps, warmup=warmup)
        self._begun = True
        return schedule

    def get_train_dataloader(self) -> DataLoader:
        return self._keep(super().get_train_dataloader())

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        return self._keep(super().get_eval_dataloader(eval_dataset))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        return self._keep(super().get_test_dataloader(test_dataset))

    def _keep(self, loader: Any) -> Any:
        if self.args.dataloader_persistent_workers and not isinstance(loader, PersistentLoader):
            self._loaders.append(make_persistent(loader, seed=self.args.seed))
        return loader

    def close_loaders(self) -> None:
        """End the persistent workers; a loader that is used again starts new ones."""
        for loader in self._loaders:
            loader.close()

    def init_hf_repo(self, *args: Any, **kwargs: Any) -> None:
        """Nothing. Trainer would make a repository before training; `hfprobe.hub.upload` uploads the finished model."""

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        # Trainer keeps such a sum too, but a resumed run would begin it anew.
        if self.args.logging_nan_inf_filter and not loss.isfinite():
            self._loss += self._loss / (1 + self.state.global_step - self._logged_step)
        else:
            self._loss += loss
        return loss

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any) -> Any:
        labels = inputs["labels"]
        if not model.training:  # comparable between runs that differ in label smoothing
            if model is self.model and self.args.mixed_precision != "no":
                # accelerate replaces the model's own `forward` by one under autocast. Evaluated in float32, the figures
                # of a run are those of its published weights, and do not depend on the machine.
                outputs = type(model).forward(model, **inputs)
            else:
                outputs = model(**inputs)
            loss = torch.nn.functional.cross_entropy(outputs["logits"], labels)
        else:
            if "targets" in inputs:
                outputs = model(**{name: value for name, value in inputs.items() if name not in ("labels", "targets")})
                labels = inputs["targets"].argmax(-1)  # images without a label count by the answer of the teacher
                weights = None if self._weights is None else self._weights.to(inputs["targets"])
                loss = torch.nn.functional.cross_entropy(outputs["logits"], inputs["targets"], weight=weights)
            elif self._weights is None:
                loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
            else:
                outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
                how: dict[str, Any] = {"weights": self._weights, "smoothing": self.args.label_smoothing_factor}
                loss = weighted_cross_entropy(outputs["logits"], labels, **how)
            self._correct += (outputs["logits"].detach().argmax(-1) == labels).sum()
            self._seen += len(labels)
        return (loss, outputs) if return_outputs else loss

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        if self.args.world_size > 1:
            # BatchNorm's statistics are those of each process's own last batch. The main process saves its own, so all
            # evaluate with these; before the next training step DistributedDataParallel copies them in the same way.
            for statistics in self.model.buffers():
                torch.distributed.broadcast(statistics, src=0)
        output = super().evaluation_loop(*args, **kwargs)
        # Trainer averages over batches, in which images are repeated where several processes share them. The logits are
        # gathered with each image once.
        logits, labels = torch.from_numpy(output.predictions).double(), torch.from_numpy(output.label_ids)
        loss = torch.nn.functional.cross_entropy(logits, labels).item()
        output.metrics[f"{kwargs['metric_key_prefix']}_loss"] = loss
        return output

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the accuracy since the last entry, and the loss since then, even if the run was resumed in between.

        Raises:
            CheckFailedError: a number is not finite. Earlier checkpoints stay.
        """
        if not math.isfinite(logs.get("grad_norm", 0.0)):
            del logs["grad_norm"]  # float16 skips such a step; otherwise the next loss is not finite either
        is_training = "loss" in logs and self._seen > 0
        if is_training:
            loss = self.accelerator.gather(self._loss[None]).mean().item()
            logs["loss"] = loss / (self.state.global_step - self._logged_step)
        for name, value in logs.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise self._diverged(f"The {LOGGED_LOSSES.get(name, name)} is {value}")
        if is_training:
            counts = torch.stack([self._correct, torch.full_like(self._correct, self._seen)])
            correct, seen = self.accelerator.gather(counts[None]).sum(0)
            logs["accuracy"] = (correct / seen).item()
            self._reset_sums()
        super().log(logs, start_time)

    def _reset_sums(self) -> None:
        self._loss.zero_()
        self._correct.zero_()
        self._seen = 0
        self._logged_step = self.state.global_step

    def check_finite(self) -> None:
        """Raise CheckFailedError naming the first weight of the model that is not finite."""
        for name, weight in self.model.state_dict().items():
            if not weight.isfinite().all():
                raise self._diverged(f"The weight {name} is not finite")

    def _diverged(self, found: str) -> CheckFailedError:
        if self.state.global_step == 0:
            return CheckFailedError(f"{found} before the first training step. Check the images and the backbone.")
        rate = f", learning rate {self.optimizer.param_groups[0]['lr']:.3g}" if self.optimizer is not None else ""
        kept, _ = checkpoints.find_newest(Path(self.args.output_dir))
        return CheckFailedError(
            f"{found} at step {self.state.global_step} (epoch {self.state.epoch:.3g}{rate}). Use a smaller --lr. "
            + (f"The last good checkpoint: {kept}" if kept else "No checkpoint was saved before.")
        )

    @property
    def seconds(self) -> float:
        """Seconds of feature extraction and training so far, in this process and in earlier ones."""
        return self.preparation_seconds + self._seconds_before + time.perf_counter() - self._start

    def train(self, resume_from_checkpoint: Path | None = None, **kwargs: Any) -> Any:
        self._resumed_from = resume_from_checkpoint
        evaluates = self.args.eval_on_start
        self.args.eval_on_start = evaluates and resume_from_checkpoint is None  # once, before the first step
        try:
            with setting_up(until=lambda: self._begun):
                return super().train(resume_from_checkpoint and str(resume_from_checkpoint), **kwargs)
        finally:
            self.args.eval_on_start = evaluates
            self._stopper.restore()

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Let Trainer save a checkpoint into a staging folder; then seal and rename it, and delete the oldest ones."""
        self.check_finite()
        if not self._loss.isfinite():
            raise self._diverged(f"The training loss is {self._loss.item()}")
        folder = Path(self.args.output_dir)
        name = checkpoints.name_of(self.state.global_step)
        staging = folder / checkpoints.STAGING
        best = self.state.best_model_checkpoint
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
        self.accelerator.wait_for_everyone()
        self.staging = staging
        try:
            yield
            self._save_progress(staging / name)
            if self.state.best_global_step == self.state.global_step:
                best = str(folder / name)
            self.state.best_model_checkpoint = best
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                (staging / name / TRAINING_ARGS_NAME).unlink(missing_ok=True)  # a pickle that nobody reads
                self.state.save_to_json(str(staging / name / checkpoints.STATE_FILE))
                checkpoints.seal_checkpoint(staging / name, folder / name)
        except FULL_DISK as error:
            shutil.rmtree(staging, ignore_errors=True)
            raise MachineError(
                f"{name} could not be saved in '{folder}': {getattr(error, 'strerror', None) or error}. Earlier "
                f"checkpoints are intact. Free some space, then {checkpoints.resume_command(self.args)}."
            ) from error
        finally:
            self.staging = None
        if self.args.should_save:
            staging.rmdir()
            checkpoints.delete_old(folder, keep=self.args.save_total_limit, best=best)
        self.accelerator.wait_for_everyone()

    def _save_progress(self, checkpoint: Path) -> None:
        """Save what Trainer does not: the sums for this epoch's next log entry, and the seconds so far."""
        write_json(
            checkpoint / checkpoints.progress_file(self.args.process_index),
            {
                "correct": int(self._correct),
                "seen": self._seen,
                "loss": self._loss.item(),
                "logged_step": self._logged_step,
                "seconds": self.seconds - self.preparation_seconds,
            },
        )

    def continue_from(self, checkpoint: Path) -> None:
        """Read what `_save_progress` wrote, once Trainer has its state."""
        with self.reading(checkpoint):
            progress = json.loads((checkpoint / checkpoints.progress_file(self.args.process_index)).read_text())
        self._correct.fill_(progress["correct"])
        self._seen = progress["seen"]
        self._loss.fill_(math.nan if progress["loss"] is None else progress["loss"])  # JSON has no NaN
        self._logged_step = progress["logged_step"]
        self._seconds_before = progress["seconds"]
        # By name: the run folder may have been moved. Without --load_best_model_at_end the best step need not be saved.
        best = Path(self.args.output_dir) / checkpoints.name_of(self.state.best_global_step)
        self.state.best_model_checkpoint = str(best) if best.is_dir() else None


class _Continue(TrainerCallback):
    """Sets the sums for the next log entry, once Trainer has its state and before the first step."""

    def __init__(self, trainer: ProbeTrainer):
        self.trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.trainer._reset_sums()
        if self.trainer._resumed_from is not None:
            self.trainer.continue_from(self.trainer._resumed_from)
