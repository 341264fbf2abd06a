"""Accuracy with and without leaked images."""

import numpy as np
import pytest

from hfprobe.statistics.intervals import difference_interval, exact_interval
from hfprobe.statistics.leaks import compare_leaks, measure_leaks
from hfprobe.statistics.paired import compare_paired


def answers(*, clean, leaked):
    """Labels, predictions and rows of (right, wrong) clean and leaked images, and the rows of the leaked ones."""
    right = np.repeat([1, 0, 1, 0], [*clean, *leaked])
    index = np.random.default_rng(0).permutation(len(right)) * 7
    return {
        "labels": np.ones_like(right),
        "predictions": right,
        "index": index,
        "leaked": {*index[sum(clean) :].tolist(), 999_999},
    }


def test_the_difference_of_all_images_and_the_clean_ones_is_that_of_the_leaked_times_their_share():
    found = measure_leaks(**answers(clean=(48, 32), leaked=(56, 14)))
    assert (found.n, found.leaked, found.accuracy, found.clean.accuracy) == (150, 70, 104 / 150, 48 / 80)
    assert found.interval == exact_interval(104, 150)
    assert found.clean.interval == exact_interval(48, 80)
    assert found.clean.difference == pytest.approx(104 / 150 - 48 / 80)
    assert found.clean.interval_of_difference == pytest.approx(np.multiply(70 / 150, (0.0524, 0.3339)), abs=5e-5)


def test_without_a_leaked_image_nothing_differs():
    found = measure_leaks(**answers(clean=(8, 2), leaked=(0, 0)))
    assert (found.leaked, found.clean.difference, found.clean.interval_of_difference) == (0, 0.0, (0.0, 0.0))
    assert found.clean.interval == found.interval


def test_if_all_images_leaked_there_is_no_clean_accuracy():
    found = measure_leaks(**answers(clean=(0, 0), leaked=(3, 1)))
    assert found.accuracy == 0.75
    assert found.clean is None


def test_two_models_are_compared_on_all_images_and_on_the_clean_ones():
    generator = np.random.default_rng(1)
    labels, index = generator.integers(0, 3, 200), np.arange(200)
    predictions = tuple(np.where(generator.random(200) < share, labels, (labels + 1) % 3) for share in (0.7, 0.8))
    found = compare_leaks(labels=labels, predictions=predictions, index=index, leaked=range(40))
    assert found.every == compare_paired(labels=labels, predictions=predictions)["accuracy"]
    rest = tuple(predicted[40:] for predicted in predictions)
    assert found.clean == compare_paired(labels=labels[40:], predictions=rest)["accuracy"]
    assert compare_leaks(labels=labels, predictions=predictions, index=index, leaked=range(200)).clean is None


@pytest.mark.parametrize(
    ("successes", "counts", "expected"),
    [  # Newcombe 1998, table II, method 10
        ((56, 48), (70, 80), (0.0524, 0.3339)),
        ((9, 3), (10, 10), (0.1705, 0.8090)),
        ((5, 0), (56, 29), (-0.0381, 0.1926)),
        ((0, 0), (10, 20), (-0.1611, 0.2775)),
        ((10, 0), (10, 10), (0.6075, 1.0)),
    ],
)
def test_the_interval_of_a_difference_of_independent_shares_is_that_of_the_publication(successes, counts, expected):
    assert difference_interval(successes, counts) == pytest.approx(expected, abs=5e-5)
    low, high = expected
    assert difference_interval(successes[::-1], counts[::-1]) == pytest.approx((-high, -low), abs=5e-5)
