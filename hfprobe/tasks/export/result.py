"""An export: its files, and how their answers differ from those of the model. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hfprobe.statistics.paired import Difference
from hfprobe.system.provenance import Hardware
from hfprobe.system.records import VerdictFile

# The graph with its preprocessing, and the network alone under the name that optimum and transformers.js expect.
CLASSIFIER, NETWORK = "classifier.onnx", "model.onnx"


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

    @property
    def sentences(self) -> list[str]:
        """What was found, in sentences."""
        return [parity.describe(name, split=self.split) for name, parity in self.parity.items()]
