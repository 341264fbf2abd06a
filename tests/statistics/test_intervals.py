import numpy as np
import pytest
from scipy import special, stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from hfprobe.statistics import intervals as statistics


@pytest.fixture(scope="module")
def predicted():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 400)
    logits = generator.normal(size=(400, 5)) + 2 * np.eye(5)[labels]  # nobody is of class 4, somebody is taken for it
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return labels, logits, probabilities


def of_counts(confusion):
    """Labels and predictions with these counts."""
    return np.repeat(np.array(list(np.ndindex(np.shape(confusion)))), np.ravel(confusion), axis=0).T


def test_macro_f1_equals_the_default_of_scikit_learn():
    labels, predictions = np.array([0, 0, 1, 1, 4]), np.array([0, 1, 1, 1, 3])  # nothing is or is called 2
    assert statistics.macro_f1(labels, predictions) == (2 / 3 + 4 / 5 + 0 + 0) / 4


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2, 3, 10, 30, 200])
def test_interval_of_accuracy_covers_every_true_accuracy(n, monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 1)  # of macro-F1
    intervals = []
    for right in range(n + 1):
        labels, predictions = np.zeros(n, int), np.r_[np.zeros(right, int), np.ones(n - right, int)]
        intervals.append(statistics.metric_intervals(labels=labels, predictions=predictions)["accuracy"])
    low, high = np.transpose(intervals)
    # Every outcome, weighted by its probability: a simulation without noise.
    for accuracy in [0.001, *np.linspace(0.005, 0.995, 199), 0.999]:
        covered = (low <= accuracy) & (accuracy <= high)
        assert stats.binom.pmf(np.arange(n + 1), n, accuracy)[covered].sum() >= 0.95


@pytest.mark.parametrize(("right", "expected"), [(10, (0.6915, 1)), (0, (0, 0.3085)), (9, (0.5550, 0.9975))])
def test_ten_images_give_a_wide_interval(right, expected):
    # Clopper and Pearson's table.
    labels, predictions = np.zeros(10, int), np.r_[np.zeros(right, int), np.ones(10 - right, int)]
    found = statistics.metric_intervals(labels=labels, predictions=predictions)["accuracy"]
    np.testing.assert_allclose(found, expected, atol=5e-5)


def test_interval_for_thousands_of_images_equals_the_plain_bootstrap():
    labels, predictions = of_counts(np.full((5, 5), 20) + 880 * np.eye(5, dtype=int))
    found = statistics.metric_intervals(labels=labels, predictions=predictions)
    draws = np.random.default_rng(0).multinomial(4900, np.bincount(labels * 5 + predictions) / 4900, size=4000)
    draws = draws.reshape(-1, 5, 5)
    right, named = np.diagonal(draws, axis1=1, axis2=2), draws.sum(1) + draws.sum(2)
    for name, values in {"accuracy": right.sum(1) / 4900, "macro_f1": (2 * right / named).mean(1)}.items():
        np.testing.assert_allclose(found[name], np.quantile(values, [0.025, 0.975]), atol=0.0006)
    assert found == statistics.metric_intervals(labels=labels, predictions=predictions)


def test_balanced_accuracy_of_one_class_has_the_width_of_its_binomial_interval():
    """With one class, balanced accuracy is its accuracy: the interval is near Jeffreys', which exact ones enclose."""
    labels, predictions = np.zeros(100, int), np.repeat([0, 1], [90, 10])
    found = statistics.metric_intervals(labels=labels, predictions=predictions)
    np.testing.assert_allclose(found["balanced_accuracy"], stats.beta(90.5, 10.5).ppf([0.025, 0.975]), atol=0.01)
    assert found["accuracy"][0] < found["balanced_accuracy"][0] < 0.9 < found["balanced_accuracy"][1]


def test_interval_of_perfect_predictions_depends_on_the_images_per_class():
    labels = np.repeat(np.arange(5), [20, 20, 20, 20, 1])
    low, high = statistics.metric_intervals(labels=labels, predictions=labels)["macro_f1"]
    # The exact interval of one image of one right is 0.025 to 1: of the fifth class alone, 0.805 to 1.
    assert low == pytest.approx(0.805, abs=0.02)
    assert high == 1
    many = np.repeat(np.arange(5), 1000)
    low, high = statistics.metric_intervals(labels=many, predictions=many)["macro_f1"]
    assert 0.999 < low < 1  # 5,000 of 5,000: 0.9993
    assert high == 1


def test_each_class_keeps_its_number_of_images_in_every_draw():
    labels, predictions = np.repeat([0, 1], [100, 1]), np.repeat([0, 1], [100, 1])
    draws = statistics.draw_scores(labels, predictions)["macro_f1"]
    assert draws.shape == (1, statistics.RESAMPLES)
    # Where the single image of class 1 is left out of a resample of images (in 37 of 100), macro-F1 is at most 0.5.
    assert (draws > 0.51).mean() > 0.7


def test_a_class_in_neither_labels_nor_predictions_changes_nothing():
    labels, predictions = of_counts([[30, 5, 1], [4, 20, 0], [2, 2, 10]])
    moved = np.array([0, 3, 7])  # the same classes among more of them
    found = statistics.metric_intervals(labels=moved[labels], predictions=moved[predictions])
    assert found == statistics.metric_intervals(labels=labels, predictions=predictions)


