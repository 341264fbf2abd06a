"""Classification metrics: scikit-learn inside, `evaluate.Metric` outside; numpy in, numbers out.

Macro averages are over all classes, also those that are never predicted (their precision counts as 0).
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support


class ClassificationMetric(evaluate.Metric):
    """Accuracy and macro-F1 of predicted class numbers.

    `evaluate.load("accuracy")` fetches its code from the hub; this class works offline, `add_batch` included.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy and macro-F1, through scikit-learn.",
            citation="Pedregosa et al., Scikit-learn: Machine Learning in Python, JMLR 12, 2011.",
            features=datasets.Features(predictions=datasets.Value("int64"), references=datasets.Value("int64")),
        )

    def _compute(self, predictions: list[int], references: list[int], num_classes: int) -> dict[str, float]:
        _, _, f1, _ = precision_recall_fscore_support(
            references, predictions, labels=range(num_classes), average="macro", zero_division=0
        )
        return {"accuracy": float(accuracy_score(references, predictions)), "macro_f1": float(f1)}


def compute_metrics(prediction: Any) -> dict[str, float]:
    """For the Trainer: `accuracy` and `macro_f1` in [0, 1] of logits (N, C) against label numbers (N,)."""
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    return ClassificationMetric().compute(
        predictions=logits.argmax(-1), references=prediction.label_ids, num_classes=logits.shape[-1]
    )


def summarize_classification(*, labels: np.ndarray, predictions: np.ndarray, class_names: list[str]) -> dict[str, Any]:
    """Everything a report says of a set of predictions, JSON-able.

    Args:
        labels, predictions: (N,) class numbers.

    Returns:
        `n`, `accuracy`, `macro_precision`, `macro_recall`, `macro_f1` (shares in [0, 1]), `per_class` (name ->
        precision, recall, f1, support) and `confusion_matrix` (rows: true class, columns: predicted).
    """
    numbers = range(len(class_names))
    scores = precision_recall_fscore_support(labels, predictions, labels=numbers, zero_division=0)
    precision, recall, f1, support = (values.tolist() for values in scores)
    return {
        "n": len(labels),
        "accuracy": float(accuracy_score(labels, predictions)),
        "macro_precision": float(np.mean(precision)),
        "macro_recall": float(np.mean(recall)),
        "macro_f1": float(np.mean(f1)),
        "per_class": {
            name: {
                "precision": precision[number],
                "recall": recall[number],
                "f1": f1[number],
                "support": support[number],
            }
            for number, name in enumerate(class_names)
        },
        "confusion_matrix": confusion_matrix(labels, predictions, labels=numbers).tolist(),
    }
