import numpy as np
import pytest
from scipy import stats

from hfprobe.statistics.crossed import (
    MARGIN,
    Plan,
    Shares,
    compare_crossed,
    contributions,
    mean_interval,
    plan_crossed,
)
from hfprobe.statistics.intervals import score_predictions


def simulate(generator, n, *, runs, accuracies=(0.9, 0.9), deviations=(0.0, 0.0), common=0.7):
    """Tables (s, n) of right answers of two models: a probit model of images, seeds and noise.

    Args:
        runs, accuracies: of each model.
        deviations: of the accuracy between seeds beyond the noise of the images, for each model.
        common: share of the difficulty of an image that is the same for both models.
    """
    both, spread, tables = generator.normal(size=n), 2.5, []
    for number, accuracy, deviation in zip(runs, accuracies, deviations, strict=True):
        own = np.sqrt(common) * both + np.sqrt(1 - common) * generator.normal(size=n)
        level = stats.norm.ppf(accuracy)
        shifts = generator.normal(size=number) * deviation / stats.norm.pdf(level)
        latent = (spread * own + generator.normal(size=(number, n))) / np.hypot(spread, 1)
        tables.append((latent < level + shifts[:, None]).astype(float))
    return tables


def count(times, n, runs, accuracies, deviation, common):
    """In how many simulations the interval covers the true difference, and in how many the test rejects."""
    generator = np.random.default_rng([n, *runs])
    deviations = [deviation if number > 1 else 0.0 for number in runs]  # one run: solved exactly
    covered = rejected = 0
    for _ in range(times):
        tables = simulate(generator, n, runs=runs, accuracies=accuracies, deviations=deviations, common=common)
        found = compare_crossed(*tables)
        low, high = found.interval
        covered += low <= accuracies[1] - accuracies[0] <= high
        rejected += found.p < 0.05
    return covered, rejected


def is_likely(successes, times, least, most):
    """Whether a binomial count is likely (1 in 10,000 to either side) for some probability in this range."""
    return stats.binom.ppf(1e-4, times, least) <= successes <= stats.binom.ppf(1 - 1e-4, times, most)


EQUAL, UNEQUAL = (0.9, 0.9), (0.88, 0.92)


@pytest.mark.parametrize(
    ("n", "runs", "accuracies", "deviation", "common"),
    [
        (100, (2, 3), EQUAL, 0.004, 1.0),
        (100, (10, 10), UNEQUAL, 0.002, 0.7),
        (1000, (2, 2), EQUAL, 0.003, 1.0),
        (1000, (1, 3), EQUAL, 0.003, 0.7),
        (1000, (5, 5), UNEQUAL, 0.004, 0.7),
        (5000, (3, 1), EQUAL, 0.004, 0.7),
        (5000, (2, 5), UNEQUAL, 0.003, 0.7),
    ],
)
def test_the_interval_covers_the_difference_and_the_test_keeps_its_level(n, runs, accuracies, deviation, common):
    times = 200
    covered, rejected = count(times, n, runs, accuracies, deviation, common)
    assert is_likely(covered, times, 0.93, 0.99)
    if accuracies == EQUAL:
        assert is_likely(rejected, times, 0.01, 0.07)


@pytest.mark.slow
@pytest.mark.parametrize("deviation", [0.0, 0.004])
@pytest.mark.parametrize(("accuracies", "common"), [(EQUAL, 1.0), (EQUAL, 0.7), (UNEQUAL, 0.7)])
@pytest.mark.parametrize(
    ("n", "runs"),
    [
        *((n, runs) for n in (100, 1000) for runs in ((1, 2), (2, 2), (3, 3), (5, 1), (10, 10))),
        *((5000, runs) for runs in ((2, 2), (10, 10))),
    ],
)
def test_the_interval_covers_in_every_design(n, runs, accuracies, common, deviation):
    times = 400 if n < 5000 else 150
    covered, rejected = count(times, n, runs, accuracies, deviation, common)
    assert is_likely(covered, times, 0.93, 0.99)
    if accuracies == EQUAL:
        assert is_likely(rejected, times, 0.01, 0.07)


@pytest.mark.slow
def test_leaving_out_the_seeds_would_reject_equal_models_too_often():
    generator, rejected = np.random.default_rng(0), 0
    for _ in range(300):
        one, other = simulate(generator, 5000, runs=(3, 1), deviations=(0.006, 0.0), common=1.0)
        found = compare_crossed(one, other)
        alone = np.sqrt((1 - found.shares.seeds) * found.error**2)  # images and rest only
        rejected += abs(found.value) > 1.96 * alone
    assert rejected > 0.1 * 300


