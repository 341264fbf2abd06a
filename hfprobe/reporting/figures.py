"""Pictures, drawn with matplotlib's object interface so that nothing global changes."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from matplotlib.figure import Figure

MOST_CLASSES_WITH_NUMBERS = 20
LONGEST_NAME = 24


def draw_confusion_matrix(matrix: np.ndarray, *, class_names: list[str], title: str) -> bytes:
    """PNG bytes: in each cell the count and its share of the row, shaded by the share.

    Above MOST_CLASSES_WITH_NUMBERS classes the shading alone: numbers would be too small to read and take minutes.

    Args:
        matrix: (C, C) counts, rows true classes, columns predicted ones.
    """
    matrix = np.asarray(matrix)
    shares = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
    classes = len(class_names)
    names = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..." for name in class_names]
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
    buffer = BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.15)  # a long title widens the picture
    return buffer.getvalue()
