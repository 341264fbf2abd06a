"""Suspect labels: what a probe that was not trained on an image says of its label.

The ranking is that of confident learning by self-confidence (Northcutt et al. 2021, "Confident Learning: Estimating
Uncertainty in Dataset Labels", Journal of Artificial Intelligence Research 70).
"""

from __future__ import annotations

import numpy as np
import torch

from hfprobe.models.linear_probe.head import minimise_cross_entropy
from hfprobe.system.progress import show_progress

FOLDS = 5
# Of the first fold, from strong to weak; the best one is used for all folds. The search ends at the first worse one.
PENALTIES = np.logspace(-1, -4, 7)


def assign_folds(labels: np.ndarray, groups: np.ndarray, *, folds: int, seed: int) -> np.ndarray:
    """(N,) the fold of each image: each class is divided evenly, and duplicates are in one fold.

    Otherwise, the label of a duplicate would answer for the image. A group that has more than a fold of its class is
    divided, because the class would be missing from the other folds.

    Args:
        labels: (N,) class numbers.
        groups: (N,) the same number for images that are duplicates.
    """
    sizes = np.bincount(groups, minlength=len(labels))[groups]
    alone = sizes * folds > np.bincount(labels)[labels]
    groups = np.where(alone, len(labels) + np.arange(len(labels)), groups)
    owners, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(owners))
    fold = np.empty(len(owners), dtype=np.int64)
    for label in np.unique(labels[first]):
        mine = order[labels[first[order]] == label]
        fold[mine] = (np.arange(len(mine)) + label) % folds  # the first fold is not always the largest
    return fold[inverse]


def out_of_sample_probabilities(
    features: np.ndarray, labels: np.ndarray, folds: np.ndarray, *, classes: int
) -> np.ndarray:
    """(N, classes) probabilities of each image by the exact head that was solved on the other folds.

    The penalty is chosen on the first fold and used for all, which changes little and saves most of the time.

    Args:
        features: (N, F) float32.
        labels, folds: (N,).
    """
    everything = torch.from_numpy(features.astype(np.float64))
    mean, scale = everything.mean(dim=0), everything.std(dim=0, correction=0)
    scale[scale == 0] = 1
    everything = (everything - mean) / scale
    answers = torch.from_numpy(labels)
    found = torch.empty(len(labels), classes, dtype=torch.float64)
    penalty = None
    used = np.unique(folds)
    with show_progress(total=len(used), desc="Cross-fitting heads", unit="fold", inner=True) as progress:
        for fold in used:
            held_out = torch.from_numpy(folds == fold)
            rest = everything[~held_out]
            how = {"labels": answers[~held_out], "covariance": rest.T @ rest / len(rest)}
            start = torch.zeros(classes, everything.shape[1] + 1, dtype=torch.float64)
            if penalty is None:
                solution, penalty = _search(rest, everything[held_out], answers[held_out], start=start, **how)
            else:
                solution = minimise_cross_entropy(rest, penalty=penalty, start=start, tolerance=1e-5, **how)
            found[held_out] = _logits(everything[held_out], solution).softmax(-1)
            progress.update()
    return found.numpy()


def _search(
    rest: torch.Tensor, held_out: torch.Tensor, answers: torch.Tensor, *, start: torch.Tensor, **how: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """The solution with the lowest cross-entropy on the held-out images, and its penalty."""
    solution, best, lowest = start, (start, float(PENALTIES[0])), float("inf")
    for penalty in PENALTIES:
        solution = minimise_cross_entropy(rest, penalty=penalty, start=solution, tolerance=1e-5, **how)
        loss = torch.nn.functional.cross_entropy(_logits(held_out, solution), answers).item()
        if loss >= lowest:
            break
        best, lowest = (solution, float(penalty)), loss
    return best


def _logits(features: torch.Tensor, solution: torch.Tensor) -> torch.Tensor:
    return features @ solution[:, :-1].T + solution[:, -1]


def rank_suspects(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Positions of the images whose most probable class is not the given one, the lowest probability of it first."""
    given = probabilities[np.arange(len(labels)), labels]
    suspect = np.flatnonzero(probabilities.argmax(1) != labels)
    return suspect[np.argsort(given[suspect], kind="stable")]
