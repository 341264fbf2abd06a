"""Places of the accuracy-coverage curves in a page, which the macro `coverage_chart` draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hfprobe.pages.figures import COLOURS
from hfprobe.statistics.selective import Answered, Selectivity

# The lowest mark of the accuracy axis is a multiple of this, in per cent.
STEP = 5


@dataclass(frozen=True)
class CoverageLine:
    """One curve in a square of side 100 whose origin is the upper left corner, as in SVG.

    Attributes:
        path, band: points of the curve, and of the area of its 95 % intervals, as `x,y x,y ...`.
        points: (x, y, answered images) of the marks.
    """

    name: str
    colour: str
    path: str
    band: str
    points: list[tuple[float, float, Answered]]


@dataclass(frozen=True)
class CoverageChart:
    """`marks`: (y, label) of the accuracy axis."""

    lines: list[CoverageLine]
    marks: list[tuple[float, str]]


def place_curves(curves: dict[str, Selectivity]) -> CoverageChart:
    """Accuracy against the share of answered images, of one model or of several.

    The accuracy axis begins at a mark below the lowest accuracy; the bands of the intervals are cut there.

    Args:
        curves: name of the model -> its curve.
    """
    lowest = min(point.accuracy or 0 for curve in curves.values() for point in curve.curve)
    bottom = max(0, STEP * (math.floor(100 * lowest / STEP) - 1))
    step = next(step for step in (5, 10, 20) if (100 - bottom) / step <= 6)

    def down(accuracy: float) -> float:
        return round(100 * (100 - max(bottom, 100 * accuracy)) / (100 - bottom), 2)

    lines = []
    for number, (name, curve) in enumerate(curves.items()):
        points, lows, highs = [], [], []
        for point in curve.curve:
            if point.accuracy is not None and point.interval is not None:
                x, (low, high) = round(100 * point.coverage, 2), point.interval
                points.append((x, down(point.accuracy), point))
                lows.append(f"{x},{down(low)}")
                highs.append(f"{x},{down(high)}")
        lines.append(
            CoverageLine(
                name=name,
                colour=COLOURS[number % len(COLOURS)],
                path=" ".join(f"{x},{y}" for x, y, _ in points),
                band=" ".join([*lows, *highs[::-1]]),
                points=points,
            )
        )
    marks = [(down(mark / 100), f"{mark} %") for mark in range(100, bottom - 1, -step)]
    return CoverageChart(lines, marks)
