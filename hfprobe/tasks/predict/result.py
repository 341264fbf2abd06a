"""Predictions: the result of classifying new images. Does not import torch, because pages are made from it alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hfprobe.system.html import render_table

# Rows of the table that a notebook shows.
SHOWN = 20


@dataclass(frozen=True)
class Predictions:
    """The predictions of a model for N images.

    Attributes:
        class_names: C names, in the order of the columns of `probabilities`.
        names: a list of N strings: the path of each image, or its position in the list if it has no path.
        probabilities: (N, C) float32; each row sums to 1.
        unreadable: name -> reason of each image that was skipped because it cannot be read; none of them is in
            `names`.
        threshold: probability, in [0, 1], from which a prediction counts as sure.
        accuracy: the wished accuracy that training chose `threshold` for; None if it is any other number.
    """

    class_names: list[str]
    names: list[str]
    probabilities: np.ndarray
    unreadable: dict[str, str] = field(default_factory=dict)
    threshold: float = 0.5
    accuracy: float | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def labels(self) -> list[str]:
        """N names, the most probable class of each image."""
        return [self.class_names[number] for number in self.probabilities.argmax(axis=1)]

    @property
    def confidences(self) -> np.ndarray:
        """(N,) float32 in [0, 1], the probability of `labels`."""
        return self.probabilities.max(axis=1)

    def top(self, count: int) -> list[list[tuple[str, float]]]:
        """For each image its `count` most probable classes with their probabilities, the most probable first.

        Args:
            count: from 1; with fewer than `count` classes, all of them.
        """
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :count]
        shares = np.take_along_axis(self.probabilities, order, axis=1)
        return [
            [(self.class_names[number], float(share)) for number, share in zip(*row, strict=True)]
            for row in zip(order, shares, strict=True)
        ]

    @property
    def sure(self) -> np.ndarray:
        """(N,) bool, whether the most probable class has at least the probability `threshold`."""
        return self.confidences >= self.threshold

    def __repr__(self) -> str:
        told = zip(self.names[:SHOWN], self.labels, self.confidences, strict=False)
        lines = [f"{name}: {label} ({confidence:.1%})" for name, label, confidence in told]
        return "\n".join([*lines, f"... and {len(self) - SHOWN:,} more"] if len(self) > SHOWN else lines)

    def _repr_html_(self) -> str:
        rows = [
            (name, label, *(f"{share:.1%}" for share in shares))
            for name, label, shares in zip(self.names[:SHOWN], self.labels, self.probabilities, strict=False)
        ]
        caption = f"The first {SHOWN} of {len(self):,} images" if len(self) > SHOWN else ""
        return render_table(["image", "class", *self.class_names], rows, caption=caption)
