from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

WARMUP_STEPS = 10
ACTIVE_STEPS = 5


class Profiler(TrainerCallback):
    """torch.profiler over five training steps after ten of warm-up, in the main process.

    Writes `trace.json` (open it at ui.perfetto.dev), `operators_by_time.txt` and `operators_by_memory.txt`.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.profiler: torch.profiler.profile | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        activities = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self.profiler = torch.profiler.profile(
            activities=activities,
            schedule=torch.profiler.schedule(wait=0, warmup=WARMUP_STEPS, active=ACTIVE_STEPS, repeat=1),
            on_trace_ready=self.write,
            profile_memory=True,
            acc_events=True,
        )
        self.profiler.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.profiler is not None:
            self.profiler.step()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.profiler is not None:
            self.profiler.stop()
            self.profiler = None

    def write(self, profiler: torch.profiler.profile) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        operators = profiler.key_averages()
        for name, sort_by in (("time", f"self_{device}_time_total"), ("memory", f"{device}_memory_usage")):
            table = operators.table(sort_by=sort_by, row_limit=40, max_name_column_width=60)
            (self.folder / f"operators_by_{name}.txt").write_text(table)
        profiler.export_chrome_trace(str(self.folder / "trace.json"))