def test_the_mean_squares_are_those_of_the_two_way_table():
    one, other = simulate(np.random.default_rng(1), 50, runs=(4, 1), deviations=(0.1, 0))
    found = compare_crossed(one, other)
    s, n = one.shape
    residuals = one - one.mean(axis=0) - one.mean(axis=1)[:, None] + one.mean()
    of_rest = np.square(residuals).sum() / ((s - 1) * (n - 1))
    of_seeds = n * np.square(one.mean(axis=1) - one.mean()).sum() / (s - 1)
    d = other.mean(axis=0) - one.mean(axis=0)
    images = (d.var() * n + 1 / 16 + 1) / (n * (n - 1))
    seeds, rest = max(0, of_seeds - of_rest) / n / s, of_rest / n / s
    assert found.error**2 == pytest.approx(images + seeds)
    expected = Shares((images - rest) / (images + seeds), seeds / (images + seeds), rest / (images + seeds))
    assert vars(found.shares) == pytest.approx(vars(expected))
    below = images**2 / (n - 1) + (of_seeds / n / s) ** 2 / (s - 1)
    assert found.freedom == pytest.approx((images + seeds) ** 2 / below)


def test_the_p_value_and_the_interval_agree():
    generator = np.random.default_rng(2)
    for number in range(50):
        tables = simulate(generator, 300, runs=(2, 3), accuracies=(0.88, 0.9 + 0.001 * number))
        found = compare_crossed(*tables)
        low, high = found.interval
        assert (found.p < 0.05) == (not low <= 0 <= high)
        assert low < found.value < high
        assert found.value == pytest.approx(tables[1].mean() - tables[0].mean())
        assert sum(vars(found.shares).values()) == pytest.approx(1)
        assert min(vars(found.shares).values()) >= 0
        back = compare_crossed(*tables[::-1])
        assert back.interval == pytest.approx((-high, -low))


def test_runs_that_all_agree_are_one_run_of_an_exact_solution():
    one, other = simulate(np.random.default_rng(3), 200, runs=(1, 1))
    single, several = compare_crossed(one, other), compare_crossed(one, np.repeat(other, 3, axis=0))
    assert several.shares == Shares(1, 0, 0)
    assert several.value == pytest.approx(single.value)
    assert several.error == pytest.approx(single.error, rel=0.05)  # the added answers of single runs differ


def test_models_that_never_disagree_have_an_interval_of_positive_width():
    table = np.ones((3, 100))
    found = compare_crossed(table, table)
    assert (found.value, found.p) == (0, 1)
    assert found.interval[0] < 0 < found.interval[1]
    assert mean_interval(table)[0] < 1 == mean_interval(table)[1]


def pigeonhole_bootstrap(tables, generator, times=2000):
    """Draws of the difference, with images and runs resampled independently (Owen, Annals of Applied Statistics 2007).

    Of s runs, s - 1 are drawn: a resample of all would have (s - 1) / s of their variance.
    """
    n = tables[0].shape[1]
    weights = generator.multinomial(n, np.full(n, 1 / n), size=times) / n
    means = []
    for table in tables:
        s = len(table)
        drawn = generator.multinomial(max(1, s - 1), np.full(s, 1 / s), size=times) / max(1, s - 1)
        means.append(((weights @ table.T) * drawn).sum(axis=1))
    return means[1] - means[0]


@pytest.mark.parametrize("runs", [(3, 3), (5, 1), (10, 4)])
def test_the_standard_error_is_that_of_the_pigeonhole_bootstrap(runs):
    generator = np.random.default_rng(4)
    tables = simulate(generator, 1000, runs=runs, deviations=(0.02, 0.02))
    found = compare_crossed(*tables)
    # The bootstrap counts the rest three times: with the images, with the runs, and by itself (Owen, section 4).
    expected = found.error**2 * (1 + 2 * found.shares.rest)
    assert pigeonhole_bootstrap(tables, generator).std() == pytest.approx(np.sqrt(expected), rel=0.08)


def predicted(labels, right, generator):
    """Predictions (s, n): the label, or another class that is drawn."""
    classes = labels.max() + 1
    return np.where(right, labels, (labels + generator.integers(1, classes, size=right.shape)) % classes)


LABELS = np.repeat(np.arange(4), (200, 100, 60, 40))


def test_the_contributions_of_the_images_average_to_the_metrics():
    generator = np.random.default_rng(5)
    predictions = predicted(LABELS, generator.random((3, len(LABELS))) < 0.8, generator)
    found = contributions(LABELS, predictions)
    for metric, (values, _) in found.items():
        expected = [score_predictions(LABELS, run)[metric] for run in predictions]
        np.testing.assert_allclose(values.mean(axis=1), expected)
    assert {added for _, added in found.values()} > {1.0}
    balanced = contributions(np.arange(40) % 4, np.tile(np.arange(40) % 4, (1, 1)))
    assert [added for _, added in balanced.values()] == [1, 1, 1]


