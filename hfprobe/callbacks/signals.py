import signal
import threading

import torch
from transformers import TrainerCallback


class StopOnSignal(TrainerCallback):
    """On SIGTERM or SIGINT, ask for a checkpoint at the next step; a second SIGINT ends the process at once.

    `due` is then the signal's number, and the Trainer is to stop. In mid-epoch the step is the point to save; at an
    epoch's last step it is the epoch's end, where the evaluation belongs to the checkpoint.
    """

    def __init__(self):
        self.due = 0
        self._asked = 0
        self._interrupted = False
        self._before = {}

    def on_train_begin(self, args, state, control, **kwargs):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._ask)

    def on_step_end(self, args, state, control, **kwargs):
        if self._agreed(args.device) and not float(state.epoch).is_integer():
            control.should_save, self.due = True, self._asked

    def on_epoch_end(self, args, state, control, **kwargs):
        if self._agreed(args.device):
            control.should_save, self.due = True, self._asked

    def on_train_end(self, args, state, control, **kwargs):
        self.restore()

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _ask(self, number, frame) -> None:
        if number == signal.SIGINT and self._interrupted:
            raise KeyboardInterrupt
        self._interrupted |= number == signal.SIGINT
        self._asked = number

    def _agreed(self, device) -> bool:
        """Whether any process was asked: all of them save, or none."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            asked = torch.tensor(self._asked, device=device)
            torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)
            self._asked = int(asked)
        return self._asked != 0
