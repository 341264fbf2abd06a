import numpy as np
import pytest
from scipy import optimize, stats

from hfprobe.statistics import intervals as statistics
from hfprobe.statistics import paired
from hfprobe.statistics.paired import adjust_after_holm, randomization_test


def drawn(right, *, sizes, seed):
    """Labels of classes of these sizes, and predictions of models with these shares of right answers."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    others = [(labels + generator.integers(1, len(sizes), len(labels))) % len(sizes) for _ in right]
    answers = [
        np.where(generator.random(len(labels)) < share, labels, other)
        for share, other in zip(right, others, strict=True)
    ]
    return labels, answers


# PropCIs::scoreci.mp (R) for the first (Fagerland, Lydersen and Laake, 2014, print -0.517 and -0.026 for it).
@pytest.mark.parametrize(
    ("counts", "expected"),
    [((7, 1, 21), (-0.5172, -0.0260)), ((0, 0, 10), (-0.2775, 0.2775)), ((0, 10, 10), (0.4449, 1))],
)
def test_the_paired_score_interval_of_known_tables(counts, expected):
    np.testing.assert_allclose(paired.paired_score_interval(*counts), expected, atol=6e-5)


def test_the_paired_score_interval_ends_where_the_score_test_rejects():
    first, second, n = 12, 30, 200
    for bound in paired.paired_score_interval(first, second, n):
        # The likelihood of the table at this difference, maximised over what remains free, numerically.
        def loss(share, bound=bound):
            return -(stats.multinomial.logpmf([first, second, n - first - second],
                                              n, [share, share + bound, 1 - 2 * share - bound]))  # fmt: skip

        least = max(0, -bound) + 1e-9
        share = optimize.minimize_scalar(loss, bounds=(least, (1 - bound) / 2 - 1e-9), method="bounded").x
        variance = (2 * share + bound - bound**2) / n
        assert abs((second - first) / n - bound) / np.sqrt(variance) == pytest.approx(1.96, abs=1e-3)


def test_the_paired_score_interval_is_wilsons_if_one_model_is_never_the_only_correct_one():
    for second in (0, 1, 5, 40):
        expected = stats.binomtest(second, 40).proportion_ci(method="wilson").high
        assert paired.paired_score_interval(0, second, 40)[1] == pytest.approx(expected)


@pytest.mark.parametrize("n", [10, 20, 50])
def test_the_paired_score_interval_covers_every_true_difference(n):
    tables = [(first, second) for first in range(n + 1) for second in range(n + 1 - first)]
    low, high = np.transpose([paired.paired_score_interval(*table, n) for table in tables])
    rest = n - np.sum(tables, axis=1)
    for first in (0.002, 0.01, 0.02, 0.05, 0.1, 0.2):
        for difference in (0, 0.01, 0.05, 0.1, 0.2, 0.4):
            second = first + difference
            chances = stats.multinomial.pmf(np.c_[tables, rest], n, [first, second, 1 - first - second])
            # Tango's is an approximation: it may miss by a little, the plain bootstrap misses by everything.
            assert chances[(low <= difference + 1e-9) & (difference <= high + 1e-9)].sum() > 0.94


def test_interval_excludes_zero_whenever_the_exact_test_rejects():
    for disagreements in range(1, 60):
        for first in range(disagreements // 2 + 1):
            if paired.mcnemar_exact(first, disagreements - first) < 0.05:
                assert paired.paired_score_interval(first, disagreements - first, 500)[0] > 0


@pytest.mark.parametrize(("first", "second"), [(0, 1), (3, 12), (30, 31), (200, 140), (7, 7)])
def test_mcnemar_is_the_binomial_test_of_the_disagreements(first, second):
    tail = stats.binom.cdf(min(first, second), first + second, 0.5)
    assert paired.mcnemar_exact(first, second) == pytest.approx(min(1, 2 * tail))
    assert paired.mcnemar_exact(second, first) == paired.mcnemar_exact(first, second)


def test_models_that_never_disagree_have_a_p_value_of_one():
    assert paired.mcnemar_exact(0, 0) == 1


def test_a_hundred_classes_need_no_more_random_numbers_than_there_are_images(monkeypatch):
    class Recording(np.random.Generator):
        def standard_gamma(self, shape, out):
            drawn.append(out.size)
            return super().standard_gamma(shape, out=out)

    drawn = []
    monkeypatch.setattr(np.random, "default_rng", lambda seed: Recording(np.random.PCG64(seed)))
    monkeypatch.setattr(statistics, "RESAMPLES", 10)
    monkeypatch.setattr(paired, "SWAPS", 10)
    generator = np.random.default_rng(0)
    labels = np.arange(5000) % 100
    answers = tuple(np.where(generator.random(5000) < 0.7, labels, generator.integers(0, 100, 5000)) for _ in range(2))
    paired.compare_paired(labels=labels, predictions=answers)
    # Not 100 x 100 x 100: one per label and pair of answers that occur, and four more per class.
    assert sum(drawn) == 10 * (len(set(zip(labels, *answers, strict=True))) + 400)


@pytest.mark.parametrize("metric", ["macro_f1", "balanced_accuracy"])
def test_the_randomization_test_counts_the_swaps_with_a_larger_difference(metric):
    labels, first = np.array([[0, 0, 0, 0, 1, 1, 1, 2, 2], [0, 0, 0, 1, 1, 1, 0, 2, 2]])
    second = np.array([0, 1, 2, 0, 1, 2, 2, 2, 3])  # class 3 has no images, and only this model predicts it
    differ = np.flatnonzero(first != second)
    assert len(differ) == 6

    def distance(swapped):
        answers = [first.copy(), second.copy()]
        answers[0][swapped], answers[1][swapped] = second[swapped], first[swapped]
        one, other = (getattr(statistics, metric)(labels, answer) for answer in answers)
        return abs(one - other)

    subsets = [differ[[bool(number >> place & 1) for place in range(6)]] for number in range(2**6)]
    expected = np.mean(np.array([distance(subset) for subset in subsets]) >= distance([]) - 1e-12)
    assert randomization_test(labels, first, second)[metric] == pytest.approx(expected, abs=0.02)


def test_the_randomization_test_of_accuracy_is_mcnemars():
    labels, (first, second) = drawn([0.9, 0.8], sizes=[200, 200], seed=0)  # balanced accuracy is accuracy
    right = [answer == labels for answer in (first, second)]
    exact = paired.mcnemar_exact(int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum()))
    assert 0.001 < exact < 0.5
    assert randomization_test(labels, first, second)["balanced_accuracy"] == pytest.approx(exact, abs=0.015)


def test_the_smallest_p_value_is_that_of_one_swap_more_than_were_drawn():
    labels = np.repeat([0, 1], 100)
    right, wrong = labels, 1 - labels
    assert randomization_test(labels, right, wrong) == dict.fromkeys(("macro_f1", "balanced_accuracy"), 1 / 10_001)
    assert randomization_test(labels, right, right) == dict.fromkeys(("macro_f1", "balanced_accuracy"), 1)


def test_holms_correction_by_hand():
    assert adjust_after_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_after_holm([0.9, 0.8]) == [1, 1]
    assert adjust_after_holm([0.2]) == [0.2]


def test_six_equally_good_models_rarely_differ_by_macro_f1(monkeypatch):
    """15 pairs: without a correction, some pair differs in about four of ten sets of six models."""
    monkeypatch.setattr(paired, "SWAPS", 400)
    false = 0
    for seed in range(20):
        labels, answers = drawn([0.8] * 6, sizes=[200, 100, 20], seed=seed)
        pairs = [(one, other) for number, one in enumerate(answers) for other in answers[:number]]
        found = [randomization_test(labels, *pair)["macro_f1"] for pair in pairs]
        false += min(adjust_after_holm(found)) < 0.05
    assert false <= 4  # 1 expected; a binomial count exceeds 4 once in 400 times
