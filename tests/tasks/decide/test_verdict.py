"""Every verdict, on generated evaluations."""

import numpy as np
import pytest
from scipy import stats

from helpers.results import (
    PNG,
    imbalanced_result,
    in_runs,
    make_result,
    network_of,
    planted,
    profile_of,
    with_provenance,
)
from hfprobe.statistics.paired import paired_score_interval
from hfprobe.tasks.compare.measure import compare
from hfprobe.tasks.decide.verdict import count_needed, judge, judge_alone, say


def compared(one, other, *, profile=True, **names):
    results = {
        name: with_provenance(result, network=network_of(1000 * number))
        for number, (name, result) in enumerate({"cnn": one, "probe": other}.items(), start=1)
    }
    return compare(results, profile=profile_of(one=(1000, 1.0), two=(2000, 2.0)) if profile else None)


def differing(only_first, only_second, *, count=1000):
    """Two models of three classes that disagree on so many images, and are right on all others."""
    labels = np.arange(count) % 3
    found = []
    for start, wrong in ((0, only_second), (only_second, only_first)):
        answers = labels.copy()
        answers[start : start + wrong] = (answers[start : start + wrong] + 1) % 3
        result = make_result(count=count)
        mistakes = dict.fromkeys(result.index[answers != labels].tolist(), PNG)
        found.append(
            type(result)(
                class_names=result.class_names,
                index=result.index,
                labels=labels,
                probabilities=(0.1 + 0.7 * np.eye(3)[answers]).astype(np.float32),
                mistakes=mistakes,
                provenance=result.provenance,
            )
        )
    return found


def test_a_significant_difference_names_the_better_model_and_what_the_other_would_cost():
    comparison = compared(planted(0.6, seed=1), planted(0.9, seed=2))
    found = judge(comparison)
    assert (found.kind, found.best, found.rival, found.images_needed) == ("better", "probe", "cnn", None)
    assert found.difference == comparison.pairs[0].differences["accuracy"].value
    verdict, cost, wrong = say(found, comparison)
    assert verdict.startswith(
        f"Take probe: its accuracy is {100 * found.difference:.2f} points higher than that of cnn"
    )
    assert "on these 600 test images (95 % interval +" in verdict
    assert cost.startswith("cnn classifies 1,600 images/s in batches of 64, probe 800 images/s")
    low, high = (round(1000 * bound) for bound in found.interval)
    assert wrong == f"To take cnn instead would cost {low} to {high} more wrong answers per 1,000 images."


def test_the_difference_is_that_of_the_best_model_whatever_the_order_of_the_models():
    one, other = planted(0.6, seed=1), planted(0.9, seed=2)
    assert judge(compared(other, one)).best == "cnn"
    found = [judge(compared(*pair)) for pair in ((one, other), (other, one))]
    assert found[0].difference == found[1].difference > 0
    assert found[0].interval == pytest.approx(found[1].interval)


def test_an_interval_inside_the_margin_is_no_difference_that_matters_and_the_faster_model_is_taken():
    comparison = compared(*differing(1, 3, count=3000))
    found = judge(comparison, margin=0.005)
    assert (found.kind, found.best, found.rival) == ("equal", "cnn", "probe")  # probe is ahead by two images
    assert found.difference == pytest.approx(-2 / 3000)
    verdict, _, wrong = say(found, comparison)
    assert verdict.startswith("No difference that matters: the accuracy of cnn and probe differs by 0.07 points")
    assert verdict.endswith("within the margin of 0.5 points. Take cnn because it is faster.")
    assert wrong.startswith("A wrong choice between the two would cost at most 3 more wrong answers per 1,000 images")
    unmeasured = compared(*differing(1, 3, count=3000), profile=False)
    assert judge(unmeasured).best == "probe"
    assert len(say(judge(unmeasured), unmeasured)) == 2


def test_a_significant_difference_inside_the_margin_does_not_matter():
    comparison = compared(*differing(0, 9, count=3000))
    assert comparison.pairs[0].differences["accuracy"].p < 0.05
    assert judge(comparison, margin=0.01).kind == "equal"
    assert judge(comparison, margin=0.002).kind == "better"


