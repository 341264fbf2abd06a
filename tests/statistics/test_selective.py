import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hfprobe.statistics.selective import (
    STEPS,
    answered_at,
    choose_threshold,
    choose_thresholds,
    confirm_threshold,
    measure_selectivity,
    sizes_to_test,
)

GRID = 20_001
PLACES = (np.arange(GRID) + 0.5) / GRID  # share of images that are more confident
# Accuracy of the images at each place. In the last one, more confident images are not more often right.
WORLDS = {
    "good model": 1 - 0.6 * PLACES**5,
    "wrong labels at the top": 0.995 - 0.55 * PLACES**4,
    "two kinds of images": np.where(PLACES < 0.5, 0.985, 0.8),
    "just below the wished accuracy": np.full(GRID, 0.9499),
    "overconfident": np.where(PLACES < 0.1, 0.9, np.where(PLACES < 0.6, 1, 0.7)),
}


def draw(generator, world, n):
    """Confidences and correctness of n images."""
    places = generator.random(n)
    return (1 - places).astype(np.float32), generator.random(n) < world[(places * GRID).astype(int)]


def true_accuracy(world, threshold):
    return world[: max(1, round((1 - threshold) * GRID))].mean()


def missed(world, *, n, trials, accuracy=0.95, confidence=0.9):
    """The share of trials in which the true accuracy of the answers is lower than wished."""
    generator, misses = np.random.default_rng(0), 0
    for _ in range(trials):
        confidences, correct = draw(generator, world, n)
        found = choose_threshold(confidences=confidences, correct=correct, accuracy=accuracy, confidence=confidence)
        if found.threshold is not None:
            misses += true_accuracy(world, found.threshold) < accuracy
    return misses / trials


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_the_answers_reach_the_wished_accuracy_as_often_as_promised(world):
    # 200 trials: 0.16 is three standard deviations above 0.1.
    assert missed(world, n=300, trials=200) <= 0.16


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 1000, 4000])
@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_the_guarantee_holds_in_many_trials(world, n):
    assert missed(world, n=n, trials=600) <= 0.1 + 3 * (0.1 * 0.9 / 600) ** 0.5


def test_the_threshold_answers_nearly_as_many_images_as_would_be_right():
    """Of the good model, 88 % of the images can be answered with 95 % accuracy."""
    world, generator = WORLDS["good model"], np.random.default_rng(0)
    most = np.flatnonzero(np.cumsum(world) / np.arange(1, GRID + 1) >= 0.95)[-1] / GRID
    shares = []
    for _ in range(30):
        confidences, correct = draw(generator, world, 4000)
        shares.append(choose_threshold(confidences=confidences, correct=correct, accuracy=0.95).coverage)
    assert most - 0.06 < np.mean(shares) < most


def test_the_lower_bound_of_the_chosen_answers_reaches_the_accuracy():
    confidences, correct = draw(np.random.default_rng(1), WORLDS["good model"], 2000)
    found = choose_threshold(confidences=confidences, correct=correct, accuracy=0.95)
    right = int(correct[confidences >= found.threshold].sum())
    assert found.answered == (confidences >= found.threshold).sum()
    assert stats.binomtest(right, found.answered, alternative="greater").proportion_ci(0.95, "exact").low >= 0.95


@pytest.mark.parametrize(("accuracy", "least"), [(0.9, 29), (0.95, 59), (0.98, 149), (0.99, 299)])
def test_too_few_images_prove_no_accuracy(accuracy, least):
    """Without any error, n images prove the accuracy a if a ** n is at most 5 %."""
    for n, threshold in ((least - 1, None), (least, 0.0)):
        found = choose_threshold(confidences=np.linspace(0.5, 1, n), correct=np.ones(n, bool), accuracy=accuracy)
        assert (found.threshold, found.n) == (threshold, n)
        assert found.answered == (0 if threshold is None else n)


