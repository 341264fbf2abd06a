import numpy as np
import pytest

from helpers.results import imbalanced_result, make_result, with_provenance, without_images
from hfprobe.statistics.imbalance import Baseline, are_imbalanced, score_baseline, summarize_scores
from hfprobe.statistics.intervals import score_predictions
from hfprobe.tasks.compare.measure import compare


@pytest.mark.parametrize(
    ("counts", "imbalanced"),
    [
        ([1000] * 5, False),
        ([10, 15], False),  # 1.5 times as many
        ([10, 16], True),
        ([1, 2], False),  # one image more: what a stratified split leaves
        ([1, 3], True),
        ([0, 10, 12], False),  # a class without images has no recall
        ([0, 10, 20], True),
        ([7], False),
    ],
)
def test_classes_are_imbalanced_if_the_largest_has_more_than_one_and_a_half_times_the_images(counts, imbalanced):
    assert are_imbalanced(counts) is imbalanced


def test_macro_f1_and_balanced_accuracy_come_first_if_classes_are_imbalanced():
    assert make_result().leading == ["accuracy", "macro_f1"]
    result = imbalanced_result()
    assert result.images_per_class.tolist() == [200, 100, 20]
    assert result.leading == ["macro_f1", "balanced_accuracy", "accuracy"]
    low, high = result.metrics.intervals["macro_f1"]
    assert repr(result).startswith(
        f"simple-cnn on 320 test images: macro-F1 {result.metrics.macro_f1:.2%} (95 % interval {low:.2%} to "
        f"{high:.2%}), balanced accuracy {result.metrics.balanced_accuracy:.2%}, accuracy "
    )


def test_the_baseline_answers_the_most_frequent_class_of_training():
    result = with_provenance(imbalanced_result(), run={"majority_class": "dog"})
    assert vars(result.metrics.baseline) == {
        "answer": "dog",
        "accuracy": 100 / 320,
        "macro_f1": pytest.approx(2 * 100 / (100 + 320) / 3),
        "balanced_accuracy": pytest.approx(1 / 3),
    }
    assert imbalanced_result().metrics.baseline.answer == "cat"  # not recorded


def test_a_class_without_test_images_may_be_the_baseline():
    result = with_provenance(without_images(make_result(), of=1), run={"majority_class": "dog"})
    assert result.metrics.baseline == Baseline(0, 0, 0, answer="dog")


def test_the_closing_lines_name_the_baseline_only_if_the_model_is_not_better():
    assert imbalanced_result(answers=0).summary[1:] == [
        "The classes are imbalanced (20 to 200 images per class), so macro-F1 comes first.",
        "The model is not better than always answering 'cat', the most frequent class: macro-F1 25.64%, balanced "
        "accuracy 33.33%, accuracy 62.50%.",
    ]
    assert len(imbalanced_result().summary) == 2
    labels = np.arange(10) % 2
    baseline = score_baseline(labels, class_names=["a", "b"], answer="b")
    scores = score_predictions(labels, labels)
    found = summarize_scores(scores, images_per_class=[5, 5], baseline=baseline, start="validation ")
    assert found == ["Validation accuracy 100.00%, macro-F1 100.00% (n = 10)."]


def test_with_imbalanced_classes_a_model_must_be_better_by_balanced_accuracy_too():
    labels = np.repeat([0, 1, 2], [20, 5, 5])
    predictions = np.where(np.arange(30) == 7, 1, 0)  # macro-F1 rises: fewer wrong images are said to be of class 0
    predictions[20] = 1
    predictions[:5] = 2
    scores = score_predictions(labels, predictions)
    baseline = score_baseline(labels, class_names=["a", "b", "c"], answer="a")
    assert scores.macro_f1 > baseline.macro_f1
    assert scores.balanced_accuracy < baseline.balanced_accuracy
    found = summarize_scores(scores, images_per_class=[20, 5, 5], baseline=baseline)
    assert found[-1].startswith("The model is not better than always answering 'a', the most frequent class: macro-F1 ")


def test_the_verdict_begins_with_macro_f1_if_classes_are_imbalanced():
    comparison = compare({"one": imbalanced_result(), "two": imbalanced_result(seed=1)})
    assert comparison.leading == ["macro_f1", "balanced_accuracy", "accuracy"]
    assert comparison.sentences[0] == (
        "The classes are imbalanced (20 to 200 images per class), so macro-F1 comes first."
    )
    difference = comparison.pairs[0].differences["macro_f1"]
    low, high = (100 * bound for bound in difference.interval)
    assert comparison.sentences[1] == (
        "The macro-F1 scores of one and two do not differ significantly on these 320 images: "
        f"{100 * difference.value:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}, randomization test p = "
        f"{difference.p:.4f}."
    )
    low, high = comparison.pairs[0].differences["balanced_accuracy"].interval
    found = [result.metrics.balanced_accuracy for result in (imbalanced_result(), imbalanced_result(seed=1))]
    assert low < found[1] - found[0] < high