def test_an_interval_that_excludes_neither_says_how_many_images_would_do():
    comparison = compared(*differing(10, 15, count=300))
    found = judge(comparison)
    assert (found.kind, found.best) == ("unclear", "probe")
    verdict, _, wrong = say(found, comparison)
    assert verdict.startswith(
        "Not enough images to tell: probe is 1.67 points ahead of cnn in accuracy on these 300 test"
    )
    assert verdict.endswith(f"; about {found.images_needed:,} test images would.")
    assert "To take probe although cnn is better would cost at most" in wrong


@pytest.mark.parametrize("counts", [(10, 15, 300), (40, 44, 1000), (3, 3, 100), (20, 30, 2000)])
def test_so_many_images_with_the_same_shares_of_disagreement_do_tell(counts):
    only_first, only_second, n = counts
    difference, margin = (only_second - only_first) / n, 0.005
    variance = (only_first + only_second) / n - difference**2
    needed = count_needed(n, difference=difference, margin=margin, per_image=variance)
    factor = needed / n
    low, high = paired_score_interval(round(factor * only_first), round(factor * only_second), needed)
    slack = 0.0005  # the score interval is not symmetric, and counts are whole numbers
    assert low > -slack or high < margin + slack
    z = stats.norm.ppf(0.975)
    exact = z**2 * variance / max(difference, margin - difference) ** 2
    assert exact <= needed <= 1.1 * exact + 1


def test_models_that_never_disagree_need_images_until_the_interval_is_inside_the_margin():
    comparison = compared(*differing(0, 0, count=300))
    found = judge(comparison)
    assert found.kind == "unclear"
    low, high = paired_score_interval(0, 0, found.images_needed)
    assert -0.005 <= low <= high <= 0.005
    assert "are level" in say(found, comparison)[0]
    assert judge(compared(*differing(0, 0, count=300)), margin=0).images_needed is None


def test_of_imbalanced_classes_macro_f1_is_judged():
    comparison = compared(imbalanced_result(seed=1), imbalanced_result(seed=2))
    found = judge(comparison)
    assert found.metric == "macro_f1"
    assert "macro-F1" in say(found, comparison)[0]
    if found.kind == "unclear":
        assert "points of macro-F1" in say(found, comparison)[-1]


def test_one_model_is_not_called_better_than_anything():
    result = planted(0.9)
    found = judge_alone("cnn", result, margin=0.005)
    assert (found.kind, found.rival) == ("alone", None)
    assert say(found, None, alone=result)[0] == "There is one model only, so nothing was compared: cnn."


def test_several_training_runs_widen_the_interval_by_their_deviation():
    first, second = planted(0.8, seed=1), planted(0.86, seed=2)
    alone = judge(compare({"cnn": first, "probe": second}))
    steady = judge(compare({"cnn": in_runs(first, 0, 0, 0), "probe": second}))
    assert steady.interval == pytest.approx(alone.interval, abs=0.002)
    comparison = compare({"cnn": in_runs(first, -20, 0, 20), "probe": second})
    found = judge(comparison)
    assert found.seeds == 3
    assert found.difference == pytest.approx(alone.difference)
    assert found.interval[0] < alone.interval[0] < alone.interval[1] < found.interval[1]
    assert "on average over 3 seeds" in say(found, comparison)[0]


def test_the_mean_over_training_runs_decides_which_model_is_ahead():
    first, second = planted(0.8, seed=1), planted(0.86, seed=2)
    assert judge(compare({"cnn": in_runs(first, 0, -90, -90), "probe": second})).best == "cnn"


def test_training_runs_that_differ_too_much_ask_for_more_seeds():
    one, other = differing(30, 33, count=3000)
    comparison = compare({"cnn": in_runs(one, 100, 0, -30), "probe": other})
    found = judge(comparison)
    assert (found.kind, found.images_needed) == ("unclear", None)
    assert say(found, comparison)[0].endswith("because the training runs differ too much: pass more --seeds.")
