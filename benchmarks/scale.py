"""Measure the statistics and pages of evaluations with up to 1,000 classes and 50,000 images.

    python benchmarks/scale.py        # ten minutes on one CPU core

The predictions are generated: 57, 69 and 75 % of them are right with 10, 100 and 1,000 classes, and similar classes are
confused more often. Each case runs in a process of its own, with one thread; seconds are those of the CPU. Memory is
the peak of the process (Linux) minus what it held before, the probabilities of one or two models included (4 bytes per
image and class).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL.Image

from hfprobe.models.network import Network
from hfprobe.system import provenance
from hfprobe.tasks.compare.measure import compare
from hfprobe.tasks.compare.page import save_comparison
from hfprobe.tasks.evaluate.page import save_evaluation
from hfprobe.tasks.evaluate.provenance import Provenance
from hfprobe.tasks.evaluate.result import EvalResult

CLASSES, IMAGES = (10, 100, 1000), (5000, 50_000)
SIMILAR = 10  # classes in a group
ROWS_AT_ONCE = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs=3, metavar=("PART", "CLASSES", "IMAGES"), help=argparse.SUPPRESS)
    parser.add_argument(
        "--most_classes", type=int, default=CLASSES[-1], help="leave out cases with more; default: 1000"
    )
    arguments = parser.parse_args()
    if arguments.case:
        part, classes, images = arguments.case
        print(json.dumps(PARTS[part](int(classes), int(images))))
        return
    parts = list(PARTS)
    print("| classes | images | " + " | ".join(parts) + " |\n|" + "---|" * (2 + len(parts)))
    for classes in CLASSES:
        for images in IMAGES:
            if classes <= arguments.most_classes:
                cells = [run_case(part, classes, images) for part in parts]
                print(f"| {classes:,} | {images:,} | " + " | ".join(cells) + " |", flush=True)
    print(
        f"\n{provenance.describe_hardware(provenance.find_hardware())}; load average {os.getloadavg()[0]:.1f}; ", end=""
    )
    print(", ".join(f"{name} {version}" for name, version in provenance.versions().items()))


def run_case(part: str, classes: int, images: int) -> str:
    """The cell of the table."""
    one_core = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, __file__, "--case", part, str(classes), str(images)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=one_core).stdout)
    sizes = "".join(f", {name} {size / 1e6:.1f} MB" for name, size in found["files"].items())
    return f"{found['seconds']:.1f} s, {found['peak'] / 1e6:,.0f} MB{sizes}"


def measure(work: Callable[[], object], *, files: Callable[[], dict[str, int]] = dict) -> dict:
    """Seconds, and bytes of memory beyond those before; `files`: sizes to print beside them."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that from now on
    before, start = memory_bytes("VmRSS"), time.process_time()
    work()
    return {"seconds": time.process_time() - start, "peak": memory_bytes("VmHWM") - before, "files": files()}


def memory_bytes(name: str) -> int:
    """The resident set of this process now (VmRSS) or its peak (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(f"{name}:")[2].split()[0])


def measure_metrics(classes: int, images: int) -> dict:
    """All metrics with intervals of one evaluation."""
    result = draw_evaluation(classes, images)
    return measure(lambda: result.metrics)


def measure_comparison(classes: int, images: int) -> dict:
    """The comparison of two evaluations, without the metrics of each."""
    results = {name: draw_evaluation(classes, images, seed=seed) for seed, name in enumerate(("one", "other"))}
    for result in results.values():
        result.metrics  # noqa: B018
    return measure(lambda: compare(results))


def measure_report(classes: int, images: int) -> dict:
    """Writing the files and the report of an evaluation."""
    result = draw_evaluation(classes, images)
    result.metrics  # noqa: B018
    with tempfile.TemporaryDirectory() as folder:
        return measure(
            lambda: save_evaluation(result, folder), files=lambda: sizes_of(folder, "report.html", "metrics.json")
        )


def measure_comparison_page(classes: int, images: int) -> dict:
    """Writing a comparison of two evaluations."""
    results = {name: draw_evaluation(classes, images, seed=seed) for seed, name in enumerate(("one", "other"))}
    comparison = compare(results)
    with tempfile.TemporaryDirectory() as folder:
        return measure(lambda: save_comparison(comparison, folder), files=lambda: sizes_of(folder, "comparison.html"))


PARTS = {
    "metrics": measure_metrics,
    "comparison": measure_comparison,
    "report": measure_report,
    "page of the comparison": measure_comparison_page,
}


def sizes_of(folder: str, *names: str) -> dict[str, int]:
    return {name: Path(folder, name).stat().st_size for name in names}


def draw_evaluation(classes: int, images: int, *, seed: int = 0) -> EvalResult:
    """An evaluation of a model that does not exist; another seed is another model on the same images."""
    generator = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    probabilities = np.empty((images, classes), dtype=np.float32)
    groups = np.arange(classes) // SIMILAR
    most = np.sqrt(2 * np.log(classes))  # about the largest logit of a wrong class
    for start in range(0, images, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        own = labels[rows]
        logits = generator.standard_normal((len(own), classes), dtype=np.float32)
        logits += (groups == groups[own, None]) * np.float32(0.45 * most)
        logits[np.arange(len(own)), own] += np.float32(0.55 * most + 0.5 - 0.03 * seed)
        np.exp(logits, out=logits)
        probabilities[rows] = logits / logits.sum(axis=1, keepdims=True)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    noise = PIL.Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    noise.save(buffer := BytesIO(), format="PNG")
    return EvalResult(
        class_names=[f"class {number:04}" for number in range(classes)],
        index=np.arange(images),
        labels=labels,
        probabilities=probabilities,
        mistakes=dict.fromkeys(wrong.tolist(), buffer.getvalue()),
        provenance=describe_nothing(f"generated-{seed}", classes, labels),
    )


def describe_nothing(name: str, classes: int, labels: np.ndarray) -> Provenance:
    """The provenance of a generated evaluation."""
    counts = np.bincount(labels, minlength=classes).tolist()
    return Provenance(
        model=name,
        model_revision="",
        run={},
        facts={},
        network=Network(name, input=[3, 32, 32], classes=classes, parameters=0, tensors=""),
        parameters=0,
        trainable_parameters=0,
        dataset="",
        split="test",
        split_changes=None,
        source="generated predictions",
        division="",
        left_out={},
        identical_images=[],
        image_counts={"train": counts, "validation": counts, "test": counts},
        split_fingerprint="",
        images_fingerprint="",
        temperature=None,
        thresholds=None,
        test_time_augmentation=None,
        seconds=0.0,
        versions=provenance.versions(),
        hardware=provenance.find_hardware(),
    )


if __name__ == "__main__":
    main()
