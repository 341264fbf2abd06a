"""Figures, drawn with matplotlib's object-oriented interface, which changes no global state."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from io import BytesIO
from itertools import chain
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hfprobe.pages.fonts import quiet_about_missing_glyphs, use_fonts_with_all_characters
from hfprobe.system.text_width import cut_text, text_width

MOST_CLASSES_WITH_NUMBERS = 20
LONGEST_NAME = 24
# Distinguishable with colour vision deficiencies and in greyscale (after Okabe and Ito, 2008).
COLOURS = ("#1f6f8b", "#d98a29", "#5b9e6f", "#b5544a", "#7a6aa8", "#8a8f98", "#3f4a5a", "#c5b34a")


def draw_confusion_matrix(matrix: np.ndarray, *, class_names: list[str], title: str) -> bytes:
    """Draw a confusion matrix whose cells show the count and its share of the row, and are shaded by that share.

    With more than MOST_CLASSES_WITH_NUMBERS classes, cells are only shaded: numbers would be too small to read, and
    drawing them would take minutes.

    Args:
        matrix: (C, C) counts; rows are true classes, columns predicted classes.

    Returns:
        The bytes of a PNG file.
    """
    matrix = np.asarray(matrix)
    shares = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
    classes = len(class_names)
    names = shorten_names(class_names)
    slanted = classes > 6 or max(map(text_width, names)) > 12
    numbered = classes <= MOST_CLASSES_WITH_NUMBERS
    inches = 1.0 if numbered else 14 / classes  # side of a cell
    figure = Figure(figsize=(1.15 * inches * classes + 2.2, inches * classes + 1.9), dpi=150, layout="constrained")
    axes = figure.subplots()
    # The square root makes small shares, which are the mistakes, easier to tell apart.
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1.15)
    for row, column in np.ndindex(matrix.shape if numbered else (0, 0)):
        colour = "white" if shares[row, column] > 0.45 else "#1b2733"
        weight = "bold" if row == column else "normal"
        axes.text(column, row - 0.1, f"{matrix[row, column]:,}", ha="center", va="center", color=colour, weight=weight)
        share = f"{shares[row, column]:.1%}"
        axes.text(column, row + 0.2, share, ha="center", va="center", color=colour, fontsize=8)
    # A dollar sign in a name or a path does not start a formula.
    style: dict[str, Any] = {"parse_math": False, "fontsize": min(10, 50 * inches)}
    slant = {"rotation": 30 if numbered else 90, "ha": "right" if numbered else "center"} if slanted else {}
    axes.set_xticks(range(classes), names, **style | slant)
    axes.set_yticks(range(classes), names, **style)
    axes.set_xticks(np.arange(classes - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(classes - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2 * inches)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted class", labelpad=8)
    axes.set_ylabel("true class", labelpad=8)
    axes.set_title(title, loc="left", fontsize=11, pad=12, parse_math=False)
    return _png(figure)


def draw_bars(
    series: dict[str, dict[str, float]], *, title: str, unit: str, upper: dict[str, dict[str, float]] | None = None
) -> bytes:
    """Draw a grouped bar chart with a logarithmic axis; each bar is labelled with its value.

    Args:
        series: name in the legend -> group -> value, greater than 0.
        unit: the unit of the values, used as axis label.
        upper: same keys as `series`; a thin line extends each bar to this value.

    Returns:
        The bytes of a PNG file.
    """
    groups = list(dict.fromkeys(group for values in series.values() for group in values))
    figure = Figure(figsize=(1.6 + 0.55 * len(groups) * len(series), 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(series)
    for number, (name, values) in enumerate(series.items()):
        at = [groups.index(group) + (number - (len(series) - 1) / 2) * width for group in values]
        heights = list(values.values())
        axes.bar(at, heights, width * 0.92, color=COLOURS[number % len(COLOURS)], label=str(number))
        tops = heights if upper is None else list(upper[name].values())
        axes.vlines(at, heights, tops, color="#1b2733", linewidth=1)
        for x, top, value in zip(at, tops, heights, strict=True):
            axes.text(x, 1.04 * top, f"{value:,.3g}" if value < 100 else f"{value:,.0f}", ha="center", size=7)
    axes.set_yscale("log")
    axes.margins(y=0.15)
    axes.set_xticks(range(len(groups)), groups, parse_math=False, fontsize=8)
    _finish(axes, title=title, names=shorten_names(series))
    axes.set_ylabel(unit)
    return _png(figure)


def draw_shares(shares: dict[str, dict[str, float]], *, title: str) -> bytes:
    """Draw one stacked horizontal bar per row.

    Args:
        shares: row -> part -> share in [0, 1].

    Returns:
        The bytes of a PNG file.
    """
    parts = list(dict.fromkeys(part for row in shares.values() for part in row))
    figure = Figure(figsize=(8, 1.5 + 0.55 * len(shares)), dpi=150, layout="constrained")
    axes = figure.subplots()
    rows = list(shares.values())[::-1]
    left = np.zeros(len(rows))
    for number, part in enumerate(parts):
        widths = np.array([100 * row.get(part, 0) for row in rows])
        bars = axes.barh(
            range(len(rows)), widths, left=left, color=COLOURS[number % len(COLOURS)], label=str(number), height=0.7
        )
        labels = [f"{width:.0f}" if width >= 4 else "" for width in widths]
        axes.bar_label(bars, labels, label_type="center", size=8, color="white")
        left += widths
    axes.set_yticks(range(len(rows)), list(shares)[::-1], parse_math=False)
    axes.set_xlim(0, 100)
    _finish(axes, title=title, names=parts)
    axes.set_xlabel("%")
    return _png(figure)


def draw_curves(
    series: dict[str, list[tuple[float, float, float]]], *, title: str, across: str, unit: str, scale: float = 1
) -> bytes:
    """Draw curves over a logarithmic x axis, each with a band of one standard deviation to either side.

    Args:
        series: name in the legend -> points (x, mean, standard deviation), sorted by x.
        across: label of the x axis.
        unit: the unit of the values after multiplication by `scale`, used as label of the y axis.

    Returns:
        The bytes of a PNG file.
    """
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    for number, points in enumerate(series.values()):
        x, mean, deviation = np.array(points).T
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(x, scale * mean, color=colour, marker="os^Dv"[number % 5], markersize=4, label=str(number))
        band = scale * (mean - deviation), scale * (mean + deviation)
        axes.fill_between(x, *band, color=colour, alpha=0.2, linewidth=0)
    axes.set_xscale("log")
    marks = sorted({point[0] for points in series.values() for point in points})
    axes.set_xticks(marks, [f"{mark:g}" for mark in marks])
    axes.minorticks_off()
    axes.grid(color="#e3e1da", linewidth=0.6)
    _finish(axes, title=title, names=shorten_names(series))
    axes.set_xlabel(across)
    axes.set_ylabel(unit)
    return _png(figure)


def _finish(axes: Axes, *, title: str, names: list[str]) -> None:
    """Add the title and the legend.

    Artists are labelled with their number and renamed here, because matplotlib omits labels that start with `_`.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=11, pad=12, parse_math=False)
    legend = axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set(text=name, parse_math=False)


