"""Write the table and the curves of accuracy against the number of labelled images, from label_efficiency.json."""

from __future__ import annotations

import json
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from hfprobe.pages.environment import make_environment
from hfprobe.pages.figures import draw_curves
from hfprobe.statistics.intervals import summarize_values
from hfprobe.system.files import replace_together
from hfprobe.tasks.label_efficiency.result import POINTS_FILE


def write_label_efficiency(folder: str | Path) -> Path:
    """Write label_efficiency.png and label_efficiency.md; return the path of the latter."""
    folder = Path(folder)
    content = json.loads((folder / POINTS_FILE).read_text())
    curves = summarize_points(content["points"])
    figure = draw_curves(
        {
            name: [(shots, point["mean"], point["std"]) for shots, point in curve.items()]
            for name, curve in curves.items()
        },
        title="Test accuracy by training images per class (mean; band: one standard deviation over seeds)",
        across="training images per class",
        unit="test accuracy, %",
        scale=100,
    )
    text = (
        make_environment(__file__, markdown=True)
        .get_template("label_efficiency.md.j2")
        .render(
            content=content,
            curves=curves,
            shots=sorted({shots for curve in curves.values() for shots in curve}),
            sentences=[say_crossings(one, other, curves) for one, other in combinations(curves, 2)],
        )
    )
    with replace_together(folder, last="label_efficiency.md") as staging:
        (staging / "label_efficiency.png").write_bytes(figure)
        (staging / "label_efficiency.md").write_text(text, encoding="utf-8")
    return folder / "label_efficiency.md"


def summarize_points(points: list[dict[str, Any]]) -> dict[str, dict[int, dict[str, Any]]]:
    """Model -> shots, sorted -> `hfprobe.statistics.intervals.summarize_values` over seeds."""
    curves: dict[str, dict[int, list[float]]] = {}
    for point in sorted(points, key=lambda point: point["shots"]):
        curves.setdefault(point["model"], {}).setdefault(point["shots"], []).append(point["accuracy"])
    return {name: {shots: summarize_values(found) for shots, found in curve.items()} for name, curve in curves.items()}


def say_crossings(one: str, other: str, curves: dict[str, dict[int, dict[str, float]]]) -> str:
    """A sentence that says which of two models has the higher mean accuracy at which numbers of images."""
    common = [shots for shots in curves[one] if shots in curves[other]]
    if not common:
        return f"{one} and {other} have no common number of images per class."
    ahead = [one if curves[one][shots]["mean"] > curves[other][shots]["mean"] else other for shots in common]
    if len(set(ahead)) == 1:
        return (
            f"{ahead[0]} has the higher mean accuracy at every measured number of images, "
            f"{common[0]:,} to {common[-1]:,} per class."
        )
    turns = [
        f"{after} from {there:,} on (the curves cross between {here:,} and {there:,})"
        for (before, here), (after, there) in pairwise(zip(ahead, common, strict=True))
        if before != after
    ]
    return f"{ahead[0]} has the higher mean accuracy at {common[0]:,} images per class, then {', then '.join(turns)}."
