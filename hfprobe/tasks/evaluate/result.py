"""EvalResult: the result of an evaluation, stored as JSON and parquet.

This module does not import torch, because reports are made from stored results alone.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path, PurePath

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

from hfprobe.pages.figures import data_uri
from hfprobe.statistics.classification import Metrics, score_classification
from hfprobe.statistics.imbalance import METRIC_NAMES, describe_scores, leading_metrics, summarize_scores
from hfprobe.statistics.intervals import Metric, Summary, summarize_values
from hfprobe.statistics.leaks import LeakEffect, measure_leaks
from hfprobe.statistics.selective import ConfirmedThreshold, confirm_threshold
from hfprobe.system.errors import InputError, first_line, shorten
from hfprobe.system.files import replace_together
from hfprobe.system.html import render_sentences, render_table
from hfprobe.system.process import command
from hfprobe.system.records import RecordFile, read_record, write_record
from hfprobe.tasks.evaluate.provenance import Provenance

METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.parquet"
MISTAKES_FILE = "mistakes.parquet"
ROWS_AT_ONCE = 10_000  # of the probabilities in a chunk of the file, whose numbers are counted in 32 bits
# What metrics.json holds beside the metrics.
OWN = ("answered", "without_leaks", "class_names", "provenance")


@dataclass(frozen=True)
class Saved(Metrics):
    """What metrics.json holds; `answered`: what the thresholds of the model give on these images."""

    answered: list[ConfirmedThreshold] | None
    without_leaks: LeakEffect | None
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

    @cached_property
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

    @cached_property
    def without_leaks(self) -> LeakEffect | None:
        """The accuracy with and without the images that have a duplicate in training; None without an audit."""
        if self.provenance.leaks is None:
            return None
        rows = self.provenance.leaks.rows
        return measure_leaks(labels=self.labels, predictions=self.predictions, index=self.index, leaked=rows)

    @property
    def saved(self) -> Saved:
        """What metrics.json holds."""
        return Saved(**vars(self.metrics), **{name: getattr(self, name) for name in OWN})

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
        """Sentences: the leading metrics, what the sizes of the classes make of them, and what leaked images do."""
        scores = summarize_scores(
            self.metrics,
            images_per_class=self.images_per_class,
            baseline=self.metrics.baseline,
            intervals=self.metrics.intervals,
        )
        return [*scores, *filter(None, [self.leak_sentence])]

    @property
    def leak_sentence(self) -> str:
        """What the images that have a duplicate in training do to the accuracy; empty without an audit."""
        told = self.provenance
        if self.without_leaks is None or told.leaks is None:
            return ""
        return self.without_leaks.describe(split=told.split, parts=told.leaks.parts)

    def __repr__(self) -> str:
        metrics, told = self.metrics, self.provenance
        return (
            f"{told.title} on {metrics.n:,} {told.split} images: "
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
                "probabilities": _as_lists(self.probabilities.astype(np.float32, copy=False)),
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
                probabilities=_as_matrix(predictions["probabilities"], columns=len(saved.class_names)),
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


@dataclass(frozen=True)
class EvaluatedSeeds(RecordFile):
    """Evaluations of all runs of one model on one split, each in a folder of its own, and their scores.

    Attributes:
        folders: of the runs, relative to that of this file.
    """

    FILE = "seeds.json"
    WHAT = "evaluation of seeds"
    MADE_BY = "eval --seeds <file>"

    split: str
    seeds: list[int]
    folders: list[str]
    accuracy: Summary
    macro_f1: Summary
    balanced_accuracy: Summary

    @classmethod
    def of(cls, runs: dict[str, EvalResult]) -> EvaluatedSeeds:
        """Of the evaluations in these folders, whose models were trained by runs that recorded their seed."""
        results = list(runs.values())
        scores = {key: summarize_values([result.metrics[key] for result in results]) for key in METRIC_NAMES}
        seeds = [result.provenance.run["seed"] for result in results]
        return cls(results[0].provenance.split, seeds, list(runs), **scores)

    def load_runs(self, folder: Path) -> dict[Path, EvalResult]:
        """Folder -> evaluation of each run, in the order of the seeds.

        Raises:
            InputError: the evaluation of a run is missing or damaged.
        """
        runs = {}
        for place in (folder / name for name in self.folders):
            if not os.path.exists(place / METRICS_FILE):
                raise InputError(
                    f"'{shorten(folder)}' lacks the run '{place.name}', which its {self.FILE} has. Evaluate all runs "
                    f"again: {command('eval')} {self.MADE_BY.partition(' ')[2]} --report_dir "
                    f"{shlex.quote(shorten(folder))}"
                )
            runs[place] = EvalResult.load(place)
        return runs


def _is_image(png: bytes) -> bool:
    try:
        PIL.Image.open(BytesIO(png)).verify()
    except Exception:  # Pillow raises many types of errors
        return False
    return True


def _as_lists(matrix: np.ndarray) -> pa.ChunkedArray:
    """The rows of (N, C) as a column, whose numbers are not copied."""
    columns, chunks = matrix.shape[1], []
    for rows in np.split(matrix, range(ROWS_AT_ONCE, len(matrix), ROWS_AT_ONCE)):
        ends = pa.array(columns * np.arange(len(rows) + 1), pa.int32())
        chunks.append(pa.ListArray.from_arrays(ends, pa.array(rows.reshape(-1))))
    return pa.chunked_array(chunks)


def _as_matrix(lists: pa.ChunkedArray, *, columns: int) -> np.ndarray:
    """(N, C) of a column of lists.

    Raises:
        ValueError: the lists are of other lengths, or lack a number.
    """
    parts = [chunk.flatten().to_numpy().reshape(len(chunk), columns) for chunk in lists.chunks]
    return np.concatenate([np.empty((0, columns), np.float32), *parts])


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