@pytest.mark.parametrize("labels", [[0], [0, 0, 0], [2, 2]])
@pytest.mark.parametrize("predictions", [[0], [1], [2]])
def test_intervals_of_very_few_images_are_finite_and_contain_the_value(labels, predictions):
    labels = np.array(labels)
    predictions = np.resize(predictions, len(labels))
    found = statistics.metric_intervals(labels=labels, predictions=predictions)
    for name, value in {"accuracy": (labels == predictions).mean(), "macro_f1": labels[0] == predictions[0]}.items():
        low, high = found[name]
        assert 0 <= low <= value <= high <= 1
        assert low < high


def test_calibration_by_hand():
    # Bins of 1/15: 0.6 is in the tenth, 0.9 in the fourteenth, 1.0 in the last.
    probabilities = np.array([[0.6, 0.4], [0.6, 0.4], [0.1, 0.9], [1.0, 0.0]])
    found = statistics.calibration(labels=np.array([0, 1, 1, 0]), probabilities=probabilities)
    assert found.ece == pytest.approx((2 * abs(0.6 - 0.5) + abs(0.9 - 1) + 0) / 4)
    assert found.brier == pytest.approx((2 * 0.16 + 2 * 0.36 + 2 * 0.01 + 0) / 4)
    assert found.nll == pytest.approx(-(np.log(0.6) + np.log(0.4) + np.log(0.9) + 0) / 4)
    assert [row.n for row in found.reliability] == [2, 1, 1]
    assert [row.accuracy for row in found.reliability] == [0.5, 1, 1]


def test_calibration_equals_that_of_scikit_learn(predicted):
    labels, _, probabilities = predicted
    found = statistics.calibration(labels=labels, probabilities=probabilities)
    assert found.nll == pytest.approx(log_loss(labels, probabilities, labels=range(5)))
    # One class against the others, summed: scikit-learn's own score of several classes needs 1.7.
    expected = sum(brier_score_loss(labels == number, probabilities[:, number]) for number in range(5))
    assert found.brier == pytest.approx(expected)


def test_probability_of_zero_gives_a_finite_loss():
    found = statistics.calibration(labels=np.array([1]), probabilities=np.array([[1.0, 0.0]]))
    assert np.isfinite(found.nll)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_fitted_temperature_recovers_the_true_one(temperature):
    generator = np.random.default_rng(0)
    logits = 2 * generator.normal(size=(50_000, 3))
    gumbel = generator.gumbel(size=logits.shape)
    labels = (logits + gumbel).argmax(1)  # a draw from softmax(logits)
    assert statistics.fit_temperature(labels=labels, logits=logits * temperature) == pytest.approx(
        temperature, rel=0.03
    )


def test_temperature_of_two_classes_equals_a_logistic_regression():
    generator = np.random.default_rng(1)
    difference = generator.normal(size=500)
    labels = (difference + generator.logistic(size=500) > 0).astype(int)
    logits = np.stack([np.zeros(500), 3 * difference], axis=1)
    regression = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(3 * difference[:, None], labels)
    found = statistics.fit_temperature(labels=labels, logits=logits)
    assert 1 / found == pytest.approx(regression.coef_.item(), rel=1e-3)


def nll(temperature, labels, logits):
    return log_loss(labels, special.softmax(np.float64(logits) / temperature, axis=1), labels=range(logits.shape[1]))


@pytest.mark.parametrize("scale", [0.01, 1, 30, 1e4])
def test_without_an_error_the_temperature_stays_at_one(scale):
    # The likelihood rises without end as T falls: the search ended on its bound, and the loss of other images doubled.
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 5, 200)
    logits = generator.uniform(size=(200, 5)) + 1.1 * np.eye(5)[labels]
    assert statistics.fit_temperature(labels=labels, logits=scale * logits) == 1
    tied = np.where(np.arange(5) == 0, logits.max(axis=1, keepdims=True), logits)
    assert statistics.fit_temperature(labels=labels, logits=scale * tied) == 1


@pytest.mark.parametrize("sign", [-1, 0])
def test_temperature_stays_at_one_if_logits_carry_no_information(sign):
    labels = np.arange(60) % 3
    assert statistics.fit_temperature(labels=labels, logits=sign * np.eye(3)[labels]) == 1


@pytest.mark.parametrize("errors", [1, 5, 60])
@pytest.mark.parametrize("scale", [0.02, 0.3, 1, 10, 80, 1000])
def test_the_temperature_never_makes_validation_less_likely(errors, scale):
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 3, 200)
    logits = generator.normal(size=(200, 3)) + 5 * np.eye(3)[labels]
    logits[:errors] -= 7 * np.eye(3)[labels[:errors]]
    found = statistics.fit_temperature(labels=labels, logits=scale * logits)
    assert nll(found, labels, scale * logits) <= nll(1, labels, scale * logits) + 1e-12
    least, most = statistics.TEMPERATURES
    assert found == 1 or least < found < most
