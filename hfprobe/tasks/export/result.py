"""An export: its files, and how their answers differ from those of the model. Does not import torch."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal, get_args

from hfprobe.hub.exports import export_checksums, source_checksums
from hfprobe.models.runtimes import RUNTIME_FILES, Runtime
from hfprobe.statistics.paired import Difference
from hfprobe.system.errors import InputError
from hfprobe.system.model_files import EXPORT_FOLDER
from hfprobe.system.process import command
from hfprobe.system.provenance import Hardware
from hfprobe.system.records import VerdictFile

# The graph with its preprocessing, and the network alone.
CLASSIFIER, NETWORK = "classifier.onnx", RUNTIME_FILES["onnx"]
INT8_CLASSIFIER, INT8_NETWORK = "classifier_quantized.onnx", RUNTIME_FILES["int8"]
Method = Literal["static", "dynamic"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True)
class Parity:
    """How the answers of one file differ from those of the model in torch on the same images.

    Attributes:
        n: number of images.
        differing: images with another answer; `clear`: those of them where the two largest logits of the model are
            further apart than `Export.rounding`.
        largest: largest difference of a probability.
        accuracy: of the file, in [0, 1].
        difference: of the accuracies, the file minus the model, with the paired interval and the exact McNemar test.
    """

    n: int
    differing: int
    clear: int
    largest: float
    accuracy: float
    difference: Difference

    def describe(self, name: str, *, split: str) -> str:
        """One sentence for the log and the terminal."""
        low, high = self.difference.interval
        return (
            f"{name}: {self.differing:,} of {self.n:,} answers differ on {split}, the largest difference of a "
            f"probability is {self.largest:.1e}; accuracy {self.accuracy:.2%}, {100 * self.difference.value:+.2f} "
            f"points (95 % interval {100 * low:+.2f} to {100 * high:+.2f}, exact McNemar p = {self.difference.p:.3g})."
        )


@dataclass(frozen=True)
class Speed:
    """Of a network on this processor: milliseconds for one image, images per second in batches, size of its file."""

    milliseconds: float
    images_per_second: float
    bytes: int


@dataclass(frozen=True)
class Candidate:
    """One method of quantization: its accuracy on validation minus that of the model, and its speed."""

    difference: Difference
    speed: Speed


@dataclass(frozen=True)
class Quantization:
    """How the files in int8 were made.

    Attributes:
        kept: the method that was kept; `reason`: a sentence.
        max_loss: largest loss of accuracy that is allowed, in percentage points.
        calibrated_on: number of training images; `chosen_on`: number of validation images.
        full: speed of the network in float32.
    """

    kept: Method
    reason: str
    max_loss: float
    calibrated_on: int
    chosen_on: int
    full: Speed
    candidates: dict[Method, Candidate]

    @property
    def sentences(self) -> list[str]:
        """What was kept, why, and how fast it is."""
        speed = self.candidates[self.kept].speed
        told = (
            f"int8 takes {speed.milliseconds:.3g} ms per image, float32 {self.full.milliseconds:.3g} ms; in batches "
            f"{speed.images_per_second:,.0f} and {self.full.images_per_second:,.0f} images/s; "
            f"{speed.bytes / 1e6:.1f} and {self.full.bytes / 1e6:.1f} MB."
        )
        ratios = {
            "for one image": self.full.milliseconds / speed.milliseconds,
            "in batches": speed.images_per_second / self.full.images_per_second,
        }
        slower = [
            f"On this processor int8 is slower than float32 {where} ({1 / ratio:.1f} times as long): deploy float32 "
            "for that."
            for where, ratio in ratios.items()
            if ratio < 1
        ]
        return [self.reason, told, *slower]


@dataclass(frozen=True, repr=False)
class Export(VerdictFile):
    """What an export holds, and what was measured before it was published.

    Attributes:
        model, revision: that it was made from.
        source: file of the model -> SHA-256; the export is stale where they differ.
        files: ONNX file -> SHA-256.
        temperature: by which the probabilities are calibrated; None: the model has none, and they are plain.
        opset: version of the operators of ONNX.
        rounding: smaller differences of the two largest logits are rounding.
        split: of the images; `images_fingerprint`: of these images.
        accuracy: of the model in torch.
        parity: ONNX file -> how its answers differ.
        quantization: None without files in int8.
    """

    FILE: ClassVar[str] = "parity.json"
    WHAT: ClassVar[str] = "export"
    REMEDY: ClassVar[str] = "Export the model: hfprobe export --model <name>"

    model: str
    revision: str
    source: dict[str, str]
    files: dict[str, str]
    class_names: list[str]
    temperature: float | None
    opset: int
    rounding: float
    split: str
    images_fingerprint: str
    accuracy: float
    parity: dict[str, Parity]
    versions: dict[str, str]
    hardware: Hardware
    quantization: Quantization | None = None

    @property
    def sentences(self) -> list[str]:
        """What was found, in sentences."""
        lines = [parity.describe(name, split=self.split) for name, parity in self.parity.items()]
        if self.quantization is None:
            return lines
        loss, limit = self.parity[INT8_CLASSIFIER].difference, self.quantization.max_loss
        if -100 * loss.interval[0] > limit:
            lines.append(
                f"These images do not rule out that int8 loses more than {limit:g} points: the interval reaches "
                f"{-100 * loss.interval[0]:.2f}."
            )
        return lines + self.quantization.sentences


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


def find_export(folder: Path, name: str) -> Export | None:
    """What `check_export` returns, if the export has a file of this name; None if there is no such export."""
    try:
        export = check_export(folder)
    except InputError:
        return None
    return export if name in export.files else None


def find_network(folder: Path, runtime: Runtime, *, model: str, hub_dir: str | Path = "hub") -> Path | None:
    """The file of the export of a model folder that answers in a runtime, after `check_export`; None for torch.

    Args:
        model, hub_dir: as the user named them, for the message.

    Raises:
        InputError: onnxruntime is not installed; there is no export, or none in int8; it is damaged or stale.
    """
    if runtime == "torch":
        return None
    if find_spec("onnxruntime") is None:
        raise InputError(f"--runtime {runtime} needs onnxruntime. Install the extra: pip install 'hfprobe[export]'")
    quantize = " --quantize int8" if runtime == "int8" else ""
    hub = "" if str(hub_dir) == "hub" else f" --hub_dir {shlex.quote(str(hub_dir))}"
    remedy = f"Export it: {command('export')} --model {shlex.quote(model)}{hub}{quantize}"
    if not (folder / EXPORT_FOLDER).is_dir():
        raise InputError(f"--runtime {runtime} needs an export, and '{model}' has none. {remedy}")
    if RUNTIME_FILES[runtime] not in check_export(folder).files:
        raise InputError(
            f"--runtime {runtime} needs '{RUNTIME_FILES[runtime]}', and the export of '{model}' has none. {remedy}"
        )
    return folder / EXPORT_FOLDER / RUNTIME_FILES[runtime]