def test_the_contribution_of_an_image_is_its_influence_on_the_metric():
    generator = np.random.default_rng(6)
    predictions = predicted(LABELS, generator.random((1, len(LABELS))) < 0.8, generator)
    n = len(LABELS)
    for metric, (values, _) in contributions(LABELS, predictions).items():
        for image in (0, 150, 250, 310, 399):
            kept = np.arange(n) != image
            whole = score_predictions(LABELS, predictions[0])[metric]
            without = score_predictions(LABELS[kept], predictions[0][kept])[metric]
            assert values[0, image] == pytest.approx(n * whole - (n - 1) * without, abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("runs", [(1, 3), (2, 2), (5, 5)])
def test_the_intervals_of_the_other_metrics_cover_equal_models(runs):
    generator, times = np.random.default_rng(7), 300
    covered = dict.fromkeys(("macro_f1", "balanced_accuracy"), 0)
    deviations = [0.004 if number > 1 else 0 for number in runs]
    for _ in range(times):
        tables = simulate(generator, len(LABELS), runs=runs, deviations=deviations)
        before, after = (contributions(LABELS, predicted(LABELS, table > 0, generator)) for table in tables)
        for metric in covered:
            low, high = compare_crossed(before[metric][0], after[metric][0], added=before[metric][1]).interval
            covered[metric] += low <= 0 <= high
    assert all(is_likely(number, times, 0.92, 0.99) for number in covered.values())


@pytest.mark.slow
def test_the_interval_of_one_model_covers_its_accuracy():
    generator, covered, times = np.random.default_rng(8), 0, 500
    for _ in range(times):
        low, high = mean_interval(simulate(generator, 1000, runs=(3, 1), deviations=(0.004, 0))[0])
        covered += low <= 0.9 <= high
    assert is_likely(covered, times, 0.93, 0.98)


def test_so_many_images_as_planned_exclude_zero():
    one, other = simulate(np.random.default_rng(23), 400, runs=(1, 1), accuracies=(0.89, 0.9))
    other = np.repeat(other, 2, axis=0)  # all variance is that of the images
    found, plan = compare_crossed(one, other), plan_crossed(one, other)
    assert plan.half_width == abs(found.value) > MARGIN
    assert found.interval[0] <= 0 <= found.interval[1]

    def includes_zero(times):
        low, high = compare_crossed(*(np.tile(table, times) for table in (one, other))).interval
        return low <= 0 <= high

    times = -(-plan.images // 400)
    assert not includes_zero(times)
    assert includes_zero(times // 2)


def runs_with(seeds, deviation, *, shift, generator, n=5000):
    """Runs of an easy table: each is better or worse by a shift, with exactly this deviation."""
    scores = stats.norm.ppf((np.arange(seeds) + 0.5) / seeds)
    shifts = deviation * scores / scores.std(ddof=1)
    noise = generator.normal(size=(seeds, n)) * 0.05
    return 0.5 + shift + shifts[:, None] + noise - noise.mean(axis=1, keepdims=True)


def test_so_many_seeds_as_planned_exclude_zero():
    generator = np.random.default_rng(10)

    def make(seeds):
        return [runs_with(seeds, 0.01, shift=shift, generator=generator) for shift in (0, 0.012)]

    plan = plan_crossed(*make(3))
    assert plan.half_width == pytest.approx(0.012)
    assert plan.images is None
    assert compare_crossed(*make(plan.seeds)).interval[0] > 0
    assert compare_crossed(*make(plan.seeds - 1)).interval[0] <= 0


def test_a_plan_says_what_no_number_can_do():
    one, other = simulate(np.random.default_rng(11), 200, runs=(8, 1), accuracies=(0.88, 0.90))
    by_images = plan_crossed(one, other)
    assert by_images.seeds is None  # an exact solution and few images
    assert by_images.images > 200
    lucky = np.tile(simulate(np.random.default_rng(12), 500, runs=(1, 1))[0], (2, 100))
    lucky[1, : len(lucky[1]) // 20] = 0
    by_seeds = plan_crossed(lucky, np.ones((1, lucky.shape[1])) * lucky.mean() + 0.001)
    assert by_seeds.images is None


def test_a_difference_that_lies_inside_the_margin_is_settled():
    one, other = simulate(np.random.default_rng(13), 40_000, runs=(3, 3), common=1.0)
    low, high = compare_crossed(one, other).interval
    assert -MARGIN < low < 0 < high < MARGIN
    assert plan_crossed(one, other) is None
    found = plan_crossed(one[:, :1000], one[:, :1000])
    assert isinstance(found, Plan)
    assert found.half_width == MARGIN
    assert found.images > 1000
