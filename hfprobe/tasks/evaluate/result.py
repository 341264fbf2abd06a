"""EvalResult: the result of an evaluation, stored as JSON and parquet.

This module does not import torch, because reports are made from stored results alone.
"""

from __future__ import annotations

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

from hfprobe.models.network import Network
from hfprobe.pages.figures import data_uri
from hfprobe.statistics.classification import Metrics, score_classification
from hfprobe.statistics.imbalance import describe_scores, leading_metrics, summarize_scores
from hfprobe.statistics.intervals import Metric
from hfprobe.statistics.selective import ChosenThreshold, ConfirmedThreshold, confirm_threshold
from hfprobe.system.errors import InputError, first_line, shorten
from hfprobe.system.files import replace_together
from hfprobe.system.html import render_sentences, render_table
from hfprobe.system.process import command
from hfprobe.system.provenance import Hardware
from hfprobe.system.records import read_record, write_record

METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.parquet"
MISTAKES_FILE = "mistakes.parquet"


@dataclass(frozen=True)
class Provenance:
    """Which model was evaluated on which images, how and where.

    Attributes:
        run: how the model was trained, from its config.
        facts: what its family says about it, such as the backbone.
        dataset: of the evaluated images, as an absolute path if it is local.
        split_changes: a sentence, if the split has changed since training.
        division: how the parts were made.
        left_out: reason -> what was left out for it.
        identical_images: sentences on images that are in two parts.
        image_counts: part -> images per class.
        split_fingerprint: of the images with their labels and the order of the classes; `images_fingerprint`: of the
            images alone.
        temperature: by which the logits were divided; None: they were not.
        thresholds: of the model, chosen on validation for wished accuracies; None: it has none for these probabilities.
        test_time_augmentation: the images that were averaged with the original; None: none.
        seconds: duration of the evaluation.
    """

    model: str
    model_revision: str
    run: dict[str, Any]
    facts: dict[str, Any]
    network: Network
    parameters: int
    trainable_parameters: int
    dataset: str
    split: str
    split_changes: str | None
    source: str
    division: str
    left_out: dict[str, list[str]]
    identical_images: list[str]
    image_counts: dict[str, list[int]]
    split_fingerprint: str
    images_fingerprint: str
    temperature: float | None
    thresholds: list[ChosenThreshold] | None
    test_time_augmentation: str | None
    seconds: float
    versions: dict[str, str]
    hardware: Hardware


@dataclass(frozen=True)
class Saved(Metrics):
    """What metrics.json holds; `answered`: what the thresholds of the model give on these images."""

    answered: list[ConfirmedThreshold] | None
    class_names: list[str]
    provenance: Provenance


