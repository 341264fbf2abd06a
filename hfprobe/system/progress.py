"""Progress of a long stage: a bar on a terminal, otherwise log lines, such as in a log file."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from types import TracebackType

from tqdm.auto import tqdm

from hfprobe.system.process import is_main_process

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 60


def has_bars() -> bool:
    """Whether bars are drawn: in a terminal or a notebook, unless --disable_tqdm or TQDM_DISABLE turns them off."""
    return (sys.stderr.isatty() or in_notebook()) and "TQDM_DISABLE" not in os.environ


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this process."""
    ipython = sys.modules.get("IPython")
    return type(ipython.get_ipython()).__name__ == "ZMQInteractiveShell" if ipython else False


def show_progress(*, total: int, desc: str, unit: str, initial: int = 0, inner: bool = False) -> tqdm | Lines:
    """A context manager with tqdm's methods `update(count)` and `set_postfix_str(text)`.

    Args:
        total: number of units in the stage.
        desc: name of the stage.
        unit: name of a unit, such as "image"; shown by bars only.
        initial: units that are already done.
        inner: whether the stage is a short part of another one. Its bar disappears at its end, and no lines are logged
            at its start and end.
    """
    if has_bars():
        disable = not is_main_process()
        return tqdm(total=total, desc=desc, unit=unit, initial=initial, leave=not inner, disable=disable)
    return Lines(total=total, desc=desc, initial=initial, inner=inner)


class Lines:
    """Progress as log lines: at the start, every SECONDS_BETWEEN_LINES, and at the end. Example:

    Decoding train images: 12,000 of 20,000 (60 %), 45 s
    """

    def __init__(self, *, total: int, desc: str, initial: int, inner: bool):
        self.total, self.desc, self.done, self.inner = total, desc, initial, inner
        self.note = ""
        self._start = time.monotonic()
        self._ended = threading.Event()

    def __enter__(self) -> Lines:
        if not self.inner:
            self._log()
        # A thread, because a single update may take longer than SECONDS_BETWEEN_LINES.
        threading.Thread(target=self._log_regularly, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._ended.set()
        self.note = ""
        if kind is None and not self.inner:
            self._log()

    def update(self, count: int = 1) -> None:
        self.done += count

    def set_postfix_str(self, text: str) -> None:
        self.note = f" ({text})"

    def _log_regularly(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_LINES):
            self._log()

    def _log(self) -> None:
        share = f"{self.done:,} of {self.total:,} ({self.done / max(1, self.total):.0%})".replace("%", " %")
        logger.info("%s: %s, %.0f s%s", self.desc, share, time.monotonic() - self._start, self.note)
