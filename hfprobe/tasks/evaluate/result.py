"""EvalResult: the result of an evaluation, stored as JSON and parquet.

This module does not import torch, because reports are made from stored results alone.
"""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from hfprobe.pages.figures import data_uri
from hfprobe.statistics.imbalance import describe_scores, leading_metrics, score_baseline
from hfprobe.statistics.intervals import calibration, metric_intervals, score_predictions
from hfprobe.system.errors import InputError, shorten
from hfprobe.system.files import replace_together, write_json
from hfprobe.system.html import render_sentences, render_table
from hfprobe.system.process import command

METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.parquet"
MISTAKES_FILE = "mistakes.parquet"
# Entries of the provenance that reports and comparisons need.
PROVENANCE_KEYS = ("model", "model_revision", "split", "split_fingerprint", "versions")


@dataclass(frozen=True, repr=False)
class EvalResult:
    """Predictions of one model on one split.

    Attributes:
        class_names: in the order of the label numbers.
        index: (N,) int64, the row number of each image in the split of the source.
        labels: (N,) int64.
        probabilities: (N, C) float32.
        provenance: JSON-able; has at least PROVENANCE_KEYS.
        mistakes: index -> PNG bytes of each misclassified image.
        files: path of each image, '' if it has none; empty if none has one.
    """

    class_names: list[str]
    index: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    provenance: dict[str, Any]
    mistakes: dict[int, bytes] = field(default_factory=dict)
    files: tuple[str, ...] = ()

    @property
    def predictions(self) -> np.ndarray:
        """(N,) int64, the most probable class of each image."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The results of `summarize_classification` and `calibration`, 95 % intervals under the key `intervals`, and
        under `baseline` the metrics of a model that always answers the most frequent class of the training images."""
        metrics = summarize_classification(
            labels=self.labels, predictions=self.predictions, class_names=self.class_names
        )
        return (
            metrics
            | {"intervals": metric_intervals(labels=self.labels, predictions=self.predictions)}
            | {"baseline": self._score_baseline()}
            | calibration(labels=self.labels, probabilities=self.probabilities)
        )

    @property
    def images_per_class(self) -> np.ndarray:
        """(C,) int64."""
        return np.bincount(self.labels, minlength=len(self.class_names))

    @property
    def datasets(self) -> list[str]:
        """The datasets of the training run and of the evaluated images, as far as they are recorded."""
        return [self.provenance[key] for key in ("run_dataset", "dataset") if key in self.provenance]

    @property
    def leading(self) -> list[str]:
        """The metrics that come first; with imbalanced classes, macro-F1 and balanced accuracy."""
        return leading_metrics(self.images_per_class)

    def _score_baseline(self) -> dict[str, Any]:
        # Where the training run is not recorded, the most frequent class of these images stands in.
        most = self.class_names[int(self.images_per_class.argmax())]
        answer = self.provenance.get("run_majority_class", most)
        return score_baseline(self.labels, class_names=self.class_names, answer=answer)

    def __repr__(self) -> str:
        metrics, told = self.metrics, self.provenance
        return (
            f"{told['model']} on {metrics['n']:,} {told['split']} images: {describe_scores(metrics, self.leading)}, "
            f"calibration error {metrics['ece']:.2%}"
        )

    def _repr_html_(self) -> str:
        keys = ("precision", "recall", "f1")
        rows = [
            (name, *(None if scores[key] is None else f"{scores[key]:.2%}" for key in keys), scores["support"])
            for name, scores in self.metrics["per_class"].items()
        ]
        head = ["class", "precision", "recall", "F1", "images"]
        return render_sentences([repr(self)]) + render_table(head, rows)

    def save(self, folder: str | Path) -> None:
        """Write metrics.json, predictions.parquet and mistakes.parquet atomically: all of them or none.

        Raises:
            MachineError: not enough free space; earlier files in the folder are intact.
        """
        predictions = pa.table(
            {
                "index": self.index,
                "label": self.labels,
                "prediction": self.predictions,
                "probabilities": list(self.probabilities.astype(np.float32)),
                **({"file": list(self.files)} if self.files else {}),
            }
        )
        mistakes = pa.table(
            {
                "index": pa.array(list(self.mistakes), pa.int64()),
                "image": pa.array(list(self.mistakes.values()), pa.binary()),
            }
        )
        with replace_together(Path(folder), last=METRICS_FILE) as staging:
            pq.write_table(predictions, staging / PREDICTIONS_FILE)
            pq.write_table(mistakes, staging / MISTAKES_FILE)
            write_json(staging / METRICS_FILE, {"class_names": self.class_names} | self.metrics | self.provenance)

    @classmethod
    def load(cls, folder: str | Path) -> EvalResult:
        """Load a result that `save` wrote.

        Raises:
            InputError: the folder holds no evaluation, or a damaged one.
        """
        folder = Path(folder)
        remedy = f"Make it: {command('eval')} --model <folder or hub name> --report_dir {shlex.quote(shorten(folder))}"
        if not os.path.isfile(folder / METRICS_FILE):  # False for a name too long, for which Path.is_file raises
            raise InputError(f"'{shorten(folder)}' holds no evaluation: it has no {METRICS_FILE}. {remedy}")
        try:
            content = json.loads((folder / METRICS_FILE).read_text())
            if not isinstance(content, dict):
                raise ValueError(f"{METRICS_FILE} holds no JSON object")
            predictions = _read_columns(folder / PREDICTIONS_FILE)
            mistakes = _read_columns(folder / MISTAKES_FILE)
            result = cls(
                class_names=content.pop("class_names"),
                index=predictions["index"].to_numpy(),
                labels=predictions["label"].to_numpy(),
                probabilities=np.stack(predictions["probabilities"].to_numpy()),
                mistakes=dict(zip(mistakes["index"].to_pylist(), mistakes["image"].to_pylist(), strict=True)),
                provenance=content,
                files=tuple(predictions["file"].to_pylist()) if "file" in predictions else (),
            )
            summary = result.metrics
            recorded = {key: content.pop(key) for key in summary}
            # Counts, not shares: another version of a library may round shares differently.
            if recorded["confusion_matrix"] != summary["confusion_matrix"]:
                raise ValueError(f"{PREDICTIONS_FILE} and {METRICS_FILE} are not of the same evaluation")
            wrong = result.index[result.predictions != result.labels]
            if missing := set(wrong.tolist()) - set(result.mistakes):
                raise ValueError(f"{MISTAKES_FILE} lacks image {min(missing)}")
            if broken := [index for index, png in result.mistakes.items() if not _is_image(png)]:
                raise ValueError(f"{MISTAKES_FILE} holds no thumbnail of image {broken[0]}")
            for key in PROVENANCE_KEYS:
                if key not in content:
                    raise KeyError(key)
        except Exception as error:  # a damaged file can raise any error
            reason = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split()).rstrip(".")
            raise InputError(f"The evaluation in '{folder}' is damaged: {reason}. {remedy}") from error
        return result


