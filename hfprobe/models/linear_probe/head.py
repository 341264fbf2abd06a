"""The exact linear head: multinomial logistic regression on cached features, with the penalty chosen on validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from hfprobe.models.linear_probe.blocks import Blocks, Rows
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
    """Logistic regression on standardised features, whose solution is unfolded into a plain linear layer.

    The features are read in blocks, and the processes of a run share them, see `Blocks`. They are not standardised
    themselves: a weight for standardised features is unfolded before each block is read.

    Args:
        layers: features, which together have N rows.
        labels: (N,) int64.
        class_weights: (C,) weights of the rows of each class in the loss; None: all are 1.
    """

    def __init__(self, layers: Sequence[Rows], labels: np.ndarray, class_weights: np.ndarray | None):
        self.blocks, self.labels = Blocks(layers), torch.from_numpy(labels)
        self.weights = torch.ones(len(labels), dtype=torch.float64)
        if class_weights is not None:
            self.weights = torch.from_numpy(class_weights)[self.labels]
        size = self.blocks.size
        self.mean = self.blocks.sum(lambda found, values, _: found.add_(values.sum(0)), size) / len(labels)
        spread = self.blocks.sum(self._add_spread, size, size) / len(labels)
        self.scale = spread.diagonal().sqrt()
        self.scale[self.scale == 0] = 1  # a constant feature stays at zero
        self.covariance = spread / self.scale / self.scale[:, None]

    def solve(self, *, penalty: float, start: torch.Tensor, tolerance: float = 1e-8) -> torch.Tensor:
        """See `minimise`."""
        return minimise(self._evaluate, covariance=self.covariance, penalty=penalty, start=start, tolerance=tolerance)

    def unfold(self, solution: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weight = solution[:, :-1] / self.scale
        return weight, solution[:, -1] - weight @ self.mean

    def _add_spread(self, found: torch.Tensor, values: torch.Tensor, rows: slice) -> None:
        centred = values - self.mean
        found.addmm_(centred.T, centred)

    def _evaluate(self, solution: torch.Tensor) -> torch.Tensor:
        weight, bias = self.unfold(solution)

        def add(found: torch.Tensor, values: torch.Tensor, rows: slice) -> None:
            add_cross_entropy(found, values, self.labels[rows], self.weights[rows], weight=weight, bias=bias)

        sums = self.blocks.sum(add, solution.numel() + 2, point=float(solution.sum())) / len(self.labels)
        gradient = sums[2:].view_as(solution)
        gradient[:, :-1] = (gradient[:, :-1] - gradient[:, -1:] * self.mean) / self.scale
        return sums


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
    problem = Problem(list(train.features), np.tile(train.labels, len(train.features)), class_weights)
    held_out, answers = Blocks([validation.features[0]]), torch.from_numpy(validation.labels)
    by_class = None if class_weights is None else torch.from_numpy(class_weights)
    trials: list[Trial] = []

    def score(solution: torch.Tensor) -> tuple[float, Trial]:
        weight, bias = problem.unfold(solution)
        logits = held_out.map(lambda values: values @ weight.T + bias, classes)
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
    layers = [*train.features, validation.features[0]]
    labels = np.concatenate([np.tile(train.labels, len(train.features)), validation.labels])
    problem = Problem(layers, labels, class_weights)
    start = torch.zeros(classes, train.features.shape[-1] + 1, dtype=torch.float64)
    weight, bias = problem.unfold(problem.solve(penalty=penalty, start=start))
    return weight.numpy(), bias.numpy()


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
    """Minimise the mean cross-entropy + penalty / 2 * |weight|^2 over weight and bias, of features in memory.

    Args:
        features: (N, F) float64.
        labels: (N,) int64.
        covariance: features.T @ features / N, if the caller has already computed it.
        weights: (N,) float64, weights of the images in the cross-entropy; None: all are 1.
        penalty, start, tolerance: see `minimise`.

    Returns:
        (C, F + 1) weight, with the bias in the last column.
    """
    weights = torch.ones(len(labels)).to(features) if weights is None else weights

    def evaluate(solution: torch.Tensor) -> torch.Tensor:
        sums = torch.zeros(solution.numel() + 2).to(features)
        weight = solution[:, :-1].contiguous()
        add_cross_entropy(sums, features, labels, weights, weight=weight, bias=solution[:, -1])
        return sums / len(labels)

    covariance = features.T @ features / len(features) if covariance is None else covariance
    return minimise(evaluate, covariance=covariance, penalty=penalty, start=start, tolerance=tolerance)


def minimise(
    evaluate: Callable[[torch.Tensor], torch.Tensor],
    *,
    covariance: torch.Tensor,
    penalty: float,
    start: torch.Tensor,
    tolerance: float,
) -> torch.Tensor:
    """Minimise the mean cross-entropy + penalty / 2 * |weight|^2 over weight and bias.

    L-BFGS runs in preconditioned coordinates, in which the curvature at `start` is about one in every direction. They
    come from the Hessian in which the spread of the class probabilities of each image is replaced by its mean. The
    features of a backbone are so correlated that L-BFGS needs ten times as many steps without preconditioning.

    Args:
        evaluate: of a solution, the means over the images of what `add_cross_entropy` adds up.
        covariance: (F, F) features.T @ features / N.
        penalty: weight of the L2 penalty; the bias is not penalised.
        start: (C, F + 1) initial weight, with the bias in the last column.
        tolerance: largest allowed partial derivative at the solution, in the preconditioned coordinates.

    Returns:
        (C, F + 1) weight, with the bias in the last column.
    """
    weight, bias = start[:, :-1], start[:, -1]
    spread = evaluate(start)[1].clamp(min=1e-3) / len(start)
    curvature = torch.linalg.cholesky(spread * covariance + penalty * torch.eye(len(covariance)).to(covariance))
    solution = torch.cat([weight @ curvature, bias[:, None] * spread.sqrt()], dim=1).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [solution], max_iter=500, tolerance_grad=tolerance, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def plain() -> torch.Tensor:
        weight = torch.linalg.solve_triangular(curvature, solution[:, :-1], upper=False, left=False)
        return torch.cat([weight, solution[:, -1:] / spread.sqrt()], dim=1)

    def objective() -> torch.Tensor:
        optimizer.zero_grad()
        found = plain()
        sums = evaluate(found.detach())
        gradient = sums[2:].view_as(found)
        gradient[:, :-1] += penalty * found[:, :-1].detach()
        found.backward(gradient)
        return sums[0] + penalty / 2 * found[:, :-1].detach().square().sum()

    optimizer.step(objective)
    with torch.no_grad():
        return plain()


def add_cross_entropy(
    sums: torch.Tensor,
    features: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    *,
    weight: torch.Tensor,
    bias: torch.Tensor,
) -> None:
    """Add the cross-entropy of some images, and what belongs to it, to sums over all images.

    Args:
        sums: (2 + C * (F + 1),): the cross-entropy; one minus the sum of the squared class probabilities, which is
            their spread; and the gradient of the cross-entropy with the bias in the last column.
        features: (B, F).
        labels: (B,) int64.
        weights: (B,) weights of the images in the cross-entropy and its gradient.
        weight: (C, F), contiguous.
        bias: (C,).
    """
    # In this form, neither product nor gradient multiplies a transposed matrix, for which BLAS is six times slower.
    logits = torch.addmm(bias[:, None], weight, features.T).log_softmax(0)  # (C, B)
    sums[0] -= logits.gather(0, labels[None])[0] @ weights
    probabilities = logits.exp_()
    sums[1] += len(labels) - probabilities.square().sum()
    probabilities *= weights
    errors = probabilities.scatter_add_(0, labels[None], -weights[None])
    gradient = sums[2:].view(len(weight), -1)
    gradient[:, :-1] += errors @ features
    gradient[:, -1] += errors.sum(1)


def install_head(model: PreTrainedModel, weight: np.ndarray, bias: np.ndarray) -> None:
    """Copy a solved weight (C, F) and bias (C,) into the linear layer of a model."""
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(weight))
        model.head.bias.copy_(torch.from_numpy(bias))
