from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback

if TYPE_CHECKING:  # slow to import
    from torch.utils.tensorboard import SummaryWriter


class Curves(TensorBoardCallback):
    """TensorBoard's curves, each step once.

    A killed process may have logged steps that a resumed run trains again. The new writer's purge step hides them.
    """

    tb_writer: SummaryWriter | None

    def __init__(self, folder: Path):
        super().__init__()
        self.logging_dir = str(folder)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._open(state, first_step=state.global_step + 1)
        super().on_train_begin(args, state, control, **kwargs)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step == 0:  # a head that is solved has no training step
            self._open(state, first_step=0)
        super().on_log(args, state, control, **kwargs)

    def _open(self, state: TrainerState, *, first_step: int) -> None:
        if self.tb_writer is None and state.is_world_process_zero:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self.tb_writer = SummaryWriter(log_dir=self.logging_dir, purge_step=first_step)
