"""The metrics that the Trainer logs: an `evaluate.Metric` computed with scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import datasets
import evaluate

from hfprobe.statistics.intervals import score_predictions

if TYPE_CHECKING:
    import numpy as np
    from transformers import EvalPrediction


class ClassificationMetric(evaluate.Metric):
    """Accuracy, macro-F1 and balanced accuracy of predicted class numbers.

    Macro-F1 averages over the classes that occur in references or predictions, balanced accuracy over those in
    references.
    `evaluate.load("accuracy")` downloads its code from the hub; this class works offline, including `add_batch`.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy, macro-F1 and balanced accuracy, computed with scikit-learn.",
            citation="Pedregosa et al., Scikit-learn: Machine Learning in Python, JMLR 12, 2011.",
            features=datasets.Features(predictions=datasets.Value("int64"), references=datasets.Value("int64")),
        )

    def _build_data_dir(self) -> str:
        # In memory, no file is written; evaluate creates the folder all the same, also where HF_HOME is read-only.
        return self._data_dir_root if self.keep_in_memory else super()._build_data_dir()

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return vars(score_predictions(references, predictions))


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """`accuracy`, `macro_f1` and `balanced_accuracy`, in [0, 1], for the Trainer.

    Args:
        prediction: logits (N, C) and label numbers (N,).
    """
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    # In memory: on disk, two concurrent metrics (two ranks, two runs) wait a second for the lock of the other.
    return ClassificationMetric(keep_in_memory=True).compute(
        predictions=logits.argmax(-1), references=prediction.label_ids
    )
