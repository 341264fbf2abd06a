"""The stages of a decision: one progress line each, their times, and which of them an earlier command has finished."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hfprobe.system import process
from hfprobe.system.errors import StoppedError
from hfprobe.system.files import read_json, write_json
from hfprobe.system.records import to_json
from hfprobe.tasks.decide.result import Stage
from hfprobe.tasks.decide.wishes import Wishes

logger = logging.getLogger(__name__)

JOURNAL_FILE = "stages.json"
Result = TypeVar("Result")


class Stages:
    """Run the stages of a decision in order, and keep in JOURNAL_FILE what each depended on and how long it took.

    A stage that the journal has with the same key is not run again: what it wrote is loaded. A stage that was
    interrupted has its key in the journal too, but no time.

    Args:
        folder: of the decision.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.total = 0  # until there is a plan
        self.planned: dict[str, float] = {}
        self.finished: list[Stage] = []
        self._journal = read_json(folder / JOURNAL_FILE)

    def run(
        self,
        name: str,
        title: str,
        *,
        key: str,
        work: Callable[[], Result],
        load: Callable[[], Result | None] = lambda: None,
    ) -> Result:
        """Run one stage, or load what it wrote in an earlier command.

        Args:
            name: in the journal.
            title: for the progress line and the page.
            key: changes with everything that the stage depends on.
            work: does it.
            load: what `work` returned in an earlier command; None if that cannot be loaded, and the stage runs again.
        """
        planned = self.planned.get(name)
        number = f"{len(self.finished) + 1}" + (f" of {self.total}" if self.total else "")
        process.advice = f"What is finished is kept in {self.folder}. To continue, run the same command."
        found = load() if self.is_finished(name, key) else None
        if found is not None:
            logger.info("%s: %s: finished before.", number, title)
            self.finished.append(Stage(title, planned, float(self._entry(name)["seconds"])))
            return found
        logger.info("%s: %s%s", number, title, "." if planned is None else f" (planned: {describe_seconds(planned)}).")
        spent = self.spent(name, key)
        self._note(name, {"key": key, "spent": spent})
        start = time.perf_counter()
        try:
            result = work()
        except StoppedError as error:
            self._note(name, {"key": key, "spent": spent + time.perf_counter() - start})
            raise StoppedError(
                f"Stopped in stage {number} ({title}); what is finished is kept in {self.folder}. To continue, run the "
                "same command.",
                number=error.exit_code - 128,
            ) from error
        seconds = round(spent + time.perf_counter() - start, 1)
        self._note(name, {"key": key, "seconds": seconds})
        self.finished.append(Stage(title, planned, seconds))
        return result

    def plan(self, seconds: dict[str, float], *, beside: int) -> None:
        """Set the seconds of the stages that follow.

        Args:
            beside: stages that are finished, and not among them.
        """
        self.planned = seconds
        self.total = len(seconds) + beside

    def deadline(self, name: str, wishes: Wishes) -> float:
        """When a stage must end, in seconds of `time.perf_counter`, so that those after it have their planned time."""
        if wishes.budget is None:
            return math.inf
        names = list(self.planned)
        later = sum(self.planned[each] for each in names[names.index(name) + 1 :])
        return wishes.started + wishes.budget - later

    def skip(self, name: str) -> None:
        """Leave out a stage of the plan."""
        del self.planned[name]
        self.total -= 1

    def announce(self, sentences: list[str]) -> None:
        """Log the plan of the stages that follow in one line, and these sentences."""
        total = sum(self.planned.values())
        logger.info(
            "%s",
            " ".join(
                [
                    f"Planned: {describe_seconds(total)} for the stages that follow, those that are finished included.",
                    *sentences,
                ]
            ),
        )

    def is_finished(self, name: str, key: str) -> bool:
        """Whether an earlier command has finished this stage with the same key."""
        return self.is_begun(name, key) and "seconds" in self._entry(name)

    def is_begun(self, name: str, key: str) -> bool:
        """Whether an earlier command has begun or finished this stage with the same key."""
        return self._entry(name).get("key") == key

    def spent(self, name: str, key: str) -> float:
        """Seconds that earlier commands spent on a stage that they did not finish, as far as they are known."""
        return float(self._entry(name).get("spent", 0.0)) if self.is_begun(name, key) else 0.0

    def _entry(self, name: str) -> dict[str, Any]:
        entry = self._journal.get(name)
        return entry if isinstance(entry, dict) else {}

    def _note(self, name: str, entry: dict[str, Any]) -> None:
        self._journal[name] = entry
        write_json(self.folder / JOURNAL_FILE, self._journal)


def make_key(*parts: Any) -> str:
    """Hex digits that change with any of the parts."""
    return hashlib.sha256(json.dumps(to_json(list(parts)), sort_keys=True, default=str).encode()).hexdigest()[:32]


def describe_seconds(seconds: float) -> str:
    """Seconds in words: "40 s" or "12.5 min"."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


@contextmanager
def one_line_per_stage() -> Iterator[None]:
    """Of hfprobe's log lines, only warnings, each once, and those of the stages are shown inside."""
    seen: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        repeated = record.levelno >= logging.WARNING and text in seen
        seen.add(text)
        return not repeated

    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(is_new)
    package, before = logging.getLogger("hfprobe"), logging.getLogger("hfprobe").level
    own, own_before = logger, logger.level
    package.setLevel(max(logging.WARNING, before))
    own.setLevel(before or logging.WARNING)
    try:
        yield
    finally:
        package.setLevel(before)
        own.setLevel(own_before)
        for handler in handlers:
            handler.removeFilter(is_new)
