from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback


class Histograms(TrainerCallback):
    """Histograms of weights and gradients in TensorBoard, at the last step of the first and of every `every`-th epoch.

    Their axis counts epochs, so the writer's purge step does not hide the histograms of a killed process. A resumed
    run does not write them again: they would be identical to the bit.

    Args:
        tensorboard: the Trainer's TensorBoardCallback, whose writer is shared.
        every: number of epochs between two histograms.
    """

    def __init__(self, tensorboard: TensorBoardCallback, every: int):
        self.tensorboard = tensorboard
        self.every = every
        self.written: set[tuple[str, int]] = set()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.tensorboard.tb_writer is not None and state.global_step:
            from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

            events = EventAccumulator(self.tensorboard.logging_dir, size_guidance={"histograms": 0}).Reload()
            tags = events.Tags()["histograms"]
            self.written = {(tag, event.step) for tag in tags for event in events.Histograms(tag)}

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # The only place where gradients are complete and not yet cleared.
        writer = self.tensorboard.tb_writer
        steps_per_epoch = math.ceil(
            len(kwargs["train_dataloader"]) / args.gradient_accumulation_steps
        )  # as Trainer counts
        epoch, step = divmod(state.global_step + 1, steps_per_epoch)
        if writer is None or step or (epoch != 1 and epoch % self.every):
            return
        for name, parameter in kwargs["model"].named_parameters():
            if parameter.grad is None:
                continue
            name = name.removeprefix("module.").replace(".", "/")
            for kind, values in (("weights", parameter.detach()), ("gradients", parameter.grad)):
                tag = f"{kind}/{name}"
                # Values that are not finite have no histogram, and end the run at its next log entry.
                if (tag, epoch) not in self.written and values.isfinite().all():
                    writer.add_histogram(tag, values.float().cpu(), epoch)
