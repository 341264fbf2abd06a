import dataclasses
import json
import re

import numpy as np
import pytest
from scipy import stats

from helpers.images import CLASSES, load_splits
from helpers.results import imbalanced_result, in_runs, planted, solved, with_provenance, without_images
from hfprobe.data.arguments import DataArguments
from hfprobe.statistics import intervals as statistics
from hfprobe.statistics import paired
from hfprobe.statistics.classification import ClassScores
from hfprobe.statistics.crossed import compare_crossed
from hfprobe.statistics.paired import compare_paired
from hfprobe.system.errors import InputError
from hfprobe.tasks.compare.comparable import load_comparable
from hfprobe.tasks.compare.measure import compare
from hfprobe.tasks.compare.result import ClassDifference, Comparison, SignificanceTests
from hfprobe.tasks.evaluate.provenance import Leaks


def saved(tmp_path, **results):
    for name, result in results.items():
        result.save(tmp_path / name)
    return [tmp_path / name for name in results]


ONCE = "Each model was trained once; variation between seeds may exceed these intervals."


def test_comparison_of_a_model_with_itself_shows_no_difference():
    comparison = compare({"one": planted(0.8), "same": planted(0.8)})
    (pair,) = comparison.pairs
    for difference in pair.differences.values():
        assert difference.p == difference.adjusted_p == 1
    # Not 0 to 0: 600 images without a disagreement leave 0.64 points to either side (Tango, 1998).
    assert comparison.sentences == [
        "The accuracies of one and same do not differ significantly on these 600 images: +0.00 points, 95 % interval "
        "-0.64 to +0.64, exact McNemar p = 1.0000.",
        ONCE,
    ]
    low, high = pair.differences["macro_f1"].interval
    assert -0.01 < low < 0 < high < 0.01


def disagreeing(only_first, only_second, n=50):
    """Two models, each alone right about so many images."""
    base = planted(1, count=n)
    wrong = (base.probabilities.argmax(axis=1) + 1) % 3
    answers = [np.where(chosen, wrong, base.labels) for chosen in (
        np.arange(n) < only_second, (np.arange(n) >= only_second) & (np.arange(n) < only_second + only_first)
    )]  # fmt: skip
    return [dataclasses.replace(base, probabilities=np.eye(3, dtype=np.float32)[answer]) for answer in answers]


def test_verdict_explains_an_interval_without_zero_if_the_test_shows_no_difference():
    one, other = disagreeing(0, 5)
    assert compare({"one": one, "other": other}).sentences[0] == (
        "The accuracies of one and other do not differ significantly on these 50 images: +10.00 points, 95 % interval "
        "+2.15 to +21.36, exact McNemar p = 0.0625. The interval excludes 0, but it is an approximation. The exact "
        "test decides, because its error rate holds for any number of images."
    )
    one, other = disagreeing(0, 6)
    verdict = compare({"one": one, "other": other, "third": one}).sentences[0]
    assert verdict.endswith(
        "exact McNemar p = 0.0938 after Holm's correction for 3 pairs. The interval excludes 0, but it is not "
        "corrected for 3 pairs. The test is corrected, and it decides."
    )


def test_comparison_accepts_a_split_without_images_of_a_class():
    results = {"a": without_images(planted(0.9, seed=1), of=2), "b": without_images(planted(0.8, seed=2), of=2)}
    never = results["b"].probabilities.copy()
    never[:, 2] = 0  # calls nothing an owl
    results["c"] = dataclasses.replace(results["b"], probabilities=never)
    comparison = compare(results)
    undefined = ClassDifference(None, None, None)
    assert comparison.models["c"].per_class["owl"] == ClassScores(None, None, None, support=0)
    assert [pair.per_class["owl"] for pair in comparison.pairs] == [ClassDifference(0, 0, 0), undefined, undefined]
    for pair in comparison.pairs:
        gain = [results[name].metrics.macro_f1 for name in (pair.second, pair.first)]
        low, high = pair.differences["macro_f1"].interval
        assert low <= pair.differences["macro_f1"].value == gain[0] - gain[1] <= high