def test_a_model_without_errors_answers_everything_and_one_without_right_answers_nothing():
    confidences = np.linspace(0.5, 1, 400)
    every = choose_threshold(confidences=confidences, correct=np.ones(400, bool), accuracy=0.99)
    none = choose_threshold(confidences=confidences, correct=np.zeros(400, bool), accuracy=0.9)
    assert (every.threshold, every.coverage) == (0, 1)
    assert (none.threshold, none.coverage) == (None, 0)


def test_equal_confidences_are_answered_together():
    confidences = np.repeat([1.0, 0.6], 200)
    correct = np.r_[np.ones(200, bool), np.arange(200) % 2 == 0]
    found = choose_threshold(confidences=confidences, correct=correct, accuracy=0.95)
    assert (found.answered, 0.6 < found.threshold <= 1) == (200, True)
    same = choose_threshold(confidences=np.ones(400), correct=correct, accuracy=0.95)
    assert same.threshold is None


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 3000), accuracy=st.floats(0.5, 0.999), confidence=st.floats(0.5, 0.99))
def test_sizes_to_test_increase_to_all_images(n, accuracy, confidence):
    sizes = sizes_to_test(n, accuracy=accuracy, confidence=confidence)
    assert len(sizes) <= STEPS
    assert (np.diff(sizes) > 0).all()
    if len(sizes):
        assert sizes[-1] == n
        assert accuracy ** sizes[0] <= 1 - confidence + 1e-12
    else:
        assert accuracy**n > 1 - confidence - 1e-12


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.25, 0.5, 0.75, 1.0]), st.booleans()), min_size=1, max_size=60))
def test_the_curve_holds_for_every_set_of_images(rows):
    confidences, correct = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    found = measure_selectivity(confidences=confidences, correct=correct)
    assert found.least_aurc - 1e-12 <= found.aurc <= 1
    assert found.curve[-1].n == len(rows)
    assert found.curve[-1].accuracy == correct.mean()
    for one, other in zip(found.curve, found.curve[1:], strict=False):
        assert one.threshold > other.threshold
        assert one.n < other.n
    for point in found.curve:
        low, high = point.interval
        assert low <= point.accuracy <= high
    order = np.random.default_rng(0).permutation(len(rows))
    assert measure_selectivity(confidences=confidences[order], correct=correct[order]) == found


def test_area_under_the_risk_coverage_curve_by_hand():
    correct = np.array([True, True, False, True])
    found = measure_selectivity(confidences=np.array([0.9, 0.8, 0.7, 0.6]), correct=correct)
    assert found.aurc == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)
    assert found.least_aurc == pytest.approx(1 / 16)
    tied = measure_selectivity(confidences=np.full(4, 0.9), correct=correct)
    assert tied.aurc == pytest.approx(1 / 4)


def test_a_threshold_is_confirmed_on_other_images():
    labels, probabilities = np.zeros(400, int), np.repeat([[0.9, 0.1], [0.6, 0.4]], 200, axis=0)
    labels[200::2] = 1
    found = {
        row.accuracy: row
        for row in choose_thresholds(labels=labels, probabilities=probabilities, accuracies=(0.9, 0.999))
    }
    test = {"confidences": np.array([0.95, 0.9, 0.9, 0.6, 0.5]), "correct": np.array([True, True, False, True, False])}
    confirmed = confirm_threshold(found[0.9], **test)
    assert (confirmed.answered.n, confirmed.answered.coverage, confirmed.answered.accuracy) == (3, 0.6, 2 / 3)
    assert confirmed.coverage_interval == pytest.approx(stats.binomtest(3, 5).proportion_ci(0.95, "exact"))
    assert confirmed.answered == answered_at(found[0.9].threshold, **test)
    assert confirm_threshold(found[0.999], **test).answered is None


def test_no_image_reaches_a_threshold():
    found = answered_at(0.99, confidences=np.array([0.5]), correct=np.array([True]))
    assert (found.n, found.coverage, found.accuracy, found.interval) == (0, 0, None, None)
