from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from hfprobe.system import process
from hfprobe.system.errors import StoppedError
from hfprobe.training.checkpoints import resume_command

# SIGHUP is the loss of the terminal.
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Several processes ask each other for signals as often as this, or at each step if a step takes longer.
SECONDS = 1.0
MOST_STEPS = 100
HOW = {signal.SIGINT: "Interrupted", signal.SIGPIPE: "Stopped because the output was closed"}


class StopOnSignal(TrainerCallback):
    """On a signal that stops, save a checkpoint at the next step and stop; a second SIGINT ends the process at once.

    An output that nobody reads any more counts as SIGPIPE: a run whose reader is gone ends, as every command in a pipe
    does, but it saves first. In mid-epoch the step is the point to save; at an epoch's last step it is the epoch's end,
    where the evaluation belongs to the checkpoint.

    Several processes agree on the step: about once in SECONDS, because the answer waits for the device, and at the end
    of each epoch.
    """

    def __init__(self) -> None:
        self._asked = 0
        self._interrupted = False
        self._saving = False
        self._changed: TrainingArguments | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._on_unread = process.on_unread
        self._asked_at_step = self._next_step = 0
        self._asked_at = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._asked_at_step = self._next_step = state.global_step
        self._asked_at = time.perf_counter()
        if threading.current_thread() is threading.main_thread():
            self._owner = os.getpid()
            ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()  # nohup
            for number in set(STOPPING) - ignored:
                self._before[number] = signal.signal(number, self._ask)
            self._on_unread, process.on_unread = process.on_unread, lambda: self._ask(signal.SIGPIPE)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._agreed(args.device, step=state.global_step) and not float(state.epoch).is_integer():
            self._save_and_stop(args, control)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._agreed(args.device, step=state.global_step, now=True):
            self._save_and_stop(args, control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not self._saving:
            return
        number = signal.Signals(self._asked)
        raise StoppedError(
            f"{HOW.get(number, f'Stopped by {number.name}')} at step {state.global_step:,} of {state.max_steps:,}; all "
            f"is saved in {args.output_dir}. To continue, {resume_command(args)}.",
            number=number,
        )

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.restore()
        if self._asked:  # it came after the last step, where a checkpoint could have been saved
            signal.raise_signal(self._asked)

    def _save_and_stop(self, args: TrainingArguments, control: TrainerControl) -> None:
        control.should_save = self._saving = True
        if args.save_strategy == SaveStrategy.BEST:  # it overrules the request where the step is evaluated too
            args.save_strategy, self._changed = SaveStrategy.STEPS, args

    def restore(self) -> None:
        """Restore the signal handlers and the arguments as they were."""
        if self._changed is not None:
            self._changed.save_strategy, self._changed = SaveStrategy.BEST, None
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._before:
            process.on_unread = self._on_unread
        self._before = {}

    def _ask(self, number: int, frame: FrameType | None = None) -> None:
        if os.getpid() != self._owner:  # a loader worker, forked with this handler
            return
        if number == signal.SIGINT and self._interrupted:
            self.restore()
            signal.raise_signal(number)
        self._interrupted |= number == signal.SIGINT
        self._asked = self._asked or number  # the launcher adds a SIGTERM when an interrupt ends it

    def _agreed(self, device: torch.device, *, step: int, now: bool = False) -> bool:
        """Whether any process got a signal, as far as they have asked each other; then all of them save.

        Args:
            step: that ended, the same in all processes.
            now: whether they ask each other whatever the time.
        """
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return self._asked != 0
        if step < self._next_step and not now:
            return False
        steps, seconds = max(1, step - self._asked_at_step), time.perf_counter() - self._asked_at
        # The slowest process decides when they ask again, so that all do so at the same step.
        found = torch.tensor([self._asked, seconds / steps], device=device)
        torch.distributed.all_reduce(found, op=torch.distributed.ReduceOp.MAX)
        asked, seconds_per_step = found.tolist()
        self._asked = int(asked) or self._asked  # a signal may have come meanwhile: it counts when they ask again
        self._asked_at_step, self._asked_at = step, time.perf_counter()
        self._next_step = step + min(MOST_STEPS, max(1, int(SECONDS / max(seconds_per_step, 1e-6))))
        return asked != 0
