"""The search for the best head on the features of one backbone: pooling, L2 normalisation and penalty."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from hfprobe.models.linear_probe.features import FeatureSplit
from hfprobe.models.linear_probe.head import Head, install_head, solve_head
from hfprobe.models.linear_probe.modeling import LinearProbe
from hfprobe.statistics.selection import estimate_optimism

logger = logging.getLogger(__name__)


def search_heads(
    model: LinearProbe, train: FeatureSplit, validation: FeatureSplit, *, class_weights: np.ndarray | None = None
) -> dict[str, Any]:
    """Solve a head for each pooling, with and without L2 normalisation; install that with the lowest validation loss.

    Args:
        train, validation: features of all poolings, see `LinearProbeConfig`; of validation, only the first view counts.
        class_weights: (C,) weights of the classes in the loss; None: all are 1.

    Returns:
        What was chosen, and `heads_tried` (with each penalty) and `selection_optimism`, see `estimate_optimism`.
    """
    second = str(model.config.second_pooling)
    words = {"default": "default", second: second, "both": f"default + {second}"}
    heads: dict[tuple[str, bool], Head] = {}
    for pooling in words:
        for normalize in (False, True):
            model.choose_features(pooling=pooling, normalize=normalize)
            data = (select(model, split) for split in (train, validation))
            head = solve_head(*data, classes=model.config.num_labels, class_weights=class_weights)
            heads[pooling, normalize] = head
            logger.info(
                "Head on pooling %s, L2 normalisation %s: penalty %.2g, validation accuracy %.2f%%, loss %.4f.",
                words[pooling],
                "on" if normalize else "off",
                head.penalty,
                100 * head.validation_accuracy,
                head.validation_loss,
            )
    pooling, normalize = min(heads, key=lambda key: heads[key].validation_loss)
    best, trials = heads[pooling, normalize], [trial for head in heads.values() for trial in head.trials]
    model.choose_features(pooling=pooling, normalize=normalize)
    install_head(model, best.weight, best.bias)
    optimism = estimate_optimism(
        costs=np.stack([trial.costs for trial in trials]), right=np.stack([trial.right for trial in trials])
    )
    logger.info(
        "Pooling %s, L2 normalisation %s: chosen from %d heads on %s validation images: %.2f%%, of which about %.2f "
        "points are selection (bootstrap).",
        words[pooling],
        "on" if normalize else "off",
        len(trials),
        f"{len(validation.labels):,}",
        100 * best.validation_accuracy,
        100 * optimism,
    )
    return {
        "penalty": best.penalty,
        "pooling": words[pooling],
        "normalize": normalize,
        "heads_tried": len(trials),
        "selection_optimism": round(optimism, 5),
    }


def select(model: LinearProbe, split: FeatureSplit) -> FeatureSplit:
    """The features of a split that the head of a model uses, see `LinearProbe.use`; a copy if they are normalised."""
    if not model.config.normalize:
        return replace(split, features=split.features[..., model.used()])
    rows = torch.from_numpy(np.array(split.features.reshape(-1, split.features.shape[-1])))  # writable, for torch
    return replace(split, features=model.use(rows).numpy().reshape(*split.features.shape[:2], -1))
