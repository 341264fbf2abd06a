"""Pictures, drawn with matplotlib's object interface so that nothing global changes."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from matplotlib.figure import Figure


def draw_confusion_matrix(matrix: np.ndarray, *, class_names: list[str], title: str) -> bytes:
    """PNG bytes: in each cell the count and its share of the row, shaded by the share.

    Args:
        matrix: (C, C) counts, rows true classes, columns predicted ones.
    """
    matrix = np.asarray(matrix)
    shares = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
    classes = len(class_names)
    figure = Figure(figsize=(1.15 * classes + 2.2, 1.0 * classes + 1.9), dpi=150, layout="constrained")
    axes = figure.subplots()
    # The square root spreads the small shares, where the mistakes are.
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1.15)
    for row, column in np.ndindex(matrix.shape):
        colour = "white" if shares[row, column] > 0.45 else "#1b2733"
        weight = "bold" if row == column else "normal"
        axes.text(column, row - 0.1, f"{matrix[row, column]:,}", ha="center", va="center", color=colour, weight=weight)
        share = f"{shares[row, column]:.1%}"
        axes.text(column, row + 0.2, share, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(
        range(classes), class_names, rotation=30 if classes > 6 else 0, ha="right" if classes > 6 else "center"
    )
    axes.set_yticks(range(classes), class_names)
    axes.set_xticks(np.arange(classes - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(classes - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted", labelpad=8)
    axes.set_ylabel("true", labelpad=8)
    axes.set_title(title, loc="left", fontsize=11, pad=12)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
