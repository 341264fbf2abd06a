from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback


class Histograms(TrainerCallback):
    """Histograms of weights and gradients in TensorBoard, at the last step of the first and of every `every`-th epoch.

    Their axis counts steps, as that of the curves: the purge step of the writer hides those that a resumed run repeats.

    Args:
        tensorboard: the Trainer's TensorBoardCallback, whose writer is shared.
        every: number of epochs between two histograms.
    """

    def __init__(self, tensorboard: TensorBoardCallback, every: int):
        self.tensorboard = tensorboard
        self.every = every

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # The only place where gradients are complete and not yet cleared.
        writer = self.tensorboard.tb_writer
        # As Trainer counts.
        steps_per_epoch = math.ceil(len(kwargs["train_dataloader"]) / args.gradient_accumulation_steps)
        epoch, step = divmod(state.global_step + 1, steps_per_epoch)
        if writer is None or step or (epoch != 1 and epoch % self.every):
            return
        for name, parameter in kwargs["model"].named_parameters():
            if parameter.grad is None:
                continue
            name = name.removeprefix("module.").replace(".", "/")
            for kind, values in (("weights", parameter.detach()), ("gradients", parameter.grad)):
                # Values that are not finite have no histogram, and end the run at its next log entry.
                if values.isfinite().all():
                    writer.add_histogram(f"{kind}/{name}", values.float().cpu(), state.global_step + 1)
