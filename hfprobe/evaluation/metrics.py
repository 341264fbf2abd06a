"""The Trainer's metrics: `evaluate.Metric` outside, scikit-learn inside; numpy in, numbers out."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from hfprobe.evaluation.statistics import score_predictions


class ClassificationMetric(evaluate.Metric):
    """Accuracy and macro-F1 of predicted class numbers; macro-F1 over the classes in references or predictions.

    `evaluate.load("accuracy")` fetches its code from the hub; this class works offline, `add_batch` included.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy and macro-F1, through scikit-learn.",
            citation="Pedregosa et al., Scikit-learn: Machine Learning in Python, JMLR 12, 2011.",
            features=datasets.Features(predictions=datasets.Value("int64"), references=datasets.Value("int64")),
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return score_predictions(references, predictions)


def compute_metrics(prediction: Any) -> dict[str, float]:
    """For the Trainer: `accuracy` and `macro_f1` in [0, 1] of logits (N, C) against label numbers (N,)."""
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    # In memory: on disk, two of them at once (two ranks, two runs) wait a second for each other's lock.
    return ClassificationMetric(keep_in_memory=True).compute(
        predictions=logits.argmax(-1), references=prediction.label_ids
    )
