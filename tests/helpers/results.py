"""Evaluations and profiles that no model was needed for."""

import dataclasses

import numpy as np

from hfprobe.system.provenance import Hardware
from hfprobe.tasks.evaluate.result import EvalResult
from hfprobe.tasks.label_efficiency.result import LabelEfficiency, Point, Setting

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63606060000000040001f61738550000"
    "000049454e44ae426082"
)


def make_result(class_names=("cat", "dog", "owl"), count=60, seed=0):
    """Predictions that are right about two times in three."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % len(class_names)
    logits = generator.normal(size=(count, len(class_names)))
    logits[np.arange(count), labels] += 1
    probabilities = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
    index = np.arange(count) * 10
    wrong = index[probabilities.argmax(1) != labels]
    return EvalResult(
        class_names=list(class_names),
        index=index,
        labels=labels,
        probabilities=probabilities,
        mistakes=dict.fromkeys(wrong.tolist(), PNG),
        provenance={
            "model": "simple-cnn",
            "model_revision": "0123abcd",
            "split": "test",
            "source": "a test",
            "split_fingerprint": "f" * 64,
            "versions": {"torch": "2"},
            "hardware": {"cores": 2},
        },
    )


def without_images(result, *, of):
    """The result on those images alone that are not of this class."""
    kept = result.labels != of
    wrong = set(result.index[kept & (result.predictions != result.labels)].tolist())
    return dataclasses.replace(
        result,
        **{name: getattr(result, name)[kept] for name in ("index", "labels", "probabilities")},
        mistakes={key: png for key, png in result.mistakes.items() if key in wrong},
    )


def imbalanced_result(seed=0, answers=None):
    """Of three classes, with 200, 100 and 20 images. `answers`: the class number that every image gets."""
    result = make_result(count=600, seed=seed)
    kept = np.isin(np.arange(600), [*range(0, 600, 3), *range(1, 300, 3), *range(2, 60, 3)])
    values = {name: getattr(result, name)[kept] for name in ("index", "labels", "probabilities")}
    if answers is not None:
        values["probabilities"] = np.eye(3, dtype=np.float32)[np.full(kept.sum(), answers)]
    wrong = values["index"][values["probabilities"].argmax(1) != values["labels"]].tolist()
    return dataclasses.replace(result, mistakes=dict.fromkeys(wrong, PNG), **values)


COUNT = 600


def planted(right, seed=0, count=COUNT):
    """A model that is right about this share of the time, on the same images as every other."""
    result = make_result(count=count)
    generator = np.random.default_rng(seed)
    answers = np.where(generator.random(count) < right, result.labels, (result.labels + 1) % 3)
    probabilities = (0.1 + 0.7 * np.eye(3)[answers]).astype(np.float32)
    image = next(iter(result.mistakes.values()))
    wrong = result.index[answers != result.labels].tolist()
    return dataclasses.replace(result, probabilities=probabilities, mistakes=dict.fromkeys(wrong, image))


def network_of(parameters, *, side=32):
    """A network as an evaluation and a profile record it."""
    return {
        "architecture": "simple-cnn", "input": [3, side, side], "classes": 3, "parameters": parameters, "tensors": "7e",
    }  # fmt: skip


def profile_of(**networks):
    """A profile as scripts/profile_models.py writes it: name -> (parameters, milliseconds for one image)."""

    def batch(size, latency):
        speed = dict.fromkeys(("median", "min", "max"), 1000 * size / latency)
        return {"n": 30, "latency_ms": {"p50": latency, "p95": 1.2 * latency}, "throughput": speed}

    models = {
        name: {
            "folder": name, "run": {}, "network": network_of(parameters), "own_batch_size": 64, "bf16": None,
            "peak_memory_bytes": 100_000_000, "disk_bytes": 4 * parameters, "macs": 40_000_000,
            "batches": {"1": batch(1, latency), "64": batch(64, 40 * latency)},
            "operators": {"kinds": {"convolution": {"time": 0.75, "memory": 0.5}, name: {"time": 0.25, "memory": 0.5}}},
        }
        for name, (parameters, latency) in networks.items()
    }  # fmt: skip
    measured = {"device": "cpu", "memory_of": "resident set", "load_average": [0.1, 0.2], "rounds": 20}
    hardware = {"processor": "something", "cores": 2, "torch_threads": 2}
    versions = {"torch": "2"}
    return {"models": models, **measured, "warmup_steps": 10, "hardware": hardware, "versions": versions}


HARDWARE = Hardware(processor="something", cores=2, torch_threads=2)
VERSIONS = dict.fromkeys(("python", "torch", "transformers", "timm"), "1")


def label_efficiency_of(models, *, class_names=("cat", "dog"), options=None):
    """One point of each model."""
    points = [Point(name, shots=1, seed=1, accuracy=0.5, n=4, seconds=1.0) for name in models]
    setting = Setting(list(class_names), data_fingerprint="f" * 64, options=options or {})
    return LabelEfficiency(setting, points, HARDWARE, VERSIONS)


def saved_results():
    """A result of each kind that commands save, by the name of its file."""
    return {"label_efficiency.json": label_efficiency_of(["cnn"], options={"cnn": {"dropout": 0.2, "crop": None}})}
