"""Accuracy of a linear head on validation against the number of training images per class, from cached features."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from hfprobe.models.linear_probe.head import PENALTIES, SEARCH_TOLERANCE, minimise_cross_entropy
from hfprobe.tasks.decide.stage_results import CurvePoint

# One draw of five images per class varies by several points of accuracy, one of many images hardly: each size has
# DRAWS draws, and LARGE_DRAWS from this product of images and classes on, which the time of a solution depends on.
DRAWS, LARGE_DRAWS, LARGE = 5, 3, 10_000
# The largest product: 20,000 images of five classes and 1,280 features take 15 s in total on one core.
MOST = 100_000
# The position in PENALTIES where the search for the fewest images begins.
FIRST_PENALTY = 3


def measure_label_curve(
    features_train: np.ndarray,
    labels_train: np.ndarray,
    features_validation: np.ndarray,
    labels_validation: np.ndarray,
    *,
    class_count: int,
    seed: int,
) -> list[CurvePoint]:
    """Solve the head for 5, 10, 20, 50, 100, ... training images per class, less than the smallest class has.

    The draws are nested: that of more images contains that of fewer. Features are standardised with the statistics of
    the drawn images. The penalty is searched with the first draw of each size, from that of the size before, by the
    cross-entropy on validation, and the other draws use it. Everything is in float32: the accuracies differ from those
    of `solve_head` by less than the draws do.

    Args:
        features_train: (N, F) float32.
        labels_train: (N,) int64.
        features_validation: (M, F) float32.
        labels_validation: (M,) int64.
        class_count: number of classes C; each has training images.
        seed: of the draws.

    Returns:
        One point for each size, as far as the number of images times C is at most MOST; empty if the smallest class has
        at most 5 images.
    """
    generator = np.random.default_rng(seed)
    drawn = [
        [generator.permutation(np.flatnonzero(labels_train == number)) for number in range(class_count)]
        for _ in range(DRAWS)
    ]
    # Copies, because torch warns of arrays that cannot be written to, as memory-mapped ones.
    held_out, answers = torch.from_numpy(np.array(features_validation)), torch.from_numpy(np.array(labels_validation))
    fewest, chosen, points = min(map(len, drawn[0])), FIRST_PENALTY, []
    for shots in _sizes(min(fewest, MOST // class_count**2 + 1)):
        accuracies = []
        for number, classes in enumerate(drawn if shots * class_count**2 < LARGE else drawn[:LARGE_DRAWS]):
            positions = np.sort(np.concatenate([order[:shots] for order in classes]))
            head = _Heads(features_train[positions], labels_train[positions], held_out, answers, class_count)
            if number == 0:
                chosen = head.search(chosen)
            accuracies.append(head.accuracy(chosen))
        points.append(
            CurvePoint(
                shots=shots,
                accuracy=float(np.mean(accuracies)),
                deviation=float(np.std(accuracies, ddof=1)),
                draws=len(accuracies),
                n=len(labels_validation),
            )
        )
    return points


def _sizes(fewest: int) -> Iterator[int]:
    """5, 10, 20, 50, 100, ... below `fewest`."""
    power = 1
    while True:
        for shots in (factor * power for factor in (1, 2, 5)):
            if shots >= fewest:
                return
            if shots >= 5:
                yield shots
        power *= 10


class _Heads:
    """The heads of one draw, one for each penalty that is asked for."""

    def __init__(
        self, features: np.ndarray, labels: np.ndarray, held_out: torch.Tensor, answers: torch.Tensor, classes: int
    ):
        drawn = torch.from_numpy(features)
        self.scale, self.mean = torch.std_mean(drawn, dim=0, correction=0)
        self.scale[self.scale == 0] = 1  # a constant feature stays at zero
        self.features, self.labels = (drawn - self.mean) / self.scale, torch.from_numpy(labels)
        self.covariance = self.features.T @ self.features / len(labels)
        self.held_out, self.answers = held_out, answers
        self.start = torch.zeros(classes, features.shape[1] + 1)
        self.logits: dict[int, torch.Tensor] = {}

    def solve(self, at: int) -> torch.Tensor:
        """Logits on validation, with the penalty at this position in PENALTIES."""
        if at not in self.logits:
            how = {"penalty": float(PENALTIES[at]), "tolerance": SEARCH_TOLERANCE}
            self.start = minimise_cross_entropy(
                self.features, self.labels, start=self.start, covariance=self.covariance, **how
            )
            weight = self.start[:, :-1] / self.scale
            self.logits[at] = self.held_out @ weight.T + (self.start[:, -1] - weight @ self.mean)
        return self.logits[at]

    def search(self, at: int) -> int:
        """The position in PENALTIES of the lowest cross-entropy on validation, from neighbour to neighbour."""

        def loss(position: int) -> float:
            return torch.nn.functional.cross_entropy(self.solve(position), self.answers).item()

        while True:
            near = [position for position in (at - 1, at, at + 1) if 0 <= position < len(PENALTIES)]
            best = min(near, key=loss)
            if best == at:
                return at
            at = best

    def accuracy(self, at: int) -> float:
        return (self.solve(at).argmax(dim=1) == self.answers).double().mean().item()
