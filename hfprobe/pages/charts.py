"""Places of the lines of a chart in a page, which the macro `line_chart` draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

# Of a chart, in its units: it is 100 wide, and its origin is the upper left corner, as in SVG.
HEIGHT = 62
# About so many marks of each axis; the labels of a logarithmic x axis need so much room, and a line of text this.
ACROSS, DOWN, ROOM, LINE = 6, 4, 11, 5


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        points, band: of the line, and of the area around it, as `x,y x,y ...`; a band may be empty.
        dots: (x, y, what the pointer shows) of each point, if the chart shows them.
        dashed: whether the line is dashed.
        name_y: where the name is in the chart; None: nowhere.
    """

    name: str
    points: str
    band: str
    dots: list[tuple[float, float, str]]
    dashed: bool
    name_y: float | None


@dataclass(frozen=True)
class Chart:
    """Lines with the marks of both axes, each as (place, label)."""

    title: str
    across: str
    height: float
    lines: list[Line]
    x_marks: list[tuple[float, str]]
    y_marks: list[tuple[float, str]]


def place_lines(
    title: str,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    *,
    across: str,
    dashed: Sequence[str] = (),
    levels: Mapping[str, float] = MappingProxyType({}),
    spread: Mapping[str, Sequence[float]] = MappingProxyType({}),
    log: bool = False,
) -> Chart:
    """A chart of some curves; points that are not finite are left out.

    Args:
        curves: name -> points (x, y), sorted by x.
        across: label of the x axis.
        dashed: names of the curves that are dashed.
        levels: name -> y of a dashed horizontal line with its name.
        spread: name -> half the height of the band at each point of a curve; the curve is drawn with dots.
        log: whether the x axis is logarithmic.
    """
    all_x = sorted({x for curve in curves.values() for x, _ in curve})
    ends = all_x[0], all_x[-1]
    curves = dict(curves) | {name: [(x, y) for x in ends] for name, y in levels.items()}
    whole = list(curves.values())
    known = [y for curve in whole for _, y in curve if np.isfinite(y)] or [0.0]
    step = _round_up((max(known) - min(known)) / DOWN)
    bottom, top = step * math.floor(min(known) / step), step * math.ceil(max(known) / step)
    top = top if top > bottom else bottom + step
    scale = math.log if log else float
    left, right = map(scale, ends)

    def place(x: float, y: float) -> tuple[float, float]:
        down = HEIGHT * (top - min(top, max(bottom, y))) / (top - bottom)
        return round(100 * (scale(x) - left) / (right - left), 2), round(float(down), 2)

    lines: list[Line] = []
    taken: list[float] = []
    for name, curve in curves.items():
        finite = [(x, y) for x, y in curve if np.isfinite(y)]
        half = spread.get(name, [])
        edges = [(x, y + d) for (x, y), d in zip(finite, half, strict=False)]
        edges += [(x, y - d) for (x, y), d in zip(finite, half, strict=False)][::-1]
        placed = [place(*point) for point in finite]
        name_y = None
        if name in levels:  # above the line where there is room, and below the names of other lines
            name_y = placed[0][1] - 1.5 if placed[0][1] > LINE + 1 else placed[0][1] + LINE - 0.5
            while any(abs(name_y - other) < LINE for other in taken):
                name_y += LINE
            taken.append(name_y)
        lines.append(
            Line(
                name=name,
                points=_join(placed),
                band=_join([place(*edge) for edge in edges]),
                dots=[(*place(x, y), f"{x:,g}: {y:.1f}") for x, y in finite] if half else [],
                dashed=name in dashed or name in levels,
                name_y=name_y,
            )
        )
    marks = _choose_marks(*ends)
    if log:
        marks = [all_x[-1]]
        for x in reversed(all_x):
            if place(marks[-1], top)[0] - place(x, top)[0] >= ROOM:
                marks.append(x)
    rows = np.round(np.arange(bottom, top + step / 2, step), 6)
    x_marks = [(place(mark, top)[0], f"{mark:,g}") for mark in sorted(marks)]
    return Chart(title, across, HEIGHT, lines, x_marks, [(place(all_x[0], row)[1], f"{row:g}") for row in rows])


def _choose_marks(left: float, right: float) -> list[float]:
    """Round numbers from `left` to `right`; whole ones if there are several."""
    step = _round_up((right - left) / ACROSS)
    step = max(1.0, step) if right - left >= 2 else step
    return [float(mark) for mark in np.round(np.arange(math.ceil(left / step), right / step + 1e-9) * step, 6)]


def _join(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in points)


def _round_up(step: float) -> float:
    """The next larger of 1, 2, 5, 10, ... times a power of ten."""
    if step <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step)
