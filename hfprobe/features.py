"""Frozen features: extracted once a view, kept on disk, and the exact linear head on top of them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from hfprobe.data import cache
from hfprobe.data.resident import ImageBatches, ImageSplit
from hfprobe.errors import MachineError
from hfprobe.files import create_array, sha256
from hfprobe.progress import show_progress
from hfprobe.provenance import versions

logger = logging.getLogger(__name__)

# More is no faster on two CPU cores (67, 72, 70 images/s of EfficientNet-Lite0 at 16, 32, 64); a GPU wants more.
CPU_BATCH_SIZE = 32
GPU_BATCH_SIZE = 512
# Of an extraction, how far it is: writing it down at every batch took a twentieth of the time.
SECONDS_BETWEEN_NOTES = 5
# Weight of the L2 penalty against the mean cross entropy, strongest first: each solution starts the next.
PENALTIES = np.logspace(0, -6, 13)
# Weaker penalties in a row that do worse on validation before the rest is left out: they take the longest to solve.
PATIENCE = 2
# Enough to tell the penalties apart; the chosen one is solved to the end.
SEARCH_TOLERANCE = 1e-5


@dataclass(frozen=True)
class FeatureSplit:
    """Features of one split.

    Attributes:
        features: (V, N, F) float32, one layer a view, memory-mapped where there is one view.
        labels: (N,) int64.
        seconds: that the backbone took to make them, also where they come from the cache.
    """

    features: np.ndarray
    labels: np.ndarray
    seconds: float = 0.0


class FeatureBatches(torch.utils.data.Dataset):
    """Cached features as the Trainer reads them: `features` (B, F) float32 and `labels` (B,) int64.

    Every view of an image is a row of its own: `len` is views x images.
    """

    def __init__(self, split: FeatureSplit):
        self.split = split
        self.features = split.features.reshape(-1, split.features.shape[-1])
        self.labels = np.tile(split.labels, len(split.features))

    def set_epoch(self, epoch: int) -> None:
        """Nothing is drawn anew: the views are in the cache."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        return {key: value[0] for key, value in self.__getitems__([position]).items()}

    def __getitems__(self, positions: Sequence[int]) -> dict[str, torch.Tensor]:
        return {
            "features": torch.from_numpy(self.features[positions]),
            "labels": torch.from_numpy(self.labels[positions]),
        }


def extract_features(
    *, model: PreTrainedModel, processor: Any, split: ImageSplit, views: int = 1, seed: int = 0, name: str = "images"
) -> FeatureSplit:
    """Each image through the backbone once a view, in evaluation mode; what the cache holds is not computed again.

    View 0 is the plain image, view 1 its mirror image, further ones are random crops keyed by (seed, view, index). An
    extraction that was interrupted goes on where it stopped; a cached file that was cut or changed is made again.

    Args:
        model: has `extract_features` and `frozen_sha256`.
        name: of the split, for the progress bar.

    Raises:
        MachineError: no room for the features.
    """
    layers, seconds = zip(
        *(
            _load_or_extract(model=model, processor=processor, split=split, view=view, seed=seed, name=name)
            for view in range(views)
        ),
        strict=True,
    )
    features = layers[0][None] if views == 1 else np.stack(layers)
    return FeatureSplit(features=features, labels=split.labels, seconds=sum(seconds))


