"""Evaluations and profiles that no model was needed for."""

from dataclasses import replace

import numpy as np

from hfprobe.models.network import Network
from hfprobe.statistics.leaks import CleanScore
from hfprobe.statistics.paired import Difference
from hfprobe.system.provenance import Hardware
from hfprobe.tasks.compare.measure import compare
from hfprobe.tasks.decide.result import Candidate, DataLook, Decision, Epoch, Stage
from hfprobe.tasks.decide.verdict import judge, judge_alone, say
from hfprobe.tasks.evaluate.result import EvalResult, Provenance
from hfprobe.tasks.export.result import Parity
from hfprobe.tasks.label_efficiency.result import LabelEfficiency, Point, Setting
from hfprobe.tasks.profile.result import (
    Answers,
    Batch,
    Bfloat16,
    Exported,
    Latency,
    Operator,
    Operators,
    Profile,
    ProfiledModel,
    Shares,
    Throughput,
)

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63606060000000040001f61738550000"
    "000049454e44ae426082"
)

HARDWARE = Hardware(processor="something", cores=2, torch_threads=2)
VERSIONS = dict.fromkeys(("python", "torch", "transformers", "timm"), "1")
PROVENANCE = Provenance(
    model="simple-cnn",
    model_revision="0123abcd",
    run={},
    facts={},
    network=Network("simple-cnn", input=[3, 32, 32], classes=3, parameters=1000, tensors="7e"),
    parameters=1000,
    trainable_parameters=1000,
    dataset="",
    split="test",
    split_changes=None,
    source="a test",
    division="",
    left_out={},
    identical_images=[],
    image_counts={},
    split_fingerprint="f" * 64,
    images_fingerprint="d" * 64,
    temperature=None,
    thresholds=None,
    test_time_augmentation=None,
    seconds=1.0,
    versions=VERSIONS,
    hardware=HARDWARE,
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
        provenance=PROVENANCE,
    )


def with_provenance(result, *, run=None, **values):
    """The result with other values in its provenance; `run`: in addition to those of the run."""
    known = result.provenance
    return replace(result, provenance=replace(known, run=known.run | (run or {}), **values))


