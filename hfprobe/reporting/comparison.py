"""The pages of a comparison, made from comparison.json and the evaluations' own pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from hfprobe.comparison import COMPARISON_FILE
from hfprobe.reporting.report import make_environment, pictures_of
from hfprobe.results import EvalResult, write_beside

PICTURES_A_SIDE = 12


def write_comparison(folder: str | Path, results: dict[str, EvalResult]) -> Path:
    """Write comparison.md and comparison.html; the page's path.

    Args:
        folder: holds comparison.json (`hfprobe.comparison.save_comparison`).
        results: the evaluations it compares, by name; their mistakes are the pictures.
    """
    folder = Path(folder)
    comparison = json.loads((folder / COMPARISON_FILE).read_text())
    values = {
        "comparison": comparison,
        "models": comparison["models"],
        "galleries": [_only_one_right(pair, results) for pair in comparison["pairs"]],
        "best": {
            key: max(comparison["models"], key=lambda name: comparison["models"][name][key])
            for key in ("accuracy", "macro_f1")
        },
    }
    for name, escape in (("comparison.md", False), ("comparison.html", True)):
        text = make_environment(autoescape=escape).get_template(f"{name}.j2").render(**values)
        write_beside(folder / name, lambda path, text=text: path.write_text(text, encoding="utf-8"))
    return folder / "comparison.html"


def _only_one_right(pair: dict[str, Any], results: dict[str, EvalResult]) -> list[dict[str, Any]]:
    """Of each of the two models: pictures that it alone gets right, those first that the other was surest about."""
    sides = []
    for name, other in ((pair["first"], pair["second"]), (pair["second"], pair["first"])):
        mine, theirs = results[name], results[other]
        alone = np.flatnonzero((mine.predictions == mine.labels) & (theirs.predictions != theirs.labels))
        surest = alone[np.argsort(-theirs.probabilities.max(axis=1)[alone], kind="stable")][:PICTURES_A_SIDE]
        sides.append({"name": name, "other": other, "count": len(alone), "pictures": pictures_of(theirs, surest)})
    return sides
