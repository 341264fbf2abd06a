"""The exact linear head: multinomial logistic regression on cached features, with the penalty chosen on validation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from transformers import PreTrainedModel

from hfprobe.models.linear_probe.features import FeatureSplit
from hfprobe.system.progress import show_progress

# Weight of the L2 penalty relative to the mean cross-entropy, from strong to weak: each solution starts the next.
PENALTIES = np.logspace(0, -6, 13)
# The search ends after this many penalties in a row that are worse on validation: the weakest take longest to solve.
PATIENCE = 2
# Precise enough to compare penalties; the chosen one is then solved to full precision.
SEARCH_TOLERANCE = 1e-5


@dataclass(frozen=True, eq=False)
class Trial:
    """A head with one penalty on the N validation images.

    Attributes:
        costs: (N,) float64 cross-entropy of each image, times the weight of its class.
        right: (N,) bool, whether the head classifies the image correctly.
    """

    costs: np.ndarray
    right: np.ndarray


@dataclass(frozen=True, eq=False)
class Head:
    """A solved linear head.

    Attributes:
        weight: (C, F) float64, for features that are not standardised.
        bias: (C,) float64.
        penalty: weight of the L2 penalty, chosen on validation.
        validation_loss: mean cross-entropy on validation, with the weights of the classes.
        validation_accuracy: share of the validation images that are classified correctly.
        trials: one for each penalty that was tried.
    """

    weight: np.ndarray
    bias: np.ndarray
    penalty: float
    validation_loss: float
    validation_accuracy: float
    trials: list[Trial]


class Problem:
    """Logistic regression on standardised features, whose solution is unfolded into a plain linear layer."""

    def __init__(self, features: np.ndarray, labels: np.ndarray, class_weights: np.ndarray | None):
        values = torch.from_numpy(features.astype(np.float64))
        self.mean, self.scale = values.mean(dim=0), values.std(dim=0, correction=0)
        self.scale[self.scale == 0] = 1  # a constant feature stays at zero
        values = (values - self.mean) / self.scale
        answers = torch.from_numpy(labels)
        self.solve = partial(
            minimise_cross_entropy,
            values,
            answers,
            covariance=values.T @ values / len(values),
            weights=None if class_weights is None else torch.from_numpy(class_weights)[answers],
        )

    def unfold(self, solution: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weight = solution[:, :-1] / self.scale
        return weight, solution[:, -1] - weight @ self.mean


def solve_head(
    train: FeatureSplit, validation: FeatureSplit, *, classes: int, class_weights: np.ndarray | None = None
) -> Head:
    """Multinomial logistic regression by L-BFGS in float64 on standardised features.

    The penalty with the lowest cross-entropy on validation is chosen. The standardisation is then folded into weight
    and bias, so that the head is a plain linear layer. The objective is that of scikit-learn's LogisticRegression with
    C = 1 / (penalty x N) and, if there are class weights, with these as its `class_weight`.

    Args:
        train, validation: features of both splits; of validation, only the first view is used.
        classes: number of classes C.
        class_weights: (C,) weights of the images of each class in the loss, also on validation; None: all are 1.
    """
    problem = Problem(*_rows(train), class_weights)
    held_out, answers = torch.from_numpy(validation.features[0].astype(np.float64)), torch.from_numpy(validation.labels)
    by_class = None if class_weights is None else torch.from_numpy(class_weights)
    trials: list[Trial] = []

    def score(solution: torch.Tensor) -> tuple[float, Trial]:
        weight, bias = problem.unfold(solution)
        logits = held_out @ weight.T + bias
        loss = torch.nn.functional.cross_entropy(logits, answers, weight=by_class).item()
        costs = torch.nn.functional.cross_entropy(logits, answers, weight=by_class, reduction="none")
        return loss, Trial(costs.numpy(), (logits.argmax(-1) == answers).numpy())

    losses: list[float] = []
    solution = best = torch.zeros(classes, train.features.shape[-1] + 1, dtype=torch.float64)
    with show_progress(total=len(PENALTIES), desc="Solving the head", unit="penalty", inner=True) as progress:
        for penalty in PENALTIES:
            solution = problem.solve(penalty=penalty, start=solution, tolerance=SEARCH_TOLERANCE)
            loss, trial = score(solution)
            losses.append(loss)
            trials.append(trial)
            progress.update()
            if losses[-1] == min(losses):
                best = solution
            elif len(losses) - 1 - np.argmin(losses) >= PATIENCE:
                break
    penalty = float(PENALTIES[np.argmin(losses)])
    solution = problem.solve(penalty=penalty, start=best)
    weight, bias = problem.unfold(solution)
    loss, final = score(solution)
    return Head(weight.numpy(), bias.numpy(), penalty, loss, float(final.right.mean()), trials)


def refit_head(
    train: FeatureSplit,
    validation: FeatureSplit,
    *,
    classes: int,
    penalty: float,
    class_weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Weight (C, F) and bias (C,) of the head for train + validation together, with a penalty that is already chosen.

    Args:
        train, validation, classes, class_weights: see `solve_head`.
    """
    features, labels = _rows(train)
    features = np.concatenate([features, validation.features[0]])
    problem = Problem(features, np.concatenate([labels, validation.labels]), class_weights)
    start = torch.zeros(classes, features.shape[1] + 1, dtype=torch.float64)
    weight, bias = problem.unfold(problem.solve(penalty=penalty, start=start))
    return weight.numpy(), bias.numpy()


