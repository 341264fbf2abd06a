"""Images of unusual brightness, sharpness or size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hfprobe.data.pixels.image_files import ImageHeader

# Further from the median than so many times the distance from the median to the quartile on that side counts as
# unusual. Of a normal distribution, that is one in 9,600.
DISTANCE = 5.5
MOST_PER_MEASURE = 200
LARGE_FACTOR = 4  # unusual sizes also differ from the median of all pixels by this factor
ELONGATED = 3  # longer side / shorter side


def measure_grey(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) mean grey level, and (N,) sharpness: the standard deviation of the Laplacian.

    Args:
        grey: (N, S, S) grey levels in [0, 255].
    """
    middle = grey[:, 1:-1, 1:-1]
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return grey.mean(axis=(1, 2)), (4 * middle - around).std(axis=(1, 2))


def find_outliers(grey: np.ndarray, headers: Sequence[ImageHeader]) -> Mapping[str, list[tuple[int, float]]]:
    """Measure -> (position, value) of unusual images, the most unusual first.

    Args:
        grey: (N, S, S) small grey images.
        headers: of the same images.
    """
    brightness, sharpness = measure_grey(grey)
    width, height = np.array([(header.width, header.height) for header in headers], dtype=float).reshape(-1, 2).T
    pixels, aspect = width * height, np.maximum(width, height) / np.minimum(width, height)
    typical = float(np.median(pixels))
    found = {
        "dark": _low(brightness),
        "bright": _low(-brightness),
        "blurred": _low(np.log(sharpness + 1)),
        "small": np.flatnonzero(pixels * LARGE_FACTOR < typical)[np.argsort(pixels[pixels * LARGE_FACTOR < typical])],
        "large": np.flatnonzero(pixels > typical * LARGE_FACTOR)[np.argsort(-pixels[pixels > typical * LARGE_FACTOR])],
        "elongated": np.flatnonzero(aspect > ELONGATED)[np.argsort(-aspect[aspect > ELONGATED])],
    }
    values = dict.fromkeys(("dark", "bright"), brightness) | {"blurred": sharpness, "elongated": aspect}
    return {
        measure: [(int(at), float(values.get(measure, pixels)[at])) for at in positions[:MOST_PER_MEASURE]]
        for measure, positions in found.items()
    }


def _low(values: np.ndarray) -> np.ndarray:
    """Positions of unusually low values, the lowest first."""
    quartile, median = np.quantile(values, [0.25, 0.5])
    low = np.flatnonzero(values < median - DISTANCE * max(median - quartile, 1e-9))
    return low[np.argsort(values[low], kind="stable")]
