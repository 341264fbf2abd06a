from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hfprobe.models.base import Inputs


class SetEpoch(TrainerCallback):
    """Tell the training set which epoch its augmentation is drawn for, before the loader starts to read."""

    def __init__(self, dataset: Inputs):
        self.dataset = dataset

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.dataset.set_epoch(int(state.epoch))