def _rows(split: FeatureSplit) -> tuple[np.ndarray, np.ndarray]:
    """Features (V x N, F) and labels (V x N,) of V views of N images."""
    return split.features.reshape(-1, split.features.shape[-1]), np.tile(split.labels, len(split.features))


def minimise_cross_entropy(
    features: torch.Tensor,
    labels: torch.Tensor,
    *,
    penalty: float,
    start: torch.Tensor,
    covariance: torch.Tensor | None = None,
    weights: torch.Tensor | None = None,
    tolerance: float = 1e-8,
) -> torch.Tensor:
    """Minimise the mean cross-entropy + penalty / 2 * |weight|^2 over weight and bias.

    L-BFGS runs in preconditioned coordinates, in which the curvature at `start` is about one in every direction. They
    come from the Hessian in which the spread of the class probabilities of each image is replaced by its mean. The
    features of a backbone are so correlated that L-BFGS needs ten times as many steps without preconditioning.

    Args:
        features: (N, F) float64.
        labels: (N,) int64.
        penalty: weight of the L2 penalty; the bias is not penalised.
        start: (C, F + 1) initial weight, with the bias in the last column.
        covariance: features.T @ features / N, if the caller has already computed it.
        weights: (N,) float64, weights of the images in the cross-entropy; None: all are 1.
        tolerance: largest allowed partial derivative at the solution, in the preconditioned coordinates.

    Returns:
        (C, F + 1) weight, with the bias in the last column.
    """
    if covariance is None:
        covariance = features.T @ features / len(features)
    weight, bias = start[:, :-1], start[:, -1]
    probabilities = torch.addmm(bias, features, weight.T).softmax(-1)
    spread = (1 - probabilities.square().sum(-1)).mean().clamp(min=1e-3) / len(start)
    curvature = torch.linalg.cholesky(spread * covariance + penalty * torch.eye(len(covariance)).to(covariance))
    solution = torch.cat([weight @ curvature, bias[:, None] * spread.sqrt()], dim=1).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [solution], max_iter=500, tolerance_grad=tolerance, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def plain() -> tuple[torch.Tensor, torch.Tensor]:
        weight = torch.linalg.solve_triangular(curvature, solution[:, :-1], upper=False, left=False)
        return weight, solution[:, -1] / spread.sqrt()

    def objective() -> torch.Tensor:
        optimizer.zero_grad()
        weight, bias = plain()
        # In this form, neither product nor gradient multiplies a transposed matrix, for which BLAS is six times slower.
        logits = (weight.contiguous() @ features.T + bias[:, None]).T
        if weights is None:
            loss = torch.nn.functional.cross_entropy(logits, labels)
        else:
            loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none") @ weights / len(weights)
        loss = loss + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(objective)
    with torch.no_grad():
        weight, bias = plain()
    return torch.cat([weight, bias[:, None]], dim=1)


def install_head(model: PreTrainedModel, weight: np.ndarray, bias: np.ndarray) -> None:
    """Copy a solved weight (C, F) and bias (C,) into the linear layer of a model."""
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(weight))
        model.head.bias.copy_(torch.from_numpy(bias))
