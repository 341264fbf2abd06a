"""Export a model: build the graphs, compare their answers with the model's, and publish them if they agree."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import onnx
from transformers import BaseImageProcessor, PreTrainedModel

from hfprobe.data.pixels.store import ImageSplit
from hfprobe.data.splits.images import Images
from hfprobe.hub.exports import export_checksums, publish_export, source_checksums
from hfprobe.models import class_names_of
from hfprobe.system import provenance
from hfprobe.system.errors import CheckFailedError, InputError
from hfprobe.system.model_files import EXPORT_FOLDER
from hfprobe.tasks.export.extra import PACKAGES
from hfprobe.tasks.export.graphs import add_preprocessing, build_network, describe
from hfprobe.tasks.export.parity import (
    PART,
    Answers,
    answer_from_files,
    answer_in_batches,
    answer_in_torch,
    compare_answers,
)
from hfprobe.tasks.export.preprocessing import build_preprocessing, check_preprocessing
from hfprobe.tasks.export.quantization import check_loss, quantize
from hfprobe.tasks.export.resizing import OPSET
from hfprobe.tasks.export.result import (
    CLASSIFIER,
    INT8_CLASSIFIER,
    INT8_NETWORK,
    NETWORK,
    Export,
    Parity,
    Quantization,
    check_export,
)

logger = logging.getLogger(__name__)

# Logits that are closer than this are equal up to the rounding of float32: torch and onnxruntime add in another order.
ROUNDING = 1e-3
# A probability that differs more is no rounding either, even if no answer changes.
LARGEST = 1e-3


# The graph with its preprocessing, and the network alone.
FP32, INT8 = (CLASSIFIER, NETWORK), (INT8_CLASSIFIER, INT8_NETWORK)
# Percentage points of accuracy that files in int8 may lose.
MAX_LOSS = 0.5


def export_model(
    *,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    images: Images,
    folder: Path,
    name: str,
    int8: bool = False,
    max_loss: float = MAX_LOSS,
) -> Export:
    """Write the ONNX files of a model into the folder `onnx` of its own folder, if they answer as it does.

    Args:
        model, processor: as `load_model` returned them for `folder`.
        images: whose test images are answered by both; they are a check, and nothing is chosen on them.
        folder: of the model.
        name: of the model, for the record.
        int8: whether to write files in int8 too.
        max_loss: percentage points of accuracy that they may lose.

    Raises:
        InputError: the labels of the model are not the classes of the images; the model cannot be exported.
        CheckFailedError: an exported file answers otherwise, or loses too much in int8; nothing was written.
        MachineError: the disk is full.
    """
    if class_names_of(model) != images.class_names:
        raise InputError(
            f"The labels of the model ({', '.join(class_names_of(model))}) do not match the classes of the dataset "
            f"({', '.join(images.class_names)}). Pass --classes in the order of the model, or another --dataset."
        )
    subject = Subject(model, processor, folder, name)
    if subject.temperature is None:
        logger.warning("This model has no temperature, so the probabilities of the export are not calibrated.")
    stale = find_stale(folder)
    with publish_export(folder) as staging:
        preprocessing = build_preprocessing(processor)
        check_preprocessing(preprocessing, processor)
        write_pair(subject, build_network(model, processor), preprocessing, staging, names=FP32, precision="fp32")
        split = images.decode(PART, processor=processor).part(PART)
        own = answer_in_torch(model, processor, split, temperature=subject.divisor)

        def compare(names: tuple[str, str]) -> dict[str, Parity]:
            return compare_files(subject, images, split, own, staging, names=names)

        export = record(subject, split, own, staging, parity=compare(FP32))
        check_parity(export)
        if int8:
            quantization = add_int8(subject, images, preprocessing, staging, max_loss=max_loss)
            export = record(subject, split, own, staging, parity=export.parity | compare(INT8), int8=quantization)
            check_loss(export, INT8_CLASSIFIER)
        export.save(staging)
    if stale is not None:
        logger.warning("The earlier export in '%s' was replaced: %s.", folder / EXPORT_FOLDER, stale)
    return export


@dataclass(frozen=True)
class Subject:
    """The model that is exported, as `load_model` returned it for its folder, and its name."""

    model: PreTrainedModel
    processor: BaseImageProcessor
    folder: Path
    name: str

    @property
    def temperature(self) -> float | None:
        """Of the calibration; None: the model has none."""
        return getattr(self.model.config, "calibration_temperature", None)

    @property
    def divisor(self) -> float:
        """By which the logits are divided."""
        return self.temperature or 1.0


def write_pair(
    subject: Subject,
    network: onnx.ModelProto,
    preprocessing: onnx.ModelProto,
    staging: Path,
    *,
    names: tuple[str, str],
    precision: str,
) -> None:
    """Write a network with its preprocessing, and the network alone, to files of these names."""
    classifier = add_preprocessing(network, preprocessing, temperature=subject.divisor)
    for name, graph in zip(names, (classifier, network), strict=True):
        describe(graph, subject.model, name=subject.name, revision=subject.folder.name, precision=precision)
        onnx.save(graph, staging / name)


def record(
    subject: Subject,
    split: ImageSplit,
    own: Answers,
    staging: Path,
    *,
    parity: dict[str, Parity],
    int8: Quantization | None = None,
) -> Export:
    """The record of the files in a folder.

    Args:
        own: the answers of the model to the images of `split`.
    """
    return Export(
        model=subject.name,
        revision=subject.folder.name,
        source=source_checksums(subject.folder),
        files=export_checksums(staging),
        class_names=class_names_of(subject.model),
        temperature=subject.temperature,
        opset=OPSET,
        rounding=ROUNDING,
        split=PART,
        images_fingerprint=split.images_fingerprint,
        accuracy=float((own.logits.argmax(1) == split.labels).mean()),
        parity=parity,
        versions=provenance.versions() | {package: metadata.version(package) for package in PACKAGES},
        hardware=provenance.find_hardware(),
        quantization=int8,
    )


def compare_files(
    subject: Subject, images: Images, split: ImageSplit, own: Answers, staging: Path, *, names: tuple[str, str]
) -> dict[str, Parity]:
    """File -> how its answers differ from `own`; the first name is that of the graph with its preprocessing."""
    classifier, network = names
    answers = {
        classifier: answer_from_files(staging / classifier, images, split),
        network: answer_in_batches(staging / network, subject.processor, split, temperature=subject.divisor),
    }
    return {name: compare_answers(own, found, split.labels, rounding=ROUNDING) for name, found in answers.items()}


def add_int8(
    subject: Subject, images: Images, preprocessing: onnx.ModelProto, staging: Path, *, max_loss: float
) -> Quantization:
    """Write the files in int8 too.

    Raises:
        InputError: see `quantize`.
    """
    with tempfile.TemporaryDirectory() as work:
        network, quantization = quantize(
            subject.model,
            subject.processor,
            images,
            staging / NETWORK,
            temperature=subject.divisor,
            max_loss=max_loss,
            work=Path(work),
        )
    write_pair(subject, network, preprocessing, staging, names=INT8, precision=f"int8, {quantization.kept}")
    return quantization


def check_parity(export: Export) -> None:
    """Refuse files in float32 whose answers differ from those of the model by more than rounding.

    Raises:
        CheckFailedError: one does; the message has the figures.
    """
    for name in FP32:
        parity = export.parity[name]
        if parity.clear or parity.largest > LARGEST:
            raise CheckFailedError(
                f"'{name}' does not answer as the model: {parity.differing:,} of {parity.n:,} answers differ, "
                f"{parity.clear:,} of them although the two largest logits are more than {export.rounding:g} apart, "
                f"and the largest difference of a probability is {parity.largest:.2g} (allowed: {LARGEST:g}). Nothing "
                "was written. Update onnxruntime, or export with another version of torch."
            )


def find_stale(folder: Path) -> str | None:
    """Why the export of a model folder cannot be used, being stale or damaged; None: it can, or there is none."""
    place = folder / EXPORT_FOLDER
    if not place.is_dir():
        return None
    try:
        check_export(folder)
    except InputError as error:
        return str(error).partition(". ")[0]
    return None
