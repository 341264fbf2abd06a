from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from transformers import EvalPrediction

from helpers.results import make_result
from hfprobe.training.metrics import ClassificationMetric, compute_metrics


def test_a_class_in_neither_labels_nor_predictions_is_left_out_of_macro_f1():
    assert ClassificationMetric().compute(predictions=[0, 1, 1], references=[0, 1, 1])["macro_f1"] == 1
    # Of five classes, three occur: 0 and 1 in the labels, 3 only in the predictions.
    logits = np.eye(5)[[0, 1, 3, 0]]
    found = compute_metrics(EvalPrediction(predictions=logits, label_ids=np.array([0, 1, 1, 0])))
    macro_f1 = pytest.approx((1 + 2 / 3 + 0) / 3)
    assert found == {"accuracy": 0.75, "macro_f1": macro_f1, "balanced_accuracy": 0.75}  # of 0 and 1, in the labels


def test_of_a_tuple_the_first_item_is_the_logits():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(50, 3)), generator.integers(0, 3, 50)
    alone = compute_metrics(EvalPrediction(predictions=logits, label_ids=labels))
    with_hidden_states = compute_metrics(EvalPrediction(predictions=(logits, np.zeros((50, 8))), label_ids=labels))
    assert with_hidden_states == alone
    assert alone["accuracy"] == pytest.approx((logits.argmax(1) == labels).mean())


@pytest.mark.parametrize("folder", ["new", "file/new"])
def test_the_trainers_metrics_write_nothing_and_wait_for_no_lock(tmp_path, monkeypatch, folder):
    (tmp_path / "file").touch()  # below it no folder can be made, as where HF_HOME is read-only
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path / folder))
    found = compute_metrics(EvalPrediction(predictions=np.eye(3), label_ids=np.arange(3)))
    assert found == {"accuracy": 1.0, "macro_f1": 1.0, "balanced_accuracy": 1.0}
    assert list(tmp_path.rglob("*")) == [tmp_path / "file"]


def test_trainer_and_report_give_the_same_numbers_to_the_last_digit():
    generator = np.random.default_rng(1)
    for count in (7, 50, 1000):
        logits, labels = generator.normal(size=(count, 6)), generator.integers(0, 5, count)
        trainer = compute_metrics(EvalPrediction(predictions=logits, label_ids=labels))
        answers = np.eye(6, dtype=np.float32)[logits.argmax(1)]
        report = replace(make_result("abcdef", count=count), labels=labels, probabilities=answers).metrics
        assert trainer == {name: report[name] for name in trainer}
        in_classes = [scores.f1 for scores in report.per_class.values() if scores.f1 is not None]
        assert report.macro_f1 == pytest.approx(np.mean(in_classes), abs=1e-15)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")  # balanced_accuracy_score
def test_metric_equals_scikit_learn_and_works_in_parts():
    generator = np.random.default_rng(0)
    labels, logits = generator.integers(0, 5, 300), generator.normal(size=(300, 6))  # nobody is of class 5
    expected = {
        "accuracy": accuracy_score(labels, logits.argmax(1)),
        "macro_f1": f1_score(labels, logits.argmax(1), average="macro", zero_division=0),
        "balanced_accuracy": balanced_accuracy_score(labels, logits.argmax(1)),
    }
    assert compute_metrics(EvalPrediction(predictions=logits, label_ids=labels)) == pytest.approx(expected)
    metric = ClassificationMetric()
    for part in np.array_split(np.arange(300), 7):
        metric.add_batch(predictions=logits[part].argmax(1), references=labels[part])
    assert metric.compute() == pytest.approx(expected)
