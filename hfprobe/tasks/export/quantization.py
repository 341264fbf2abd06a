"""The network in int8: static and dynamic quantization, measured side by side on validation images.

Static quantization fixes the ranges of the activations, from training images; dynamic quantization finds them in every
pass. Which one is faster depends on the network: static for convolutions, dynamic for transformers.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnxruntime import InferenceSession
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from transformers import BaseImageProcessor, PreTrainedModel

from hfprobe.data.pixels.decoded_rows import decode_some
from hfprobe.data.pixels.store import ImageBatches, ImageSplit
from hfprobe.data.splits.images import Images
from hfprobe.models.inference import BATCH_SIZE
from hfprobe.models.onnx_files import open_session
from hfprobe.system.errors import CheckFailedError, InputError
from hfprobe.tasks.export.parity import answer_in_batches, answer_in_torch, compare_answers
from hfprobe.tasks.export.resizing import IR_VERSION
from hfprobe.tasks.export.result import METHODS, Candidate, Export, Method, Quantization, Speed

# Training images that calibrate the ranges, and validation images that choose the method.
CALIBRATING, CHOOSING = 256, 1000
ROUNDS, THROUGHPUT_BATCH = 20, 32
FULL = "fp32"


def quantize(
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    images: Images,
    network: Path,
    *,
    temperature: float,
    max_loss: float,
    work: Path,
) -> tuple[onnx.ModelProto, Quantization]:
    """Quantize a network by both methods and keep the better one, which validation images choose.

    Args:
        images: their training images calibrate.
        network: its file in float32.
        max_loss: see `Quantization`.
        work: folder for temporary files.

    Returns:
        The network in int8, and what was measured.

    Raises:
        InputError: there are no training or validation images.
    """
    for part in ("train", "validation"):
        if not len(images.parts.get(part, [])):
            raise InputError(
                f"--quantize int8 needs {part} images, and '{images.source}' has none. Leave --dataset out, so that "
                "the images of the training run are used, or pass --quantize none."
            )
    calibrating = _draw(images, "train", CALIBRATING, processor)
    files = write_quantized(network, _pixels(calibrating, processor), work)
    choosing = _draw(images, "validation", CHOOSING, processor)
    own = answer_in_torch(model, processor, choosing, temperature=temperature)
    named: dict[str, Path] = {FULL: network} | {str(method): file for method, file in files.items()}
    speeds = measure_speeds(named, _pixels(choosing, processor))
    candidates: dict[Method, Candidate] = {}
    for method in METHODS:
        answers = answer_in_batches(files[method], processor, choosing, temperature=temperature)
        parity = compare_answers(own, answers, choosing.labels, rounding=0)
        candidates[method] = Candidate(parity.difference, speeds[method])
    kept, reason = choose_method(candidates, max_loss=max_loss)
    quantized = onnx.load(files[kept])
    quantized.ir_version = IR_VERSION
    found = Quantization(kept, reason, max_loss, len(calibrating), len(choosing), speeds[FULL], candidates)
    return quantized, found


def write_quantized(network: Path, pixels: np.ndarray, work: Path) -> dict[Method, Path]:
    """Method -> the file of the network quantized by it, in the folder `work`.

    Args:
        pixels: (N, 3, h, w) float32, of images that calibrate.
    """
    files: dict[Method, Path] = {method: work / f"{method}.onnx" for method in METHODS}
    head = find_head(onnx.load(network))
    with _quiet():
        quantize_static(
            network,
            files["static"],
            _Batches(pixels),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=head,
        )
        # It replaces a Gemm by a MatMul of another name before it looks at the names.
        renamed = [f"{name}_MatMul" for name in head]
        quantize_dynamic(network, files["dynamic"], weight_type=QuantType.QUInt8, nodes_to_exclude=head + renamed)
    return files


def find_head(network: onnx.ModelProto) -> list[str]:
    """Names of the nodes after the last layer but one: the pooling and the last linear layer, which stay in float32.

    They take hardly any time, and a head that was solved in closed form is sensitive to rounded features: see
    docs/export.md.
    """
    layers = [at for at, node in enumerate(network.graph.node) if node.op_type in ("Conv", "Gemm", "MatMul")]
    return [node.name for node in network.graph.node[layers[-2] + 1 if len(layers) > 1 else 0 :]]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice that onnxruntime logs on the root logger, to preprocess a graph that is already optimized."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


class _Batches(CalibrationDataReader):
    def __init__(self, pixels: np.ndarray):
        self.batches = iter([pixels[first : first + BATCH_SIZE] for first in range(0, len(pixels), BATCH_SIZE)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"pixel_values": batch}


def _draw(images: Images, part: str, count: int, processor: BaseImageProcessor) -> ImageSplit:
    """At most `count` images of a part, drawn at random with seed 0."""
    rows = images.parts[part]
    positions = np.random.default_rng(0).permutation(len(rows))[:count]
    return decode_some(rows.select(np.sort(positions)), processor=processor)


def _pixels(split: ImageSplit, processor: BaseImageProcessor) -> np.ndarray:
    """(N, 3, h, w) float32: at most CALIBRATING images as the network reads them."""
    positions = range(min(len(split), CALIBRATING))
    return ImageBatches(split, processor=processor).__getitems__(positions)["pixel_values"].contiguous().numpy()


def measure_speeds(files: dict[str, Path], pixels: np.ndarray) -> dict[str, Speed]:
    """Name -> how fast a network is; all of them are timed in turn, in ROUNDS rounds, with the same threads.

    Args:
        pixels: (N, 3, h, w) float32.
    """
    sessions = {name: open_session(file) for name, file in files.items()}
    many = np.resize(pixels, (THROUGHPUT_BATCH, *pixels.shape[1:]))
    seconds: dict[tuple[str, int], list[float]] = {}
    for _ in range(ROUNDS + 1):  # the first one warms up
        for name, session in sessions.items():
            for batch in (many[:1], many):
                seconds.setdefault((name, len(batch)), []).append(_time(session, batch))
    return {
        name: Speed(
            milliseconds=1000 * float(np.median(seconds[name, 1][1:])),
            images_per_second=THROUGHPUT_BATCH / float(np.median(seconds[name, THROUGHPUT_BATCH][1:])),
            bytes=file.stat().st_size,
        )
        for name, file in files.items()
    }


def _time(session: InferenceSession, pixels: np.ndarray) -> float:
    start = time.perf_counter()
    session.run(["logits"], {"pixel_values": pixels})
    return time.perf_counter() - start


def choose_method(candidates: dict[Method, Candidate], *, max_loss: float) -> tuple[Method, str]:
    """The faster method of those that lose at most `max_loss` on validation, else the more accurate one; and why."""
    good = [method for method, one in candidates.items() if -100 * one.difference.value <= max_loss]
    told = "; ".join(
        f"{method} {one.speed.milliseconds:.3g} ms per image and {100 * one.difference.value:+.2f} points"
        for method, one in candidates.items()
    )
    if good:
        kept = min(good, key=lambda method: candidates[method].speed.milliseconds)
        why = "the faster one" if len(good) > 1 else f"the only one that loses at most {max_loss:g} points"
    else:
        kept = max(candidates, key=lambda method: candidates[method].difference.value)
        why = f"the more accurate one, because both lose more than {max_loss:g} points"
    return kept, f"{kept} int8 is kept: {why} on validation ({told})."


def check_loss(export: Export, name: str) -> None:
    """Refuse a file in int8 whose loss of accuracy on test is above the limit, as its interval shows.

    Raises:
        CheckFailedError: it is; the message has the figures.
    """
    assert export.quantization is not None
    parity, limit = export.parity[name], export.quantization.max_loss
    low, high = (100 * bound for bound in parity.difference.interval)
    if -high > limit:
        raise CheckFailedError(
            f"'{name}' loses {-100 * parity.difference.value:.2f} points of accuracy on {parity.n:,} {export.split} "
            f"images (95 % interval {-high:.2f} to {-low:.2f}), {parity.accuracy:.2%} instead of "
            f"{export.accuracy:.2%}; allowed: at most {limit:g}. {export.quantization.reason} "
            "Nothing was written. Pass --quantize none, or a larger --max_loss."
        )
