"""The curve of a linear head over the number of training images per class."""

import numpy as np
import pytest

from helpers.features import blobs
from hfprobe.models.linear_probe.features import FeatureSplit
from hfprobe.models.linear_probe.head import solve_head
from hfprobe.tasks.decide import label_curve
from hfprobe.tasks.decide.label_curve import measure_label_curve

CLASSES = 3


def measure(train, validation, *, classes=CLASSES, seed=0):
    parts = (train.features[0], train.labels, validation.features[0], validation.labels)
    arrays = [part.copy() for part in parts]
    for array in arrays:
        array.flags.writeable = False  # as memory-mapped features
    return measure_label_curve(*arrays, class_count=classes, seed=seed)


@pytest.mark.filterwarnings("error")
def test_more_images_per_class_give_a_higher_accuracy_and_the_sizes_end_below_the_smallest_class():
    points = measure(blobs(count=3 * 51, size=8), blobs(count=600, size=8, seed=1))
    assert [point.shots for point in points] == [5, 10, 20, 50]
    assert points[-1].accuracy > points[0].accuracy + 0.05
    assert points[0].deviation > points[-1].deviation > 0
    assert {(point.draws, point.n) for point in points} == {(label_curve.DRAWS, 600)}
    assert [point.shots for point in measure(blobs(count=3 * 20, size=8), blobs(count=60, size=8, seed=1))] == [5, 10]


def test_the_same_seed_gives_the_same_curve_and_another_one_other_draws():
    train, validation = blobs(count=33, size=8), blobs(count=90, size=8, seed=1)
    assert measure(train, validation) == measure(train, validation) != measure(train, validation, seed=1)


def test_a_class_of_five_images_leaves_no_curve():
    assert measure(blobs(count=15), blobs(count=30, seed=1)) == []


def test_large_products_of_images_and_classes_get_fewer_draws_or_none(monkeypatch):
    monkeypatch.setattr(label_curve, "LARGE", 100)
    monkeypatch.setattr(label_curve, "MOST", 200)
    points = measure(blobs(count=150), blobs(count=30, seed=1))
    assert [(point.shots, point.draws) for point in points] == [(5, 5), (10, 5), (20, 3)]


def test_a_point_is_the_mean_accuracy_of_the_exact_heads_of_its_draws(monkeypatch):
    monkeypatch.setattr(label_curve, "DRAWS", 2)
    train, validation = blobs(count=63, size=8), blobs(count=3000, size=8, seed=1)
    points = measure(train, validation, seed=7)
    generator = np.random.default_rng(7)
    orders = [
        [generator.permutation(np.flatnonzero(train.labels == label)) for label in range(CLASSES)] for _ in range(2)
    ]
    for point in points:
        accuracies = []
        for order in orders:
            drawn = np.concatenate([positions[: point.shots] for positions in order])
            head = solve_head(FeatureSplit(train.features[:, drawn], train.labels[drawn]), validation, classes=CLASSES)
            answers = (validation.features[0] @ head.weight.T + head.bias).argmax(axis=1)
            accuracies.append((answers == validation.labels).mean())
        # The heads differ in the penalty of the second draw, and in precision.
        assert point.accuracy == pytest.approx(np.mean(accuracies), abs=0.005)
        assert point.deviation == pytest.approx(np.std(accuracies, ddof=1), abs=0.01)
