from __future__ import annotations

import math
import sys
import time
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ProgressCallback


class StepBar(ProgressCallback):
    """A progress bar over the steps, for a terminal."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        self.current_step = state.global_step  # a resumed run starts its bar where it stopped
        if self.training_bar is not None:
            self.training_bar.update(state.global_step)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """EpochLines writes what is logged."""


class EpochLines(TrainerCallback):
    """One line that a person can read for each evaluation on stdout; without evaluations, for each training log."""

    def __init__(self) -> None:
        self.training = False
        self.epochs = 0.0
        self.train_logs: dict[str, float] = {}
        self.seconds = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.training = state.is_world_process_zero
        self.epoch_start = time.perf_counter()
        # The end of the run, which is in the middle of an epoch if --epochs is not a whole number.
        batches, together = len(kwargs["train_dataloader"]), args.gradient_accumulation_steps
        whole, steps = divmod(state.max_steps, math.ceil(batches / together))
        self.epochs = whole + min(steps * together, batches) / batches

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.epoch_start = time.perf_counter()

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.seconds = time.perf_counter() - self.epoch_start

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.training = False

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs: dict[str, float] = kwargs["logs"]
        if not self.training:
            return
        if "loss" in logs:
            self.train_logs = logs
        if ("loss" if args.eval_strategy == "no" else "eval_loss") in logs:
            at = f"epoch {logs['epoch']:>3g}/{self.epochs:g}"
            if args.max_steps > 0:
                at = f"step {state.global_step:>{len(str(state.max_steps))}}/{state.max_steps}"
            tqdm.write(self.line(logs, at=at))  # above the bar, where there is one
            sys.stdout.flush()

    def line(self, logs: dict[str, float], *, at: str) -> str:
        train = self.train_logs
        parts = [at]
        if "loss" in train:
            parts.append(f"train loss {train['loss']:.3f} accuracy {train['accuracy']:6.2%}")
        if "eval_loss" in logs:
            parts.append(
                f"validation loss {logs['eval_loss']:.3f} accuracy {logs['eval_accuracy']:6.2%} "
                f"macro-F1 {logs['eval_macro_f1']:6.2%}"
            )
        if "learning_rate" in train:
            parts.append(f"lr {train['learning_rate']:.2g}")
        if self.seconds:
            parts.append(f"{self.seconds:.0f} s")
        return " | ".join(parts)