@pytest.mark.parametrize("order", [("good", "bad"), ("bad", "good")])
def test_a_planted_better_model_is_found_in_either_order(order):
    models = {"good": planted(0.95, seed=1), "bad": planted(0.8, seed=2)}
    comparison = compare({name: models[name] for name in order})
    (pair,) = comparison.pairs
    low, high = pair.differences["accuracy"].interval
    assert low > 0 if order[1] == "good" else high < 0
    found = re.fullmatch(
        r"good is more accurate than bad by ([\d.]+) points on these 600 images \(95 % interval ([\d.]+) to ([\d.]+), "
        r"exact McNemar p < 0.0001\).",
        comparison.sentences[0],
    )
    value, least, most = map(float, found.groups())
    assert 0 < least < value < most
    accuracies = [models[name].metrics.accuracy for name in ("good", "bad")]
    assert value == pytest.approx(100 * (accuracies[0] - accuracies[1]), abs=0.006)


def test_interval_of_a_difference_equals_the_paired_bootstrap_of_scipy():
    one, other = planted(0.9, seed=1), planted(0.85, seed=2)
    found = compare_paired(labels=one.labels, predictions=(one.predictions, other.predictions))
    gain = (other.predictions == other.labels).astype(float) - (one.predictions == one.labels)
    expected = stats.bootstrap((gain,), np.mean, n_resamples=10_000, method="percentile", rng=1).confidence_interval
    assert found["accuracy"].value == pytest.approx(gain.mean())
    np.testing.assert_allclose(found["accuracy"].interval, expected, atol=0.003)
    difference = other.metrics.macro_f1 - one.metrics.macro_f1
    assert found["macro_f1"].value == pytest.approx(difference)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "balanced_accuracy"])
def test_several_pairs_are_corrected_after_holm(metric):
    results = {"a": planted(0.9, seed=1), "b": planted(0.86, seed=2), "c": planted(0.8, seed=3)}
    comparison = compare(results)
    assert comparison.tests == SignificanceTests(correction="Holm", pairs=3, significance=0.05)
    test = "exact McNemar" if metric == "accuracy" else "randomization test"
    assert {pair.differences[metric].test for pair in comparison.pairs} == {test}
    pairs = sorted((pair.differences[metric] for pair in comparison.pairs), key=lambda found: found.p)
    raw = [found.p for found in pairs]
    expected = [3 * raw[0], max(3 * raw[0], 2 * raw[1]), max(3 * raw[0], 2 * raw[1], raw[2])]
    assert [found.adjusted_p for found in pairs] == pytest.approx(np.minimum(expected, 1))
    *sentences, last = comparison.sentences
    assert all("after Holm's correction for 3 pairs" in sentence for sentence in sentences)
    assert last == ONCE


@pytest.mark.slow
def test_rate_of_false_differences_is_within_the_significance_level(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 1)
    monkeypatch.setattr(paired, "SWAPS", 1)
    called = 0
    for seed in range(40):
        pair = compare({"a": planted(0.8, seed=2 * seed), "b": planted(0.8, seed=2 * seed + 1)}).pairs[0]
        called += pair.differences["accuracy"].adjusted_p < 0.05
    assert called <= 7  # 2 expected; a binomial count exceeds 7 once in 1,000 times


def test_the_keys_are_stable(tmp_path):
    compare({"a": planted(0.9), "b": planted(0.8)}).save(tmp_path)
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert set(content) == {
        "class_names", "split", "split_fingerprint", "n", "leading", "models", "pairs", "tests", "profile",
        "sentences",
    }  # fmt: skip
    assert set(content["models"]["a"]) == {
        "accuracy", "macro_precision", "macro_recall", "macro_f1", "balanced_accuracy", "intervals", "baseline",
        "per_class", "nll", "brier", "ece", "over_runs",
        "revisions", "recipe", "seeds", "split_seeds", "solved", "epochs", "best_epoch", "training_seconds",
        "parameters", "trainable_parameters",
        "backbone", "backbone_weights", "temperature", "test_time_augmentation", "evaluation_seconds", "hardware",
        "versions", "cost",
    }  # fmt: skip
    assert set(content["pairs"][0]) == {
        "first", "second", "only_first_right", "only_second_right", "both_right", "neither_right",
        "differences", "per_class", "without_leaks",
    }  # fmt: skip
    pair = content["pairs"][0]
    assert sum(pair[f"{who}_right"] for who in ("both", "neither", "only_first", "only_second")) == content["n"]