def shorten_names(names: Iterable[str]) -> list[str]:
    """Shorten names to at most LONGEST_NAME columns each; different names get different labels.

    The middle of a long name is omitted. If several names become equal, their common beginning is omitted instead. If
    they are still equal, each gets its position in `names`, counted from 0, as a suffix.
    """
    names = list(names)
    labels = [cut_text(name, LONGEST_NAME) for name in names]
    for group in _same(labels):
        letters = zip(*(names[number] for number in group), strict=False)
        skipped = next((place for place, found in enumerate(letters) if len(set(found)) > 1), 0)
        for number in group:
            # Keeps four of the common characters as context.
            labels[number] = cut_text(f"...{names[number][max(0, skipped - 4) :]}", LONGEST_NAME, keep_end=False)
    while groups := _same(labels):
        for number in chain.from_iterable(groups):
            labels[number] = f"{cut_text(names[number], LONGEST_NAME - len(f' ({number})'))} ({number})"
    return labels


def _same(labels: list[str]) -> list[list[int]]:
    """The positions of each label that occurs more than once."""
    positions: dict[str, list[int]] = {}
    for number, label in enumerate(labels):
        positions.setdefault(label, []).append(number)
    return [group for group in positions.values() if len(group) > 1]


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    use_fonts_with_all_characters(figure)
    with quiet_about_missing_glyphs():
        figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.15)  # a long title widens the figure
    return buffer.getvalue()


def data_uri(content: bytes, kind: str = "png") -> str:
    """An image file of some kind as the address of an image in a page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
