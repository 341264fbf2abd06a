"""Features of no backbone."""

import numpy as np

from hfprobe.models.linear_probe.features import FeatureSplit


def blobs(count=400, size=20, classes=3, seed=0, noise=2):
    """Overlapping Gaussian classes, with a feature that never changes and one on another scale."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = np.random.default_rng(9).normal(size=(classes, size))
    values = (centres[labels] + noise * generator.normal(size=(count, size))).astype(np.float32)
    values[:, 0] = 3
    values[:, 1] *= 100
    return FeatureSplit(features=values[None], labels=labels)
