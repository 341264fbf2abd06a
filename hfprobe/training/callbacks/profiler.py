from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)

WARMUP_STEPS = 10
ACTIVE_STEPS = 5
NOTHING_LEFT = "--profile has no effect: no training step is left."


class Profiler(TrainerCallback):
    """torch.profiler over five training steps after ten of warm-up, in the main process; fewer if the run is shorter.

    Writes `trace.json` (open it at ui.perfetto.dev), `operators_by_time.txt` and `operators_by_memory.txt`. The first
    line of the tables names the steps, and the number of evaluations that were recorded with them.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.profiler: torch.profiler.profile | None = None
        self.evaluations = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.step = state.global_step  # completed steps
        left = state.max_steps - self.step
        if not state.is_world_process_zero:
            return
        if left < 1:
            logger.warning(NOTHING_LEFT)
            return
        active = min(ACTIVE_STEPS, (left + 1) // 2)
        self.warmup = min(WARMUP_STEPS, left - active)
        self.first = self.step + self.warmup + 1
        self.last = self.first + active - 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about no warm-up, which the tables say
            schedule = torch.profiler.schedule(wait=0, warmup=self.warmup, active=active, repeat=1)
        activities = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self.profiler = torch.profiler.profile(
            activities=activities,
            schedule=schedule,
            on_trace_ready=self.write,
            profile_memory=True,
            acc_events=True,
        )
        self.profiler.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.profiler is not None:
            self.step = state.global_step
            self.profiler.step()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.profiler is not None and self.first <= self.step + 1 <= self.last:
            self.evaluations += 1

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.profiler is None:
            return
        self.profiler.stop()  # it writes where early stopping ended the run between the first and the last step
        self.profiler = None
        if self.step < self.first:
            logger.warning(
                "--profile has no effect: the run ended at step %d, and the steps %d to %d would have been recorded.",
                self.step,
                self.first,
                self.last,
            )

    def write(self, profiler: torch.profiler.profile) -> None:
        if self.step < self.first:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        operators = profiler.key_averages()
        steps = f"step {self.step}" if self.first == self.step else f"steps {self.first} to {self.step}"
        title = f"Training {steps}, after {self.warmup} step{'s' * (self.warmup != 1)} of warm-up"
        if self.evaluations:
            title += f", with {self.evaluations} evaluation{'s' * (self.evaluations > 1)} among them"
        for name, sort_by in (("time", f"self_{device}_time_total"), ("memory", f"{device}_memory_usage")):
            table = operators.table(sort_by=sort_by, row_limit=40, max_name_column_width=60)
            (self.folder / f"operators_by_{name}.txt").write_text(f"{title}.\n\n{table}")
        profiler.export_chrome_trace(str(self.folder / "trace.json"))
        logger.info("%s: profile in %s.", title, self.folder)