def cache_key(*, model: PreTrainedModel, processor: Any, split: ImageSplit, view: int, seed: int) -> str:
    """32 hex digits over everything that the features of one view depend on."""
    libraries = versions()
    parts = {
        "backbone": model.config.backbone,
        "weights": model.frozen_sha256(),
        "preprocessing": processor.to_dict(),
        "images": split.fingerprint,
        "view": [view, seed if view > 1 else None],  # only crops are drawn
        "dtype": str(next(model.parameters()).dtype),
        "timm": libraries["timm"],
        "torch": libraries["torch"],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _load_or_extract(
    *, model: PreTrainedModel, processor: Any, split: ImageSplit, view: int, seed: int, name: str
) -> tuple[np.ndarray, float]:
    folder = cache.cache_folder() / "features"
    kept = folder / f"{cache_key(model=model, processor=processor, split=split, view=view, seed=seed)}.npy"
    sums = kept.with_suffix(".json")
    if kept.is_file() and sums.is_file():
        record = _read_json(sums)
        if record.get("sha256") == sha256(kept) and "seconds" in record:
            logger.info("Features of the %s: from the cache (view %d).", name, view)
            return np.load(kept, mmap_mode="r"), record["seconds"]
        logger.warning("The cached features %s were cut or changed; making them again.", kept.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sums.unlink(missing_ok=True)
        part = kept.with_suffix(".part")
        seconds = _extract_to(part, model, processor, split, view, seed, name)
        os.replace(part, kept)
        sums.write_text(json.dumps({"sha256": sha256(kept), "seconds": seconds}))
    except OSError as error:
        reason = error.strerror or error
        raise MachineError(f"Cannot keep features in {folder}: {reason}. Free some space and run again.") from error
    return np.load(kept, mmap_mode="r"), seconds


def _extract_to(
    part: Path, model: PreTrainedModel, processor: Any, split: ImageSplit, view: int, seed: int, name: str
) -> float:
    """Fill `part`; the seconds it took in all.

    Rows already written stand in a file beside it, so that an interrupted call can be continued.
    """
    counter = part.with_suffix(".rows")
    shape = (len(split), model.config.feature_size)
    record = {"rows": 0, "seconds": 0.0} | _read_json(counter)
    done, earlier = record["rows"], record["seconds"]
    try:
        features = np.lib.format.open_memmap(part, mode="r+") if done else None
    except (FileNotFoundError, ValueError):  # the part itself was removed or cut
        features = None
    if features is None:
        done, earlier = 0, 0.0
        features = create_array(part, dtype=np.float32, shape=shape)
    batches = ImageBatches(split, processor=processor, mirror=view == 1, augment={} if view > 1 else None, seed=seed)
    batches.set_epoch(view)  # of random crops: each view has its own
    device = next(model.parameters()).device
    batch_size = CPU_BATCH_SIZE if device.type == "cpu" else GPU_BATCH_SIZE
    model.eval()
    start = time.perf_counter() - earlier

    def note(rows: int) -> None:
        features.flush()  # first, so that no row is counted that a power cut could take
        counter.write_text(json.dumps({"rows": rows, "seconds": time.perf_counter() - start}))

    noted = time.perf_counter()
    stage = f"Features of the {name}, view {view}"
    try:
        with (
            show_progress(total=len(split), initial=done, desc=stage, unit="image") as progress,
            torch.inference_mode(),
        ):
            for first in range(done, len(split), batch_size):
                positions = np.arange(first, min(first + batch_size, len(split)))
                pixels = batches.__getitems__(positions)["pixel_values"]
                features[positions] = model.extract_features(pixels.to(device)).float().cpu().numpy()
                done = first + len(positions)
                progress.update(len(positions))
                if time.perf_counter() - noted > SECONDS_BETWEEN_NOTES:
                    note(done)
                    noted = time.perf_counter()
    finally:
        note(done)
    counter.unlink(missing_ok=True)
    return time.perf_counter() - start


@dataclass(frozen=True, eq=False)
class Head:
    """A solved linear head.

    Attributes:
        weight: (C, F) float64, for features as they are (the standardisation is folded in).
        bias: (C,) float64.
        penalty: the L2 penalty that validation chose.
        validation_loss: its mean cross entropy there.
    """

    weight: np.ndarray
    bias: np.ndarray
    penalty: float
    validation_loss: float


def solve_head(train: FeatureSplit, validation: FeatureSplit, *, classes: int) -> Head:
    """Multinomial logistic regression by L-BFGS in float64 on standardised features.

    The penalty is the one with the lowest cross entropy on validation; standardisation is folded back, so that the
    head is a plain Linear. The objective is scikit-learn's LogisticRegression with C = 1 / (penalty x N).
    """
    features = torch.from_numpy(train.features.reshape(-1, train.features.shape[-1]).astype(np.float64))
    labels = torch.from_numpy(np.tile(train.labels, len(train.features)))
    mean, scale = features.mean(dim=0), features.std(dim=0, correction=0)
    scale[scale == 0] = 1  # a constant feature stays at zero
    features = (features - mean) / scale
    held_out, answers = torch.from_numpy(validation.features[0].astype(np.float64)), torch.from_numpy(validation.labels)
    solve = partial(minimise_cross_entropy, features, labels, covariance=features.T @ features / len(features))

    def unfold(solution: torch.Tensor, penalty: float) -> Head:
        weight = solution[:, :-1] / scale
        bias = solution[:, -1] - weight @ mean
        loss = torch.nn.functional.cross_entropy(held_out @ weight.T + bias, answers).item()
        return Head(weight=weight.numpy(), bias=bias.numpy(), penalty=penalty, validation_loss=loss)

    losses: list[float] = []
    solution = best = torch.zeros(classes, features.shape[1] + 1, dtype=torch.float64)
    with show_progress(total=len(PENALTIES), desc="Solving the head", unit="penalty", inner=True) as progress:
        for penalty in PENALTIES:
            solution = solve(penalty=penalty, start=solution, tolerance=SEARCH_TOLERANCE)
            losses.append(unfold(solution, penalty).validation_loss)
            progress.update()
            if losses[-1] == min(losses):
                best = solution
            elif len(losses) - 1 - np.argmin(losses) >= PATIENCE:
                break
    penalty = float(PENALTIES[np.argmin(losses)])
    return unfold(solve(penalty=penalty, start=best), penalty)


def minimise_cross_entropy(
    features: torch.Tensor,
    labels: torch.Tensor,
    *,
    penalty: float,
    start: torch.Tensor,
    covariance: torch.Tensor | None = None,
    tolerance: float = 1e-8,
) -> torch.Tensor:
    """argmin of mean cross entropy + penalty / 2 * |weight|^2.

    L-BFGS runs in coordinates in which the curvature at `start` is about one in every direction: those of the Hessian
    with each image's class probabilities replaced by their average spread. Features of a backbone are so correlated
    that it needs ten times as many steps without.

    Args:
        features: (N, F) float64.
        start: (C, F + 1), the bias in the last column; the penalty leaves it alone.
        covariance: features.T @ features / N where the caller has it already.
        tolerance: the largest partial derivative left, in the coordinates above.
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
        # Written so that neither product nor gradient multiplies a transposed matrix: BLAS is six times slower at it.
        logits = (weight.contiguous() @ features.T + bias[:, None]).T
        loss = torch.nn.functional.cross_entropy(logits, labels) + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(objective)
    with torch.no_grad():
        weight, bias = plain()
    return torch.cat([weight, bias[:, None]], dim=1)


def install_head(model: PreTrainedModel, head: Head) -> None:
    """Copy a solved head into the model's Linear."""
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(head.weight))
        model.head.bias.copy_(torch.from_numpy(head.bias))


def _read_json(path: Path) -> dict[str, Any]:
    """What a small record holds; nothing where it is missing or was cut."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