def _is_image(png: bytes) -> bool:
    try:
        PIL.Image.open(BytesIO(png)).verify()
    except Exception:  # Pillow raises many types of errors
        return False
    return True


def _read_columns(path: Path) -> dict[str, pa.ChunkedArray]:
    """The columns of a parquet file as a dict, whose KeyError names a missing column."""
    table = pq.read_table(path)
    return dict(zip(table.column_names, table.columns, strict=True))


def summarize_classification(*, labels: np.ndarray, predictions: np.ndarray, class_names: list[str]) -> dict[str, Any]:
    """The metrics of a set of predictions, JSON-able.

    Macro averages are over the classes that occur in labels or predictions, the default of scikit-learn. The scores of
    a class that occurs in neither are None, and its support is 0. For the other classes, a ratio with denominator 0
    counts as 0: the precision of a class that is never predicted, the recall of a class without images.

    Args:
        labels, predictions: (N,) class numbers.
        class_names: in the order of the class numbers.

    Returns:
        `n`, `accuracy`, `macro_precision`, `macro_recall`, `macro_f1`, `balanced_accuracy` (shares in [0, 1]),
        `per_class` (name -> precision, recall, f1, support) and `confusion_matrix` (rows: true class, columns:
        predicted). Balanced accuracy is the mean recall of the classes that occur in labels.
    """
    numbers = range(len(class_names))
    *scores, support = precision_recall_fscore_support(labels, predictions, labels=numbers, zero_division=0)
    occurs = np.isin(numbers, [labels, predictions])
    keys = ("precision", "recall", "f1")
    means = {f"macro_{key}": float(np.mean(values[occurs])) for key, values in zip(keys[:2], scores, strict=False)}
    return {
        "n": len(labels),
        **score_predictions(labels, predictions),
        **means,
        "per_class": {
            name: {
                key: float(values[number]) if occurs[number] else None for key, values in zip(keys, scores, strict=True)
            }
            | {"support": int(support[number])}
            for number, name in enumerate(class_names)
        },
        "confusion_matrix": confusion_matrix(labels, predictions, labels=numbers).tolist(),
    }


def thumbnails_of(result: EvalResult, positions: np.ndarray) -> list[dict[str, Any]]:
    """The values that a gallery shows for the misclassified images at these positions."""
    images = []
    for position in positions:
        index = int(result.index[position])
        png = result.mistakes[index]
        file = result.files[position] if result.files else ""
        width, height = PIL.Image.open(BytesIO(png)).size
        images.append(
            {
                # The folder of an image is usually its class.
                "name": "/".join(PurePath(file).parts[-2:]) or f"image {index}",
                "true": result.class_names[result.labels[position]],
                "predicted": result.class_names[result.predictions[position]],
                "confidence": float(result.probabilities[position].max()),
                "image": data_uri(png),
                "width": width,
                "height": height,
            }
        )
    return images
