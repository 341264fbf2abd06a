"""Statistics of many classes: equal to those of dense arrays, without their memory."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfprobe.statistics import intervals, paired
from hfprobe.statistics.classification import score_classification

MEGABYTE = 1 << 20
DRAWS = 20


def answers_of(models, classes=4):
    return st.lists(st.tuples(*[st.integers(0, classes - 1)] * (models + 1)), min_size=1, max_size=40)


def score_densely(labels, predictions):
    """`draw_scores` with an array of (draws, classes, classes + 1) for each model."""
    models, classes = len(predictions), int(max(labels.max(), predictions.max())) + 1
    images = np.bincount(labels, minlength=classes)
    found, counts = np.unique(np.stack([labels, *predictions]), axis=1, return_counts=True)
    outcomes = list(itertools.product([True, False], repeat=models))
    cells = [
        (cell, count * images[cell[0]] / (images[cell[0]] + 1)) for cell, count in zip(found.T, counts, strict=True)
    ]
    for label, outcome in itertools.product(np.unique(labels), outcomes):
        answer = [label if right else classes for right in outcome]
        cells.append(([label, *answer], 2 / (len(outcomes) * len(np.unique(labels)))))
    draws = np.zeros((models, DRAWS, classes, classes + 1))
    gammas = np.random.default_rng(0).standard_gamma([[shape] for _, shape in cells], size=(len(cells), DRAWS))
    for (cell, _), gamma in zip(cells, gammas, strict=True):
        for model, answer in enumerate(cell[1:]):
            draws[model, :, cell[0], answer] += gamma
    scores = {"macro_f1": [], "balanced_accuracy": []}
    for dense, predicted in zip(draws, predictions, strict=True):
        with np.errstate(invalid="ignore"):
            dense *= np.where(images > 0, images / dense.sum(axis=2), 0)[:, :, None]
        names, has = np.union1d(labels, predicted), images > 0
        spread, square = dense[:, :, classes], dense[:, :, :classes]
        right = np.diagonal(square, axis1=1, axis2=2)
        answered = square.sum(axis=1)
        answered[:, names] += (spread.sum(axis=1, keepdims=True) - spread[:, names]) / max(1, len(names) - 1)
        scores["macro_f1"].append((2 * right / np.maximum(images + answered, 1e-9))[:, names].mean(axis=1))
        scores["balanced_accuracy"].append((right[:, has] / images[has]).mean(axis=1))
    return {name: np.array(values) for name, values in scores.items()}


@pytest.fixture(scope="module", autouse=True)
def few_draws():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "RESAMPLES", DRAWS)
        patch.setattr(paired, "SWAPS", DRAWS)
        yield


@settings(deadline=None)
@given(answers_of(1) | answers_of(2))
def test_draws_of_scores_equal_those_of_dense_matrices(answers):
    labels, *predictions = np.transpose(answers)
    found, expected = intervals.draw_scores(labels, *predictions), score_densely(labels, np.array(predictions))
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-9)


@given(st.lists(st.sampled_from([1, 1, 1, 2, 7, 100, 5000]), min_size=1, max_size=20), st.integers(0, 9))
def test_swaps_are_the_numbers_that_the_generator_draws_for_all_kinds_at_once(counts, seed):
    counts = np.array(counts)
    found = paired._draw_swaps(np.random.default_rng(seed), counts, times=50)
    expected = np.random.default_rng(seed).binomial(counts[:, None], 0.5, size=(len(counts), 50))
    np.testing.assert_array_equal(found, expected)


@given(st.lists(st.sampled_from([0.1, 0.5, 1.0, 30.0]), min_size=1, max_size=20))
def test_runs_cover_all_positions_with_their_value(values):
    runs = intervals.find_runs(np.array(values))
    assert [value for value, rows in runs for _ in range(rows.stop - rows.start)] == values
    assert all(one[0] != other[0] for one, other in itertools.pairwise(runs))


def draw_probabilities(images, classes, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    probabilities = generator.standard_exponential((images, classes), dtype=np.float32)
    probabilities[np.arange(images), labels] *= 4
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("at_once", [1, 30, 10**9])
def test_calibration_and_temperature_do_not_depend_on_the_parts_of_the_images(at_once, monkeypatch):
    labels, probabilities = draw_probabilities(100, 7)
    expected = intervals.calibration(labels=labels, probabilities=probabilities)
    temperature = intervals.fit_temperature(labels=labels, logits=np.log(probabilities))
    monkeypatch.setattr(intervals, "PROBABILITIES_AT_ONCE", at_once)
    assert intervals.calibration(labels=labels, probabilities=probabilities) == expected
    assert intervals.fit_temperature(labels=labels, logits=np.log(probabilities)) == temperature


def peak_of(work):
    """Bytes that `work` allocates at most at a time."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_is_that_of_neither_three_dimensions_of_classes_nor_of_copies_of_the_probabilities():
    labels, probabilities = draw_probabilities(20_000, 400)
    names = [str(number) for number in range(400)]
    score_classification(labels=labels[:100], probabilities=probabilities[:100], class_names=names)  # loads libraries
    peak = peak_of(lambda: score_classification(labels=labels, probabilities=probabilities, class_names=names))
    # A float64 copy of the probabilities has 61 MB, 20 draws of a matrix 24 MB, a matrix for each class 488 MB.
    assert peak < 50 * MEGABYTE


def test_the_comparison_of_two_models_needs_the_memory_of_their_kinds_of_answers():
    labels = np.arange(4000) % 400
    first, second = (np.random.default_rng(seed).integers(0, 400, 4000) for seed in (0, 1))
    paired.compare_paired(labels=labels[:100], predictions=(first[:100], second[:100]))
    peak = peak_of(lambda: paired.compare_paired(labels=labels, predictions=(first, second)))
    assert peak < 30 * MEGABYTE  # 20 draws of two matrices of 400 x 400 have 49 MB
