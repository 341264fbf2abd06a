"""Pictures, drawn with matplotlib's object interface so that nothing global changes."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

MOST_CLASSES_WITH_NUMBERS = 20
LONGEST_NAME = 24
# Told apart by readers who see colours differently, and in grey (after Okabe and Ito, 2008).
COLOURS = ("#1f6f8b", "#d98a29", "#5b9e6f", "#b5544a", "#7a6aa8", "#8a8f98", "#3f4a5a", "#c5b34a")


def draw_confusion_matrix(matrix: np.ndarray, *, class_names: list[str], title: str) -> bytes:
    """PNG bytes: in each cell the count and its share of the row, shaded by the share.

    Above MOST_CLASSES_WITH_NUMBERS classes the shading alone: numbers would be too small to read and take minutes.

    Args:
        matrix: (C, C) counts, rows true classes, columns predicted ones.
    """
    matrix = np.asarray(matrix)
    shares = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
    classes = len(class_names)
    names = [shorten(name) for name in class_names]
    slanted = classes > 6 or max(map(len, names)) > 12
    numbered = classes <= MOST_CLASSES_WITH_NUMBERS
    inches = 1.0 if numbered else 14 / classes  # a cell's side
    figure = Figure(figsize=(1.15 * inches * classes + 2.2, inches * classes + 1.9), dpi=150, layout="constrained")
    axes = figure.subplots()
    # The square root spreads the small shares, where the mistakes are.
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1.15)
    for row, column in np.ndindex(matrix.shape if numbered else (0, 0)):
        colour = "white" if shares[row, column] > 0.45 else "#1b2733"
        weight = "bold" if row == column else "normal"
        axes.text(column, row - 0.1, f"{matrix[row, column]:,}", ha="center", va="center", color=colour, weight=weight)
        share = f"{shares[row, column]:.1%}"
        axes.text(column, row + 0.2, share, ha="center", va="center", color=colour, fontsize=8)
    # A name or a path may hold a dollar sign, which is no formula.
    style = {"parse_math": False, "fontsize": min(10, 50 * inches)}
    slant = {"rotation": 30 if numbered else 90, "ha": "right" if numbered else "center"} if slanted else {}
    axes.set_xticks(range(classes), names, **style, **slant)
    axes.set_yticks(range(classes), names, **style)
    axes.set_xticks(np.arange(classes - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(classes - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2 * inches)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted", labelpad=8)
    axes.set_ylabel("true", labelpad=8)
    axes.set_title(title, loc="left", fontsize=11, pad=12, parse_math=False)
    return _png(figure)


def draw_bars(
    series: dict[str, dict[str, float]], *, title: str, unit: str, upper: dict[str, dict[str, float]] | None = None
) -> bytes:
    """PNG bytes: bars side by side in groups, on a logarithmic axis, each with its value.

    Args:
        series: name in the legend -> group -> value above zero.
        unit: of the values.
        upper: like `series`; a thin line goes up to it.
    """
    groups = list(dict.fromkeys(group for values in series.values() for group in values))
    figure = Figure(figsize=(1.6 + 0.55 * len(groups) * len(series), 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(series)
    for number, (name, values) in enumerate(series.items()):
        at = [groups.index(group) + (number - (len(series) - 1) / 2) * width for group in values]
        heights = list(values.values())
        axes.bar(at, heights, width * 0.92, color=COLOURS[number % len(COLOURS)], label=shorten(name))
        tops = heights if upper is None else list(upper[name].values())
        axes.vlines(at, heights, tops, color="#1b2733", linewidth=1)
        for x, top, value in zip(at, tops, heights, strict=True):
            axes.text(x, 1.04 * top, f"{value:,.3g}" if value < 100 else f"{value:,.0f}", ha="center", size=7)
    axes.set_yscale("log")
    axes.margins(y=0.15)
    axes.set_xticks(range(len(groups)), groups, parse_math=False, fontsize=8)
    _finish(axes, title=title)
    axes.set_ylabel(unit)
    return _png(figure)


def draw_shares(shares: dict[str, dict[str, float]], *, title: str) -> bytes:
    """PNG bytes: a bar a row, divided into shares.

    Args:
        shares: row -> part -> share in [0, 1].
    """
    parts = list(dict.fromkeys(part for row in shares.values() for part in row))
    figure = Figure(figsize=(8, 1.5 + 0.55 * len(shares)), dpi=150, layout="constrained")
    axes = figure.subplots()
    rows = list(shares.values())[::-1]
    left = np.zeros(len(rows))
    for number, part in enumerate(parts):
        widths = np.array([100 * row.get(part, 0) for row in rows])
        bars = axes.barh(
            range(len(rows)), widths, left=left, color=COLOURS[number % len(COLOURS)], label=part, height=0.7
        )
        labels = [f"{width:.0f}" if width >= 4 else "" for width in widths]
        axes.bar_label(bars, labels, label_type="center", size=8, color="white")
        left += widths
    axes.set_yticks(range(len(rows)), list(shares)[::-1], parse_math=False)
    axes.set_xlim(0, 100)
    _finish(axes, title=title)
    axes.set_xlabel("%")
    return _png(figure)


def draw_curves(
    series: dict[str, list[tuple[float, float, float]]], *, title: str, across: str, unit: str, scale: float = 1
) -> bytes:
    """PNG bytes: curves over a logarithmic axis, each with a band of one deviation.

    Args:
        series: name in the legend -> points (x, mean, deviation), x rising.
        across: what x is.
        unit: of the values after they are multiplied by `scale`.
    """
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    for number, (name, points) in enumerate(series.items()):
        x, mean, deviation = np.array(points).T
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(x, scale * mean, color=colour, marker="os^Dv"[number % 5], markersize=4, label=shorten(name))
        band = scale * (mean - deviation), scale * (mean + deviation)
        axes.fill_between(x, *band, color=colour, alpha=0.2, linewidth=0)
    axes.set_xscale("log")
    marks = sorted({point[0] for points in series.values() for point in points})
    axes.set_xticks(marks, [f"{mark:g}" for mark in marks])
    axes.minorticks_off()
    axes.grid(color="#e3e1da", linewidth=0.6)
    _finish(axes, title=title)
    axes.set_xlabel(across)
    axes.set_ylabel(unit)
    return _png(figure)


def _finish(axes: Axes, *, title: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=11, pad=12, parse_math=False)
    for text in axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1)).get_texts():
        text.set_parse_math(False)


def shorten(name: str) -> str:
    """A name as a picture has room for."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.15)  # a long title widens the picture
    return buffer.getvalue()
