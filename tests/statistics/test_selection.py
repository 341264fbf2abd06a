import numpy as np
import pytest

from hfprobe.statistics.selection import estimate_optimism


def draw(accuracies, *, count, seed):
    """Candidates that are independent of each other: (K, N) costs and whether they are right."""
    right = np.random.default_rng(seed).random((len(accuracies), count)) < np.array(accuracies)[:, None]
    return {"costs": 1.0 - right, "right": right}


def test_one_candidate_has_no_optimism():
    assert estimate_optimism(**draw([0.9], count=100, seed=0)) == 0
    assert estimate_optimism(**draw([0.9], count=1, seed=0)) == 0


def test_equal_candidates_copied_have_no_optimism():
    table = draw([0.9], count=100, seed=0)
    assert estimate_optimism(**{name: np.repeat(values, 5, axis=0) for name, values in table.items()}) == 0


def test_optimism_of_equal_candidates_is_the_excess_of_the_best_of_them():
    found, true = [], []
    for seed in range(60):
        table = draw([0.8] * 10, count=400, seed=seed)
        found.append(estimate_optimism(**table))
        true.append(table["right"].mean(axis=1).max() - 0.8)
    assert np.mean(true) == pytest.approx(1.54 * np.sqrt(0.8 * 0.2 / 400), rel=0.1)  # 1.54: best of ten normal draws
    assert np.mean(found) == pytest.approx(np.mean(true), rel=0.2)


def test_a_clearly_better_candidate_has_no_optimism():
    assert estimate_optimism(**draw([0.95, 0.6, 0.5], count=400, seed=0)) == pytest.approx(0, abs=1e-4)


def test_the_choice_is_that_of_the_costs():
    right = np.array([[True] * 50, [False] * 50])
    costs = np.array([[2.0] * 50, [1.0] * 50])
    assert estimate_optimism(costs=costs, right=right) == 0
    assert estimate_optimism(costs=costs, right=right[::-1]) == 0
