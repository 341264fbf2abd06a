"""Answers of an exact head for the images that it was solved with, as for images that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold
from transformers import PreTrainedModel

from hfprobe.models.linear_probe.features import FeatureSplit
from hfprobe.models.linear_probe.head import Problem

FOLDS = 4


@dataclass(frozen=True, eq=False)
class Heads:
    """Linear heads, each for some images.

    Attributes:
        weight: (K, C, F) float32.
        bias: (K, C) float32.
        positions: of each of the K heads, the images that it answers for; None: one head answers for all.
    """

    weight: np.ndarray
    bias: np.ndarray
    positions: list[np.ndarray] | None = None

    @classmethod
    def of(cls, model: PreTrainedModel) -> Heads:
        """The head of a model."""
        return cls(*(values.detach().cpu().float().numpy()[None] for values in (model.head.weight, model.head.bias)))

    def answer(self, features: np.ndarray) -> np.ndarray:
        """(N, C) float32 logits for features (N, F) of one view."""
        if self.positions is None:
            return features @ self.weight[0].T + self.bias[0]
        logits = np.empty((len(features), self.bias.shape[1]), dtype=np.float32)
        for weight, bias, positions in zip(self.weight, self.bias, self.positions, strict=True):
            logits[positions] = features[positions] @ weight.T + bias
        return logits


def solve_folds(
    split: FeatureSplit,
    head: Heads,
    *,
    positions: np.ndarray,
    penalty: float,
    class_weights: np.ndarray | None = None,
) -> Heads:
    """Heads that answer for images that they were solved without: cross-fitting.

    The images that the head of a model was solved with are divided into FOLDS parts, stratified by class; the head for
    a part is solved on the others. The head of the model answers for all other images, and for all where a class has
    one image.

    Args:
        split: features of all images, as the head reads them; the first view is used.
        head: of the model.
        positions: (M,) of the images that it was solved with.
        penalty, class_weights: see `solve_head`.
    """
    features, labels = split.features[0][positions], split.labels[positions]
    folds = min(FOLDS, int(np.bincount(labels, minlength=head.bias.shape[1]).min()))
    if folds < 2:
        return head
    weights, biases = [head.weight[0]], [head.bias[0]]
    answered = [np.setdiff1d(np.arange(len(split.labels)), positions)]
    start = torch.zeros(head.bias.shape[1], features.shape[1] + 1, dtype=torch.float64)
    for others, part in StratifiedKFold(folds, shuffle=True, random_state=0).split(features, labels):
        problem = Problem(features[others], labels[others], class_weights)
        start = problem.solve(penalty=penalty, start=start)
        weight, bias = problem.unfold(start)
        weights.append(weight.float().numpy())
        biases.append(bias.float().numpy())
        answered.append(positions[part])
    return Heads(np.stack(weights), np.stack(biases), answered)
