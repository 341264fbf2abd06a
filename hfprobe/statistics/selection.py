"""The optimism of a choice: how much of the accuracy of the best candidate comes from choosing it. Without torch."""

from __future__ import annotations

import numpy as np

from hfprobe.statistics.intervals import NUMBERS_AT_ONCE

DRAWS = 1000


def estimate_optimism(*, costs: np.ndarray, right: np.ndarray, seed: int = 0) -> float:
    """How much the accuracy of the chosen candidate overstates its accuracy on new images, as a share.

    The candidate with the smallest total cost is chosen. In each of DRAWS bootstrap resamples of the images the choice
    is repeated, and both choices are compared on the images outside the resample: the estimate is the mean accuracy of
    the candidate that all images chose minus that of the candidates that the resamples chose. This is the bias
    correction BBC-CV of Tsamardinos, Greasidou and Borboudakis (Machine Learning, 2018), whose first term, the accuracy
    on all images, is replaced by its mean over the resamples, which it equals but for noise. The estimate is 0 for one
    candidate, may be slightly negative, and tends to be too large where the best candidate is only a little better,
    because a resample finds it less often than all images do.

    Args:
        costs: (K, N) of K candidates on N images, such as the cross-entropy.
        right: (K, N) bool, whether a candidate classifies an image correctly.
        seed: seed of the resamples.
    """
    count = costs.shape[1]
    chosen, generator = int(costs.sum(axis=1).argmin()), np.random.default_rng(seed)
    gains: list[np.ndarray] = []
    for part in np.array_split(np.empty(DRAWS), -(-DRAWS * count // NUMBERS_AT_ONCE)):
        resamples = generator.multinomial(count, np.full(count, 1 / count), size=len(part))  # (D, N) times drawn
        outside = resamples == 0
        found = (resamples @ costs.T).argmin(axis=1)
        scores = outside.astype(np.float64) @ right.T  # (D, K) images outside that are classified correctly
        each = scores[:, chosen] - scores[np.arange(len(part)), found]
        gains.append(each / np.maximum(outside.sum(axis=1), 1))
    return float(np.concatenate(gains).mean())
