"""Can a model learn at all? It must overfit one batch."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel


def overfit_batch(
    *, model: PreTrainedModel, batch: dict[str, torch.Tensor], epochs: int, learning_rate: float
) -> list[float]:
    """Train on one batch with Adam until every image is right or the epochs are used up.

    Args:
        batch: `pixel_values` (B, 3, H, W) and `labels` (B,).

    Returns:
        Accuracy in [0, 1] on the batch after each epoch, without dropout.
    """
    # BatchNorm uses the statistics of this batch in evaluation too: the running ones lag behind weights that change so
    # fast. A frozen BatchNorm keeps its running statistics.
    norms = [
        module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d) and module.weight.requires_grad
    ]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=learning_rate)
    accuracies: list[float] = []
    while len(accuracies) < epochs and 1.0 not in accuracies:
        model.train()
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
        model.eval()
        for norm in norms:
            norm.train()
        with torch.inference_mode():
            predictions = model(pixel_values=batch["pixel_values"]).logits.argmax(-1)
        accuracies.append((predictions == batch["labels"]).float().mean().item())
    return accuracies