def test_names_are_those_of_the_models_or_else_of_the_folders(tmp_path):
    named = with_provenance(planted(0.8), model="hfprobe/other")
    assert list(load_comparable(saved(tmp_path, a=planted(0.9), b=named))) == ["simple-cnn", "other"]
    pinned = with_provenance(planted(0.8), model="hfprobe/third@0123abc")
    assert list(load_comparable(saved(tmp_path, a=planted(0.9), e=pinned))) == ["simple-cnn", "third"]
    assert list(load_comparable(saved(tmp_path, c=planted(0.9), d=planted(0.8)))) == ["c", "d"]


def renumbered(result, class_names):
    """The same evaluation by a model whose classes are in another order."""
    order = [result.class_names.index(name) for name in class_names]
    return dataclasses.replace(
        with_provenance(result, split_fingerprint="e" * 64),
        class_names=class_names,
        labels=np.argsort(order)[result.labels],
        probabilities=result.probabilities[:, order],
    )


@pytest.mark.slow
def test_classes_in_another_order_give_the_same_comparison_to_the_last_digit(tmp_path):
    def evaluated(right, seed):
        result = planted(right, seed=seed)
        noise = np.random.default_rng(seed).random(result.probabilities.shape).astype(np.float32) / 1000
        return dataclasses.replace(
            with_provenance(result, model=f"model-{seed}"), probabilities=result.probabilities + noise
        )

    one, other = evaluated(0.9, 1), evaluated(0.8, 2)
    expected = compare(load_comparable(saved(tmp_path, one=one, other=other)))
    for number, names in enumerate((["dog", "owl", "cat"], ["owl", "cat", "dog"], ["owl", "dog", "cat"])):
        changed = saved(tmp_path, **{f"changed{number}": renumbered(other, names)})
        results = load_comparable([tmp_path / "one", *changed])
        assert compare(results) == expected
        (found,) = results["model-2"]
        np.testing.assert_array_equal(found.predictions, other.predictions)
        np.testing.assert_array_equal(found.labels, other.labels)


def test_classes_in_another_order_are_compared_on_the_same_images_only(tmp_path):
    one = planted(0.9, seed=1)
    second = renumbered(with_provenance(one, images_fingerprint="other"), ["owl", "cat", "dog"])
    with pytest.raises(InputError, match="cannot be compared, their images differ: fingerprint eeeeeeeeeeee and"):
        load_comparable(saved(tmp_path, one=one, second=second))


def test_the_fingerprint_of_images_does_not_depend_on_the_order_of_the_classes(dataset_folder):
    one, other, fewer = (
        load_splits(DataArguments(dataset=str(dataset_folder), classes=classes), seed=1).test
        for classes in (CLASSES, CLASSES[::-1], CLASSES[:3])
    )
    assert one.images_fingerprint == other.images_fingerprint != fewer.images_fingerprint
    assert one.fingerprint != other.fingerprint
    np.testing.assert_array_equal(one.index, other.index)


