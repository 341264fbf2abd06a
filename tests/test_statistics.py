import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, brier_score_loss, confusion_matrix, f1_score, log_loss

from hfprobe import statistics


@pytest.fixture(scope="module")
def predicted():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 400)
    logits = generator.normal(size=(400, 5)) + 2 * np.eye(5)[labels]  # nobody is of class 4, somebody is taken for it
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return labels, logits, probabilities


def test_metrics_of_a_confusion_matrix_are_scikit_learns(predicted):
    labels, _, probabilities = predicted
    predictions = probabilities.argmax(1)
    confusion = confusion_matrix(labels, predictions, labels=range(6))  # class 5 does not occur at all
    assert statistics.accuracy_of(confusion) == pytest.approx(accuracy_score(labels, predictions))
    expected = f1_score(labels, predictions, labels=range(6), average="macro", zero_division=0)
    assert statistics.macro_f1_of(confusion) == pytest.approx(expected)


def test_intervals_are_those_of_scipys_bootstrap_over_images(predicted):
    labels, _, probabilities = predicted
    predictions = probabilities.argmax(1)
    found = statistics.bootstrap_intervals(confusion_matrix(labels, predictions, labels=range(5)))
    assert found == statistics.bootstrap_intervals(confusion_matrix(labels, predictions, labels=range(5)))
    metrics = {
        "accuracy": accuracy_score,
        "macro_f1": lambda a, b: f1_score(a, b, labels=range(5), average="macro", zero_division=0),
    }
    for name, metric in metrics.items():
        expected = stats.bootstrap(
            (labels, predictions), metric, paired=True, vectorized=False, n_resamples=600, method="percentile", rng=1
        ).confidence_interval
        # A quantile of 600 resamples is itself uncertain by about a tenth of the standard error.
        np.testing.assert_allclose(found[name], expected, atol=0.2 * np.sqrt(0.25 / 400))


def test_intervals_cover_the_truth_about_95_times_in_100():
    generator, covered = np.random.default_rng(3), 0
    for seed in range(200):
        right = generator.binomial(500, 0.9)
        low, high = statistics.bootstrap_intervals(np.array([[right, 500 - right], [0, 0]]), seed=seed)["accuracy"]
        covered += low <= 0.9 <= high
    assert 180 <= covered <= 200  # four standard deviations of a binomial count below 190


@pytest.mark.parametrize(("first", "second"), [(0, 1), (3, 12), (30, 31), (200, 140), (7, 7)])
def test_mcnemar_is_the_binomial_test_of_the_disagreements(first, second):
    tail = stats.binom.cdf(min(first, second), first + second, 0.5)
    assert statistics.mcnemar_exact(first, second) == pytest.approx(min(1, 2 * tail))
    assert statistics.mcnemar_exact(second, first) == statistics.mcnemar_exact(first, second)


def test_two_models_that_never_disagree_are_not_told_apart():
    assert statistics.mcnemar_exact(0, 0) == 1


def test_calibration_by_hand():
    # Bins of 1/15: 0.6 is in the tenth, 0.9 in the fourteenth, 1.0 in the last.
    probabilities = np.array([[0.6, 0.4], [0.6, 0.4], [0.1, 0.9], [1.0, 0.0]])
    found = statistics.calibration(labels=np.array([0, 1, 1, 0]), probabilities=probabilities)
    assert found["ece"] == pytest.approx((2 * abs(0.6 - 0.5) + abs(0.9 - 1) + 0) / 4)
    assert found["brier"] == pytest.approx((2 * 0.16 + 2 * 0.36 + 2 * 0.01 + 0) / 4)
    assert found["nll"] == pytest.approx(-(np.log(0.6) + np.log(0.4) + np.log(0.9) + 0) / 4)
    assert [row["n"] for row in found["reliability"]] == [2, 1, 1]
    assert [row["accuracy"] for row in found["reliability"]] == [0.5, 1, 1]


def test_calibration_is_scikit_learns(predicted):
    labels, _, probabilities = predicted
    found = statistics.calibration(labels=labels, probabilities=probabilities)
    assert found["nll"] == pytest.approx(log_loss(labels, probabilities, labels=range(5)))
    # One class against the others, summed: scikit-learn's own score of several classes needs 1.7.
    expected = sum(brier_score_loss(labels == number, probabilities[:, number]) for number in range(5))
    assert found["brier"] == pytest.approx(expected)


def test_a_probability_of_zero_is_no_infinite_loss():
    found = statistics.calibration(labels=np.array([1]), probabilities=np.array([[1.0, 0.0]]))
    assert np.isfinite(found["nll"])


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_temperature_is_found_again(temperature):
    generator = np.random.default_rng(0)
    logits = 2 * generator.normal(size=(50_000, 3))
    gumbel = generator.gumbel(size=logits.shape)
    labels = (logits + gumbel).argmax(1)  # a draw from softmax(logits)
    assert statistics.fit_temperature(labels=labels, logits=logits * temperature) == pytest.approx(
        temperature, rel=0.03
    )


def test_temperature_of_two_classes_is_a_logistic_regressions():
    generator = np.random.default_rng(1)
    difference = generator.normal(size=500)
    labels = (difference + generator.logistic(size=500) > 0).astype(int)
    logits = np.stack([np.zeros(500), 3 * difference], axis=1)
    regression = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(3 * difference[:, None], labels)
    found = statistics.fit_temperature(labels=labels, logits=logits)
    assert 1 / found == pytest.approx(regression.coef_.item(), rel=1e-3)
