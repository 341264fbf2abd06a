"""Write a decision and its page: the answer first, then what it is based on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hfprobe.pages.environment import make_environment
from hfprobe.statistics.imbalance import METRIC_NAMES
from hfprobe.system.files import replace_together
from hfprobe.tasks.decide.result import COMPARISON_FOLDER, PAGE_FILE, Decision


def save_decision(decision: Decision, folder: str | Path) -> Path:
    """Write decision.json and decision.html into `folder`, both or neither.

    Args:
        decision: with its evaluations.

    Returns:
        The path of decision.html.

    Raises:
        MachineError: the disk is full. What the folder contained before is intact.
    """
    folder = Path(folder)
    values: dict[str, Any] = {
        "decision": decision,
        "judgement": decision.judgement,
        "results": decision.results,
        "metric_names": METRIC_NAMES,
        "comparison_page": f"{COMPARISON_FOLDER}/comparison.html",
    }
    text = make_environment(__file__, markdown=False).get_template(f"{PAGE_FILE}.j2").render(**values)
    with replace_together(folder, last=PAGE_FILE) as staging:
        decision.save(staging)
        (staging / PAGE_FILE).write_text(text, encoding="utf-8")
    return folder / PAGE_FILE