def test_evaluations_that_cannot_be_compared_are_refused(tmp_path):
    base = planted(0.8)
    others = {
        "split": (
            with_provenance(base, split="validation"),
            "their splits differ: validation and test. Evaluate both on the same: ",
        ),
        "classes": (
            dataclasses.replace(base, class_names=["cat", "dog", "cow"]),
            "their classes differ: cat, dog, cow and cat, dog, owl. ",
        ),
        "count": (planted(0.8, count=300), "their numbers of images differ: 300 and 600. "),
        "images": (
            with_provenance(base, split_fingerprint="abc"),
            "their images differ: fingerprint abc and fingerprint ffffffffffff. ",
        ),
    }
    (folder,) = saved(tmp_path, base=base)
    for name, (other, message) in others.items():
        (second,) = saved(tmp_path, **{name: other})
        with pytest.raises(InputError, match=re.escape(f"'{second}' and '{folder}' cannot be compared, {message}")):
            load_comparable([folder, second])
    with pytest.raises(InputError, match=re.escape("1 report folder cannot be compared; allowed: two or more")):
        load_comparable([folder])
    with pytest.raises(InputError, match=re.escape("A report folder is named twice. Pass each folder once.")):
        load_comparable([folder, folder])
    with pytest.raises(InputError, match=re.escape("holds no evaluation")):
        load_comparable([folder, tmp_path])


def with_leaks(result, *rows):
    return with_provenance(result, leaks=Leaks("audit", ["train", "validation"], list(rows)))


def test_the_difference_without_the_images_that_leaked_into_either_model_is_stated():
    one, other = with_leaks(planted(0.7), 0, 10), with_leaks(planted(0.8, seed=1), 10, 20)
    found = compare({"a": one, "b": other})
    leaks = found.pairs[0].without_leaks
    assert (leaks.n, leaks.leaked) == (600, 3)
    difference = found.pairs[0].differences["accuracy"]
    assert (leaks.every.value, leaks.every.interval) == (difference.value, difference.interval)
    right = [(result.predictions == result.labels)[3:].mean() for result in (one, other)]
    assert leaks.clean.value == pytest.approx(right[1] - right[0])
    low, high = (f"{100 * bound:+.2f}" for bound in leaks.clean.interval)
    assert found.sentences[-2] == (
        "3 of the 600 images have a duplicate in training. Without them, the accuracy of b minus that of a is "
        f"{100 * leaks.clean.value:+.2f} points (95 % interval {low} to {high}) instead of "
        f"{100 * difference.value:+.2f}."
    )


def test_without_an_audit_of_both_or_without_leaks_a_comparison_says_nothing_of_them():
    plain = compare({"a": planted(0.7), "b": with_leaks(planted(0.8), 0)})
    assert plain.pairs[0].without_leaks is None
    clean = compare({"a": with_leaks(planted(0.7)), "b": with_leaks(planted(0.8))})
    assert not [sentence for found in (plain, clean) for sentence in found.sentences if "duplicate" in sentence]


def test_with_several_runs_the_difference_is_that_of_images_and_seeds_together():
    first, second = in_runs(planted(0.8), -5, 0, 5), planted(0.85, seed=1)
    pair = compare({"a": first, "b": second}).pairs[0]
    right = [np.stack([run.predictions == run.labels for run in runs]).astype(float) for runs in (first, [second])]
    expected, found = compare_crossed(*right), pair.differences["accuracy"]
    for name, value in vars(expected).items():
        assert getattr(found, name) == value
    assert found.test == "t test over images and seeds"
    gains = [second.metrics.macro_f1 - run.metrics.macro_f1 for run in first]
    assert pair.differences["macro_f1"].value == pytest.approx(np.mean(gains))
    assert pair.differences["macro_f1"].error == pytest.approx(found.error, rel=0.1)


def test_the_scores_of_several_runs_are_means_with_their_deviation():
    runs = in_runs(planted(0.8), -6, 0, 12)
    model = compare({"a": runs, "b": planted(0.85, seed=1)}).models["a"]
    for metric in ("accuracy", "macro_f1", "balanced_accuracy"):
        values = [run.metrics[metric] for run in runs]
        assert model[metric] == pytest.approx(np.mean(values))
        assert model.over_runs[metric].std == pytest.approx(np.std(values, ddof=1))
        low, high = model.intervals[metric]
        assert low < model[metric] < high
    assert (model.runs, model.seeds, model.solved) == (3, [42, 43, 44], False)
    assert model.per_class["cat"].f1 == pytest.approx(np.mean([run.metrics.per_class["cat"].f1 for run in runs]))


