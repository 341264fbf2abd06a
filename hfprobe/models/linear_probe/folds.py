"""Answers of a probe to images; of an exact head for those that it was solved with, as if it had not seen them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold
from transformers import BaseImageProcessor

from hfprobe.data.pixels.store import ImageSplit
from hfprobe.models.answers import Solved, Views
from hfprobe.models.linear_probe.blocks import Chosen
from hfprobe.models.linear_probe.features import FeatureSplit, extract_features
from hfprobe.models.linear_probe.head import Problem
from hfprobe.models.linear_probe.modeling import LinearProbe
from hfprobe.models.linear_probe.search import select

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
    def of(cls, model: LinearProbe) -> Heads:
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


def answer_views(
    model: LinearProbe,
    processor: BaseImageProcessor,
    split: ImageSplit,
    *,
    views: Views,
    name: str,
    solved: Solved | None,
) -> tuple[np.ndarray, float]:
    """See `hfprobe.models.base.ModelFamily.answer_views`."""
    extract = partial(
        extract_features,
        model=model,
        processor=processor,
        split=split,
        seed=views.seed,
        name=name,
        precision=views.precision,
    )
    heads = Heads.of(model)
    if solved is not None and solved.solution:
        heads = solve_folds(select(model, extract()), heads, solved=solved)
    answers, seconds = [], 0.0
    for number in views.numbers:  # one after the other: the features of all views need not fit into the memory
        found = extract() if views.augmentation is None else extract(views=[number], augmentation=views.augmentation)
        answers.append(heads.answer(select(model, found).features[0]))
        seconds += found.seconds
    return np.stack(answers), seconds


def solve_folds(split: FeatureSplit, head: Heads, *, solved: Solved) -> Heads:
    """Heads that answer for images that they were solved without: cross-fitting.

    The images that the head of a model was solved with are divided into FOLDS parts, stratified by class; the head for
    a part is solved on the others. The head of the model answers for all other images, and for all where a class has
    one image.

    Args:
        split: features of all images, as the head reads them; the first view is used.
        head: of the model.
        solved: the images that it was solved with, and how.
    """
    positions = solved.positions
    features, labels = split.features[0], split.labels[positions]
    folds = min(FOLDS, int(np.bincount(labels, minlength=head.bias.shape[1]).min()))
    if folds < 2:
        return head
    weights, biases = [head.weight[0]], [head.bias[0]]
    answered = [np.setdiff1d(np.arange(len(split.labels)), positions)]
    start = torch.zeros(head.bias.shape[1], features.shape[1] + 1, dtype=torch.float64)
    for others, part in StratifiedKFold(folds, shuffle=True, random_state=0).split(labels, labels):
        problem = Problem([Chosen(features, positions[others])], labels[others], solved.class_weights)
        start = problem.solve(penalty=solved.solution["penalty"], start=start)
        weight, bias = problem.unfold(start)
        weights.append(weight.float().numpy())
        biases.append(bias.float().numpy())
        answered.append(positions[part])
    return Heads(np.stack(weights), np.stack(biases), answered)
