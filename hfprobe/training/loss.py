"""The training loss with weights of the classes."""

from __future__ import annotations

import torch


def weighted_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, *, weights: torch.Tensor, smoothing: float = 0.0
) -> torch.Tensor:
    """The mean over the batch of the cross-entropy of each image times the weight of its class.

    It is not divided by the weights of the batch, unlike torch's own: an image counts the same whatever lies beside it,
    and so do the images of several processes and of accumulated batches.

    Args:
        logits: (B, C).
        labels: (B,) class numbers.
        weights: (C,), with the mean 1 over the training images.
        smoothing: label smoothing, in [0, 1).
    """
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    return (weights.to(losses)[labels] * losses).mean()
