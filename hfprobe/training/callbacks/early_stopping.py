from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class EarlyStopping(TrainerCallback):
    """Stop after `patience` evaluations in a row without a better value of the best-model metric.

    An evaluation before the first step is not counted: Trainer does not keep its weights either.

    transformers' own callback counts in an attribute, which a resume forgets; this one counts in the log history,
    which every checkpoint carries.
    """

    def __init__(self, patience: int):
        self.patience = patience

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        control.should_training_stop |= self.is_exhausted(args, state)

    def is_exhausted(self, args: TrainingArguments, state: TrainerState) -> bool:
        """Whether the evaluations of a state leave no patience."""
        key = f"eval_{args.metric_for_best_model.removeprefix('eval_')}"
        values = [entry[key] for entry in state.log_history if key in entry and entry["step"] > 0]
        if not values:
            return False
        best = values.index(max(values) if args.greater_is_better else min(values))
        return len(values) - 1 - best >= self.patience