@dataclass(frozen=True, repr=False)
class EvalResult:
    """Predictions of one model on one split.

    Attributes:
        class_names: in the order of the label numbers.
        index: (N,) int64, the row number of each image in the split of the source.
        labels: (N,) int64.
        probabilities: (N, C) float32.
        provenance: of the model and the images.
        mistakes: index -> PNG bytes of each misclassified image.
        files: path of each image, '' if it has none; empty if none has one.
    """

    class_names: list[str]
    index: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    provenance: Provenance
    mistakes: dict[int, bytes] = field(default_factory=dict)
    files: tuple[str, ...] = ()

    @property
    def predictions(self) -> np.ndarray:
        """(N,) int64, the most probable class of each image."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def metrics(self) -> Metrics:
        """The scores of the predictions."""
        answer = self.provenance.run.get("majority_class")  # None: not recorded; that of these images stands in
        return score_classification(
            labels=self.labels, probabilities=self.probabilities, class_names=self.class_names, answer=answer
        )

    @cached_property
    def answered(self) -> list[ConfirmedThreshold] | None:
        """What the thresholds of the model give on these images; None if it has none."""
        if self.provenance.thresholds is None:
            return None
        correct, confidences = self.predictions == self.labels, self.probabilities.max(axis=1)
        return [
            confirm_threshold(chosen, confidences=confidences, correct=correct) for chosen in self.provenance.thresholds
        ]

    @property
    def saved(self) -> Saved:
        """What metrics.json holds."""
        answered = self.answered
        return Saved(**vars(self.metrics), answered=answered, class_names=self.class_names, provenance=self.provenance)

    @property
    def images_per_class(self) -> np.ndarray:
        """(C,) int64."""
        return np.bincount(self.labels, minlength=len(self.class_names))

    @property
    def datasets(self) -> list[str]:
        """The datasets of the training run and of the evaluated images, as far as they are recorded."""
        return [name for name in (self.provenance.run.get("dataset"), self.provenance.dataset) if name]

    @property
    def leading(self) -> list[Metric]:
        """The metrics that come first; with imbalanced classes, macro-F1 and balanced accuracy."""
        return leading_metrics(self.images_per_class)

    @property
    def summary(self) -> list[str]:
        """Sentences: the leading metrics, and what the sizes of the classes make of them."""
        return summarize_scores(
            self.metrics,
            images_per_class=self.images_per_class,
            baseline=self.metrics.baseline,
            intervals=self.metrics.intervals,
        )

    def __repr__(self) -> str:
        metrics, told = self.metrics, self.provenance
        return (
            f"{told.model} on {metrics.n:,} {told.split} images: "
            f"{describe_scores(metrics, self.leading, intervals=metrics.intervals)}, "
            f"calibration error {metrics.ece:.2%}"
        )

    def _repr_html_(self) -> str:
        rows = [
            (name, *(None if share is None else f"{share:.2%}" for share in shares), support)
            for name, scores in self.metrics.per_class.items()
            for *shares, support in [vars(scores).values()]
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
            write_record(staging / METRICS_FILE, self.saved)

    @classmethod
    def load(cls, folder: str | Path) -> EvalResult:
        """Load a result that `save` wrote.

        Raises:
            InputError: the folder holds no evaluation, or a damaged one.
        """
        folder = Path(folder)
        remedy = f"Make it: {command('eval')} --model <folder or hub name> --report_dir {shlex.quote(shorten(folder))}"
        saved = read_record(Saved, folder / METRICS_FILE, what="evaluation", remedy=remedy)
        try:
            predictions = _read_columns(folder / PREDICTIONS_FILE)
            mistakes = _read_columns(folder / MISTAKES_FILE)
            result = cls(
                class_names=saved.class_names,
                index=predictions["index"].to_numpy(),
                labels=predictions["label"].to_numpy(),
                probabilities=np.stack(predictions["probabilities"].to_numpy()),
                mistakes=dict(zip(mistakes["index"].to_pylist(), mistakes["image"].to_pylist(), strict=True)),
                provenance=saved.provenance,
                files=tuple(predictions["file"].to_pylist()) if "file" in predictions else (),
            )
            # Counts, not shares: another version of a library may round shares differently.
            if saved.confusion_matrix != result.metrics.confusion_matrix:
                raise ValueError(f"{PREDICTIONS_FILE} and {METRICS_FILE} are not of the same evaluation")
            wrong = result.index[result.predictions != result.labels]
            if missing := set(wrong.tolist()) - set(result.mistakes):
                raise ValueError(f"{MISTAKES_FILE} lacks image {min(missing)}")
            if broken := [index for index, png in result.mistakes.items() if not _is_image(png)]:
                raise ValueError(f"{MISTAKES_FILE} holds no thumbnail of image {broken[0]}")
        except Exception as error:  # a damaged file can raise any error
            reason = f"{error} is missing" if isinstance(error, KeyError) else first_line(error)
            raise InputError(f"The evaluation in '{shorten(folder)}' is damaged: {reason}. {remedy}") from error
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


@dataclass(frozen=True)
class Thumbnail:
    """A misclassified image in a gallery; `image`: its data URI."""

    name: str
    true: str
    predicted: str
    confidence: float
    image: str
    width: int
    height: int


def thumbnails_of(result: EvalResult, positions: np.ndarray) -> list[Thumbnail]:
    """The misclassified images at these positions."""
    images = []
    for position in positions:
        index = int(result.index[position])
        png = result.mistakes[index]
        file = result.files[position] if result.files else ""
        width, height = PIL.Image.open(BytesIO(png)).size
        images.append(
            Thumbnail(
                # The folder of an image is usually its class.
                name="/".join(PurePath(file).parts[-2:]) or f"image {index}",
                true=result.class_names[result.labels[position]],
                predicted=result.class_names[result.predictions[position]],
                confidence=float(result.probabilities[position].max()),
                image=data_uri(png),
                width=width,
                height=height,
            )
        )
    return images
