"""Profile: what the inference of models costs, stored as JSON, and the costs that a comparison takes from it.

This module does not import torch, because reports are made from stored results alone.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from hfprobe.models.network import Network
from hfprobe.models.runtimes import RUNTIME_FILES
from hfprobe.statistics.intervals import exact_interval
from hfprobe.statistics.paired import Difference
from hfprobe.system.errors import InputError
from hfprobe.system.process import command
from hfprobe.system.provenance import Hardware
from hfprobe.system.records import RecordFile
from hfprobe.tasks.evaluate.result import EvalResult
from hfprobe.tasks.export.result import Parity


@dataclass(frozen=True)
class Latency:
    """Percentiles over the steps, in milliseconds per batch."""

    p50: float
    p95: float

    def __mul__(self, factor: int) -> Latency:
        return Latency(factor * self.p50, factor * self.p95)


@dataclass(frozen=True)
class Throughput:
    """Images/s over the rounds."""

    median: float
    min: float
    max: float


@dataclass(frozen=True)
class Batch:
    """One batch size; `n`: number of timed steps."""

    n: int
    latency_ms: Latency
    throughput: Throughput


@dataclass(frozen=True)
class Shares:
    """Of one kind of operator in the time and in the allocated memory, in [0, 1]."""

    time: float
    memory: float


@dataclass(frozen=True)
class Operator:
    """One operator with its share in [0, 1] and its calls per step."""

    operator: str
    share: float
    calls: float


@dataclass(frozen=True)
class Operators:
    """Kind of operator -> shares; the operators themselves, those with the largest share first."""

    kinds: dict[str, Shares]
    by_time: list[Operator]
    by_memory: list[Operator]


@dataclass(frozen=True)
class Answers:
    """Of `images` predicted labels, `differing` are others in bfloat16 than in float32.

    Attributes:
        of: images of the validation split, or of random noise.
        accuracy: in bfloat16 minus that in float32; None on noise.
    """

    images: int
    differing: int
    of: Literal["validation", "noise"]
    accuracy: Difference | None


@dataclass(frozen=True)
class Bfloat16:
    """A model in bfloat16, on its own batch size.

    Attributes:
        speedup: throughput relative to float32.
        best: the faster precision that gives the same answers.
    """

    batch: Batch
    speedup: float
    answers: Answers
    best: Literal["bf16", "fp32"]


@dataclass(frozen=True)
class ExportedCost:
    """A file of the export of an evaluated model, whose answers to the same images were counted before it was written.

    Attributes:
        accuracy, interval: on these images, with the exact 95 % interval.
        differing: images of these `n` that get another answer than in torch.
        throughput: images/s in batches of `Cost.batch_size`.
    """

    accuracy: float
    interval: tuple[float, float]
    differing: int
    n: int
    throughput: float
    single_latency_ms: Latency | None
    disk_bytes: int


@dataclass(frozen=True)
class Cost:
    """The inference cost of an evaluated model, in its `best` precision; memory in float32.

    Attributes:
        operators: kind -> shares; empty for an exported file, of which they and the memory are not measured.
        exported: runtime -> file of its export; empty if there is none, or if its answers to the evaluated images are
            not known.
    """

    batch_size: int
    precision: Literal["bfloat16", "float32", "int8"]
    answers: Answers | None
    passes: int
    throughput: float
    latency_ms: Latency
    single_latency_ms: Latency | None
    n: int
    operators: dict[str, Shares]
    macs: int
    peak_memory_bytes: int | None
    disk_bytes: int
    input: list[int]
    exported: dict[str, ExportedCost] = field(default_factory=dict)


@dataclass(frozen=True)
class Exported:
    """An ONNX file of a model in onnxruntime, with the same threads.

    Attributes:
        batches: batch size -> cost.
        parity: how its answers differ from those of the model, as `hfprobe export` found it.
        split: of the images that were answered; `images_fingerprint`: of these images.
    """

    disk_bytes: int
    batches: dict[int, Batch]
    parity: Parity
    split: str
    images_fingerprint: str


@dataclass(frozen=True)
class ProfiledModel:
    """One model.

    Attributes:
        folder: name of its folder, the revision of a model in the hub folder.
        run: how it was trained, from its config.
        macs: multiply-accumulates per image.
        own_batch_size: one of `batches`, for which memory, operators and bfloat16 were measured.
        peak_memory_bytes: None if the system does not report it.
        batches: batch size -> cost in float32.
        bf16: None on a device without native bfloat16 support.
        exported: name of an ONNX file -> its cost; empty without an export.
    """

    folder: str
    run: dict[str, Any]
    network: Network
    trainable_parameters: int
    macs: int
    disk_bytes: int
    own_batch_size: int
    peak_memory_bytes: int | None
    batches: dict[int, Batch]
    bf16: Bfloat16 | None
    operators: Operators
    exported: dict[str, Exported] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.own_batch_size not in self.batches:
            raise ValueError(f"'batches' of {self.folder} lacks {self.own_batch_size}, its 'own_batch_size'")

    @property
    def batches_of_all(self) -> dict[str, dict[int, Batch]]:
        """Name of an ONNX file, or empty for the model in torch -> batch size -> cost in float32 or int8."""
        return {"": self.batches} | {name: file.batches for name, file in self.exported.items()}

    def is_of(self, result: EvalResult) -> bool:
        """Whether it has the weights of an evaluated model: the same revision of the same run."""
        return (self.folder, self.run) == (result.provenance.model_revision, result.provenance.run)

    def cost_of(self, result: EvalResult) -> Cost:
        """The inference cost of an evaluation of the same network.

        Only for the very model that was profiled it may be in bfloat16, because the answers of that model were compared
        in both precisions.
        """
        passes = 2 if result.provenance.test_time_augmentation else 1
        if result.provenance.runtime != "torch":
            return self._cost_of_file(self.exported[RUNTIME_FILES[result.provenance.runtime]], result, passes=passes)
        bf16 = self.bf16 if self.bf16 and self.bf16.best == "bf16" and self.is_of(result) else None
        own, single = bf16.batch if bf16 else self.batches[self.own_batch_size], self.batches.get(1)
        return Cost(
            batch_size=self.own_batch_size,
            precision="bfloat16" if bf16 else "float32",
            answers=bf16.answers if bf16 else None,
            passes=passes,
            throughput=own.throughput.median / passes,
            latency_ms=own.latency_ms * passes,
            single_latency_ms=single.latency_ms * passes if single else None,
            n=own.n,
            operators=self.operators.kinds,
            macs=passes * self.macs,
            peak_memory_bytes=self.peak_memory_bytes,
            disk_bytes=self.disk_bytes,
            input=self.network.input,
            exported=self._costs_of_files(result),
        )

    def has_runtime_of(self, result: EvalResult) -> bool:
        """Whether the cost of what answered is known: the network in torch, or the file of this very model."""
        runtime = result.provenance.runtime
        return runtime == "torch" or (self.is_of(result) and RUNTIME_FILES[runtime] in self.exported)

    def _cost_of_file(self, file: Exported, result: EvalResult, *, passes: int) -> Cost:
        own, single = file.batches[self.own_batch_size], file.batches.get(1)
        return Cost(
            batch_size=self.own_batch_size,
            precision="int8" if result.provenance.runtime == "int8" else "float32",
            answers=None,
            passes=passes,
            throughput=own.throughput.median / passes,
            latency_ms=own.latency_ms * passes,
            single_latency_ms=single.latency_ms * passes if single else None,
            n=own.n,
            operators={},
            macs=passes * self.macs,
            peak_memory_bytes=None,
            disk_bytes=file.disk_bytes,
            input=self.network.input,
        )

    def _costs_of_files(self, result: EvalResult) -> dict[str, ExportedCost]:
        """Runtime -> file, of the very model and the very images; without mirror images, as the files were compared."""
        told = result.provenance
        if not self.is_of(result) or told.test_time_augmentation:
            return {}
        return {
            runtime: ExportedCost(
                accuracy=file.parity.accuracy,
                interval=exact_interval(round(file.parity.accuracy * file.parity.n), file.parity.n),
                differing=file.parity.differing,
                n=file.parity.n,
                throughput=file.batches[self.own_batch_size].throughput.median,
                single_latency_ms=file.batches[1].latency_ms if 1 in file.batches else None,
                disk_bytes=file.disk_bytes,
            )
            for runtime, name in RUNTIME_FILES.items()
            if (file := self.exported.get(name)) and file.images_fingerprint == told.images_fingerprint
        }


@dataclass(frozen=True)
class Conditions:
    """Where and how costs were measured; `load_average`: before and after."""

    device: str
    memory_of: str
    hardware: Hardware
    versions: dict[str, str]
    load_average: tuple[float, float]
    rounds: int
    warmup_steps: int


@dataclass(frozen=True)
class Profile(RecordFile, Conditions):
    """What profile.json holds; `models`: by name."""

    FILE = "profile.json"
    WHAT = "profile"
    MADE_BY = "profile <model> ..."

    models: dict[str, ProfiledModel]

    @property
    def conditions(self) -> Conditions:
        return Conditions(**{field.name: getattr(self, field.name) for field in fields(Conditions)})

    def find_costs(self, results: dict[str, EvalResult]) -> dict[str, Cost]:
        """The inference cost of each evaluated model, by name: that of the same network, if possible of the same model.

        That of an exported file is always that of the same model.

        Raises:
            InputError: the profile does not contain the network of a model.
        """
        networks = {name: result.provenance.network for name, result in results.items()}
        files = {name: RUNTIME_FILES.get(result.provenance.runtime) for name, result in results.items()}
        profiled = {
            name: sorted(
                (
                    model
                    for model in self.models.values()
                    if model.network == networks[name] and model.has_runtime_of(result)
                ),
                key=lambda model: not model.is_of(result),
            )
            for name, result in results.items()
        }
        if missing := [name for name, found in profiled.items() if not found]:
            measured = [f"{name} ({model.network})" for name, model in self.models.items()]
            lacking = [", ".join(filter(None, (f"{name} ({networks[name]})", files[name]))) for name in missing]
            models = dict.fromkeys(shlex.quote(_name_model(result)) for result in results.values())
            raise InputError(
                f"The profile lacks the network of {', '.join(lacking)}. It has {', '.join(measured)}. Measure the "
                f"models of this comparison together: {command('profile')} {' '.join(models)}"
            )
        return {name: found[0].cost_of(results[name]) for name, found in profiled.items()}


def judge_inference(costs: dict[str, Cost]) -> list[str]:
    """A sentence on the throughput of two models, if these were profiled."""
    if len(costs) != 2:
        return []
    slow, quick = sorted(costs, key=lambda name: costs[name].throughput)
    bf16 = any(cost.precision != "float32" for cost in costs.values())

    def say(name: str) -> str:
        cost = costs[name]
        precision = f" in {cost.precision}" if bf16 else ""
        passes = f" with {cost.passes} forward passes per image (--tta)" if cost.passes > 1 else ""
        return f"{cost.throughput:,.0f} images/s in batches of {cost.batch_size}{precision}{passes}"

    times = costs[quick].throughput / costs[slow].throughput
    return [f"{quick} classifies {say(quick)}, {slow} {say(slow)}: {times:.1f} times the throughput."]


def _name_model(result: EvalResult) -> str:
    """What `hfprobe profile` takes for an evaluated model: its folder, or its name and revision in the hub folder."""
    model, revision = result.provenance.model, result.provenance.model_revision
    return model if "@" in model or Path(model).name == revision else f"{model}@{revision[:12]}"