def without_images(result, *, of):
    """The result on those images alone that are not of this class."""
    kept = result.labels != of
    wrong = set(result.index[kept & (result.predictions != result.labels)].tolist())
    return replace(
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
    return replace(result, mistakes=dict.fromkeys(wrong, PNG), **values)


COUNT = 600


def planted(right, seed=0, count=COUNT):
    """A model that is right about this share of the time, on the same images as every other."""
    result = make_result(count=count)
    generator = np.random.default_rng(seed)
    answers = np.where(generator.random(count) < right, result.labels, (result.labels + 1) % 3)
    probabilities = (0.1 + 0.7 * np.eye(3)[answers]).astype(np.float32)
    image = next(iter(result.mistakes.values()))
    wrong = result.index[answers != result.labels].tolist()
    return replace(result, probabilities=probabilities, mistakes=dict.fromkeys(wrong, image))


def in_runs(result, *shifts):
    """Runs of one model, in each of which so many more images are wrong than in the result, or fewer; seeds from 42."""
    runs = []
    for number, shift in enumerate(shifts):
        right = result.predictions == result.labels
        changed = np.random.default_rng(number).permutation(np.flatnonzero(right if shift > 0 else ~right))[
            : abs(shift)
        ]
        answers = result.predictions.copy()
        answers[changed] = (result.labels[changed] + (shift > 0)) % len(result.class_names)
        mistakes = dict.fromkeys(result.index[answers != result.labels].tolist(), PNG)
        probabilities = np.eye(len(result.class_names), dtype=np.float32)[answers]
        moved = replace(result, probabilities=probabilities, mistakes=mistakes)
        runs.append(with_provenance(moved, model_revision=f"{number:040d}", run={"seed": 42 + number}))
    return runs


def solved(result):
    """The result as that of a model whose weights were solved in closed form."""
    return with_provenance(result, run={"seconds": 10.0, "epochs": None, "seed": 42})


def network_of(parameters, *, side=32):
    """A network as an evaluation and a profile record it."""
    return Network("simple-cnn", input=[3, side, side], classes=3, parameters=parameters, tensors="7e")


def batch_of(size, latency):
    """A batch that takes so many milliseconds."""
    speed = 1000 * size / latency
    return Batch(n=30, latency_ms=Latency(latency, 1.2 * latency), throughput=Throughput(speed, speed, speed))


def profile_of(**networks):
    """A profile as hfprobe profile writes it: name -> (parameters, milliseconds for one image)."""
    row = Operator("a`b|c", share=0.5, calls=2.0)
    models = {
        name: ProfiledModel(
            folder=name,
            run={},
            network=network_of(parameters),
            trainable_parameters=parameters,
            own_batch_size=64,
            bf16=None,
            peak_memory_bytes=100_000_000,
            disk_bytes=4 * parameters,
            macs=40_000_000,
            batches={1: batch_of(1, latency), 64: batch_of(64, 40 * latency)},
            operators=Operators({"convolution": Shares(0.75, 0.5), name: Shares(0.25, 0.5)}, [row], [row]),
        )
        for name, (parameters, latency) in networks.items()
    }
    return Profile("cpu", "resident set", HARDWARE, VERSIONS, (0.1, 0.2), rounds=20, warmup_steps=10, models=models)


def with_exports(profile, result, **files):
    """A profile of the models of a result with files of their exports; file: (accuracy, milliseconds for one image)."""
    n = len(result.labels)
    exported = {
        f"{name}.onnx": Exported(
            disk_bytes=1_000_000,
            batches={1: batch_of(1, latency), 64: batch_of(64, 40 * latency)},
            parity=Parity(n, 7, 7, 0.1, accuracy, Difference(-0.01, (-0.03, 0.01), 0.5)),
            split="test",
            images_fingerprint=result.provenance.images_fingerprint,
        )
        for name, (accuracy, latency) in files.items()
    }
    models = {
        name: replace(model, folder=result.provenance.model_revision, run=result.provenance.run, exported=exported)
        for name, model in profile.models.items()
    }
    return replace(profile, models=models)


def label_efficiency_of(models, *, class_names=("cat", "dog"), options=None):
    """One point of each model."""
    points = [Point(name, shots=1, seed=1, accuracy=0.5, n=4, seconds=1.0) for name in models]
    setting = Setting(list(class_names), data_fingerprint="f" * 64, options=options or {})
    return LabelEfficiency(setting, points, HARDWARE, VERSIONS)


def decision_of(results, *, profile=None, missing=None, seeds=1):
    """A decision between evaluated models; the first has a history of epochs, and the further seeds."""
    comparison = compare(results, profile=profile) if len(results) > 1 else None
    name, first = next(iter(results.items()))
    judgement = judge(comparison) if comparison else judge_alone(name, first, margin=0.005)
    history = [Epoch(n, 2.0 / n, 1.9 / n, 1 - 0.5 / n) for n in range(1, 21)]
    further = {f"{name} (seed {seed})": first for seed in range(43, 42 + seeds)}
    candidates = {
        other: Candidate(
            family="cnn" if name in other else other,
            seed=int(other[-3:-1]) if other in further else 42,
            name=f"hfprobe/{other}",
            revision="0123abcd" * 5,
            report=f"model{number}-seed42",
            validation_accuracy=0.8,
            train_images=1234,
            epochs=20.0 if name in other else None,
            history=history if name in other else [],
            settings={"model": "cnn", "epochs": 20},
        )
        for number, other in enumerate(results | further)
    }
    return Decision(
        judgement=judgement,
        sentences=say(judgement, comparison, alone=first),
        class_names=first.class_names,
        dataset="photos",
        candidates=candidates,
        compared=list(results),
        stages=[Stage("plan", None, 9.8), Stage(f"train {name}", 61.0, 75.5), Stage("compare", 3.0, 700.0)],
        audit=DataLook(
            sentences=["12 images have a near duplicate.", "5 labels are suspect."],
            leaked=3,
            clean={name: CleanScore(0.5, (0.45, 0.55), 0.01, (-0.01, 0.02)) for name in results},
            pairs=[],
        ),
        budget=900.0,
        gave_up=[f"{name} is trained for 12 epochs instead of 20."],
        ranking=None,
        missing=missing,
        commands=[
            "hfprobe decide photos",
            "hfprobe train --config reports/decision-photos/runs/cnn-seed42/config.yaml",
        ],
        results=results | further,
        comparison=comparison,
    )


def saved_results():
    """A result of each kind that commands save, by the name of its file."""
    profile = profile_of(one=(1000, 1.0), two=(2000, 2.0))
    answers = Answers(images=1000, differing=3, of="validation", accuracy=Difference(0.001, (-0.002, 0.004), 0.5))
    fast = Bfloat16(batch_of(64, 20.0), speedup=2.0, answers=answers, best="bf16")
    profile.models["two"] = replace(profile.models["two"], folder="0123abcd", bf16=fast)
    compared = {
        name: with_provenance(make_result(seed=seed), network=network_of(1000 * (1 + seed)))
        for seed, name in enumerate(("one", "two"))
    }
    return {
        "metrics.json": with_provenance(make_result(), run={"seed": 42}, image_counts={"test": [20, 20, 20]}),
        "comparison.json": compare(compared, profile=profile),
        "decision.json": decision_of(compared, profile=profile),
        "profile.json": profile,
        "label_efficiency.json": label_efficiency_of(["cnn"], options={"cnn": {"dropout": 0.2, "crop": None}}),
    }