def test_the_verdict_names_the_runs_the_parts_of_the_variance_and_what_would_settle_it():
    runs = in_runs(planted(0.85), -6, 0, 6)
    verdict = compare({"a": runs, "b": solved(planted(0.86, seed=1))}).sentences
    assert re.fullmatch(
        r"The accuracies of a and b do not differ significantly on these 600 images, on average over 3 seeds of a: "
        r"[+-][\d.]+ points, 95 % interval -[\d.]+ to \+[\d.]+, t test over images and seeds p = 0\.\d{4}\. Of its "
        r"variance, \d+ % comes from the images, \d+ % from the seeds and \d+ % from the rest\. To (exclude 0 at this "
        r"difference|show that it is less than 0.5 points), no number of seeds up to 100 would do on these images; "
        r"about [\d,]+ images with these seeds would\.",
        verdict[0],
    )
    assert verdict[-1] == (
        "The intervals are for other images from the same source and for other seeds; the weights of b are solved "
        "exactly and do not depend on a seed."
    )


def test_a_model_with_a_seed_that_was_trained_once_is_named_and_not_planned_for():
    comparison = compare({"a": in_runs(planted(0.85), 0, 5), "b": planted(0.85, seed=1)})
    assert comparison.pairs[0].differences["accuracy"].plan is None
    last = "b was trained once: its variation between seeds is not in these intervals."
    assert comparison.sentences[-1] == last
    alone = compare({"a": planted(0.9), "b": solved(planted(0.8))}).sentences[-1]
    assert alone == ONCE


def test_a_significant_difference_of_several_runs_needs_no_plan():
    comparison = compare({"a": in_runs(planted(0.7), 0, 5), "b": in_runs(planted(0.9, seed=1), 3, 0, -3)})
    assert comparison.pairs[0].differences["accuracy"].plan is None
    assert re.match(
        r"b is more accurate than a by [\d.]+ points on these 600 images, on average over 2 seeds of a and 3 seeds of "
        r"b \(95 % interval [\d.]+ to [\d.]+, t test over images and seeds p < 0.0001\)\.",
        comparison.sentences[0],
    )


def test_of_imbalanced_classes_several_runs_are_judged_by_macro_f1_first():
    runs = in_runs(imbalanced_result(seed=1), 0, 10)
    comparison = compare({"a": runs, "b": imbalanced_result(seed=2)})
    assert "macro-F1 scores of a and b" in comparison.sentences[1]
    assert "on average over 2 seeds of a" in comparison.sentences[1]


def test_with_several_runs_the_images_that_leaked_into_any_of_them_are_left_out():
    first = [with_leaks(run, 0, 10) for run in in_runs(planted(0.7), 0, 5)]
    found = compare({"a": first, "b": with_leaks(planted(0.8, seed=1), 20)}).pairs[0]
    leaks, difference = found.without_leaks, found.differences["accuracy"]
    assert (leaks.n, leaks.leaked) == (600, 3)
    assert leaks.every.interval == difference.interval
    before = np.mean([(run.predictions == run.labels)[3:].mean() for run in first])
    after = planted(0.8, seed=1)
    assert leaks.clean.value == pytest.approx((after.predictions == after.labels)[3:].mean() - before)


def test_a_comparison_of_several_runs_is_read_back_as_it_was_saved(tmp_path):
    comparison = compare({"a": in_runs(planted(0.85), 0, 5), "b": solved(planted(0.86, seed=1))})
    comparison.save(tmp_path)
    assert Comparison.load(tmp_path) == comparison


def test_the_training_of_one_model_in_two_runtimes_is_not_compared_with_itself():
    torch, file = (
        with_provenance(planted(0.8), runtime=runtime, run={"seconds": 10.0}) for runtime in ("torch", "int8")
    )
    other = with_provenance(torch, model_revision="another", run={"seconds": 30.0})
    assert not any("s to train" in sentence for sentence in compare({"a": torch, "b": file}).sentences)
    told = compare({"a": torch, "b": other}).sentences
    assert "a took 10 s to train, b 30 s (3.0 times as long)." in told
