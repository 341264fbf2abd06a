"""Export a model: build the graphs, compare their answers with the model's, and publish them if they agree."""

from __future__ import annotations

import logging
from importlib import metadata
from pathlib import Path

import onnx
from transformers import BaseImageProcessor, PreTrainedModel

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
from hfprobe.tasks.export.preprocessing import OPSET, build_preprocessing, check_preprocessing
from hfprobe.tasks.export.result import CLASSIFIER, NETWORK, Export, Parity

logger = logging.getLogger(__name__)

# Logits that are closer than this are equal up to the rounding of float32: torch and onnxruntime add in another order.
ROUNDING = 1e-3
# A probability that differs more is no rounding either, even if no answer changes.
LARGEST = 1e-3


def export_model(
    *, model: PreTrainedModel, processor: BaseImageProcessor, images: Images, folder: Path, name: str
) -> Export:
    """Write the ONNX files of a model into the folder `onnx` of its own folder, if they answer as it does.

    Args:
        model, processor: as `load_model` returned them for `folder`.
        images: whose test images are answered by both; they are a check, and nothing is chosen on them.
        folder: of the model.
        name: of the model, for the record.

    Raises:
        InputError: the labels of the model are not the classes of the images; the model cannot be exported.
        CheckFailedError: an exported file answers otherwise; nothing was written.
        MachineError: the disk is full.
    """
    if class_names_of(model) != images.class_names:
        raise InputError(
            f"The labels of the model ({', '.join(class_names_of(model))}) do not match the classes of the dataset "
            f"({', '.join(images.class_names)}). Pass --classes in the order of the model, or another --dataset."
        )
    temperature = getattr(model.config, "calibration_temperature", None)
    if temperature is None:
        logger.warning("This model has no temperature, so the probabilities of the export are not calibrated.")
    stale = find_stale(folder)
    if stale is not None:
        logger.warning("The earlier export in '%s' is replaced: %s.", folder / EXPORT_FOLDER, stale)
    with publish_export(folder) as staging:
        build_files(model, processor, staging, name=name, revision=folder.name, temperature=temperature or 1.0)
        export = measure_files(model, processor, images, staging, name=name, folder=folder, temperature=temperature)
        check_parity(export)
        export.save(staging)
    return export


def build_files(
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    staging: Path,
    *,
    name: str,
    revision: str,
    temperature: float,
) -> None:
    """Write the graphs in float32 to a folder."""
    preprocessing = build_preprocessing(processor)
    check_preprocessing(preprocessing, processor)
    network = build_network(model, processor)
    classifier = add_preprocessing(network, preprocessing, temperature=temperature)
    for file, graph in ((NETWORK, network), (CLASSIFIER, classifier)):
        describe(graph, model, name=name, revision=revision, precision="fp32")
        onnx.save(graph, staging / file)


def measure_files(
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    images: Images,
    staging: Path,
    *,
    name: str,
    folder: Path,
    temperature: float | None,
) -> Export:
    """Compare the answers of the files in a folder with those of the model on the test images."""
    split = images.decode(PART, processor=processor).part(PART)
    divisor = temperature or 1.0
    own = answer_in_torch(model, processor, split, temperature=divisor)

    def compare(answers: Answers) -> Parity:
        return compare_answers(own, answers, split.labels, rounding=ROUNDING)

    return Export(
        model=name,
        revision=folder.name,
        source=source_checksums(folder),
        files=export_checksums(staging),
        class_names=class_names_of(model),
        temperature=temperature,
        opset=OPSET,
        rounding=ROUNDING,
        split=PART,
        images_fingerprint=split.images_fingerprint,
        accuracy=float((own.logits.argmax(1) == split.labels).mean()),
        parity={
            CLASSIFIER: compare(answer_from_files(staging / CLASSIFIER, images, split)),
            NETWORK: compare(answer_in_batches(staging / NETWORK, processor, split, temperature=divisor)),
        },
        versions=provenance.versions() | {package: metadata.version(package) for package in PACKAGES},
        hardware=provenance.find_hardware(),
    )


def check_parity(export: Export) -> None:
    """Refuse files in float32 whose answers differ from those of the model by more than rounding.

    Raises:
        CheckFailedError: one does; the message has the figures.
    """
    for name in (CLASSIFIER, NETWORK):
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


def check_export(folder: Path) -> Export:
    """The record of the export of a model folder, after a check that it is intact and was made from these files.

    Raises:
        InputError: there is none; it is damaged; it is stale, because the model in the folder is another one.
    """
    place = folder / EXPORT_FOLDER
    export = Export.load(place)
    if export.source != source_checksums(folder):
        raise InputError(
            f"The export in '{place}' is stale: it was made from {export.model}@{export.revision[:12]}, whose files "
            f"are not those in '{folder}'. {Export.REMEDY}"
        )
    found = export_checksums(place)
    damaged = sorted(name for name in found.keys() | export.files if found.get(name) != export.files.get(name))
    if damaged:
        raise InputError(f"'{place / damaged[0]}' is damaged: it is not the file that was exported. {Export.REMEDY}")
    return export
