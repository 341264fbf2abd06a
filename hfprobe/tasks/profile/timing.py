"""What the inference of a model costs: time, memory, multiply-accumulates and operators."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from hfprobe.models import register_models
from hfprobe.models.loading import load_model
from hfprobe.system.errors import CheckFailedError, MachineError
from hfprobe.system.machine import end_with_parent, quiet_libraries
from hfprobe.system.progress import show_progress
from hfprobe.tasks.profile.result import Batch, Latency, Operator, Operators, Shares, Throughput

WARMUP_STEPS = 10  # at most: of a batch that takes seconds, the second step is as fast as the tenth
WARMUP_SECONDS = 3
PROFILED_STEPS = 5
SMALLEST_SHARE = 0.001  # operators with a smaller share are left out of the tables
# Operators that allocate memory on behalf of the operator that calls them.
ALLOCATIONS = {"aten::empty", "aten::empty_like", "aten::empty_strided", "aten::resize_"}
# Kind of operator -> parts of the names of its operators; the first kind that matches counts.
KINDS = {
    "convolution": ("conv",),
    "batch normalisation": ("batch_norm",),
    "layer normalisation": ("layer_norm",),
    "attention": ("attention", "multi_head", "transformer_encoder"),
    "linear": ("linear", "addmm", "matmul", "::mm", "::bmm"),
    "activation": ("relu", "gelu", "silu", "hardtanh", "clamp", "sigmoid", "softmax"),
    "pooling": ("pool", "::mean"),
}


def noise(count: int, *, side: int, device: torch.device) -> torch.Tensor:
    """(count, 3, side, side) float32 in the memory format of real batches, channels last; the cost of inference does
    not depend on the content of the images."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, side, side, generator=generator).to(device, memory_format=torch.channels_last)


def count_macs(model: PreTrainedModel, *, side: int) -> int:
    """Multiply-accumulates per image in convolutions, matrix products and attention (torch's FlopCounterMode / 2).

    Attention runs as matrix products here, which every version of torch counts, instead of as a fused operator.

    Args:
        side: side of the input in pixels.

    Raises:
        CheckFailedError: the model still runs an attention operator that torch's flop counter does not know.
    """
    operators = OperatorNames()
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the fused operators of torch.nn.MultiheadAttention
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.inference_mode(), operators, FlopCounterMode(display=False) as counter:
            model(pixel_values=noise(1, side=side, device=model.device))
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
    counted = {str(operator) for operator in counter.get_flop_counts().get("Global", ())}
    unknown = sorted(name for name in operators.found - counted if any(part in name for part in KINDS["attention"]))
    if unknown:
        raise CheckFailedError(
            f"The multiply-accumulates cannot be counted: torch {torch.__version__} has no formula for {unknown[0]}. "
            "Report this with the name of the model, or try another version of torch."
        )
    return counter.get_total_flops() // 2


class OperatorNames(TorchDispatchMode):
    """Collects in `found` the names, such as `aten.bmm`, of the operators that run inside the context."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.found.add(str(func.overloadpacket))
        return func(*args, **kwargs or {})


def time_in_turn(
    steps: dict[Any, Callable[[], object]], *, rounds: int, seconds: float, device: torch.device
) -> dict[Any, Batch]:
    """Time several steps in turn; each step is timed separately, with the device synchronised before and after it.

    Args:
        steps: (name, batch size, ...) -> a function that runs one batch.
        rounds: number of rounds.
        seconds: duration of each key of `steps` in a round; at least one step.
    """
    keys = list(steps)
    found: dict[Any, list[list[float]]] = {key: [] for key in keys}
    steps_per_round = {}
    with show_progress(total=len(keys) * (rounds + 1), desc="Profiling", unit="turn") as progress:
        for key in keys:
            warm = [_timed(steps[key], device) for _ in range(2)]
            while len(warm) < WARMUP_STEPS and sum(warm) < WARMUP_SECONDS:
                warm.append(_timed(steps[key], device))
            steps_per_round[key] = max(1, round(seconds / statistics.median(warm)))
            progress.update()
        for number in range(rounds):
            start = number % len(keys)
            for key in keys[start:] + keys[:start]:
                found[key].append([_timed(steps[key], device) for _ in range(steps_per_round[key])])
                progress.update()
    return {key: _summarize(found[key], batch_size=key[1]) for key in keys}


def _summarize(rounds: list[list[float]], *, batch_size: int) -> Batch:
    latencies = 1000 * np.concatenate(rounds)
    speeds = [batch_size * len(times) / sum(times) for times in rounds]
    return Batch(
        n=len(latencies),
        latency_ms=Latency(*np.percentile(latencies, [50, 95]).tolist()),
        throughput=Throughput(float(np.median(speeds)), min(speeds), max(speeds)),
    )


def make_step(model: PreTrainedModel, images: torch.Tensor, *, bf16: bool = False) -> Callable[[], torch.Tensor]:
    """A function that runs the model on a batch (B, 3, H, W) once, without gradients; it returns the logits (B, C).

    Args:
        bf16: whether it runs under bfloat16 autocast.
    """

    def step() -> torch.Tensor:
        with torch.inference_mode(), torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=bf16):
            return model(pixel_values=images).logits

    return step


def _timed(step: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    step()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its queued work; nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def profile_operators(step: Callable[[], object], *, trace: Path, device: torch.device) -> Operators:
    """Run torch.profiler over PROFILED_STEPS steps: which operators take the time and the memory.

    Args:
        step: a function that runs one batch and has run before.
        trace: file for the trace in Chrome's format.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # otherwise it logs its start and missing GPUs on stderr
    gpu = device.type == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * gpu
    with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True) as profiler:
        for _ in range(PROFILED_STEPS):
            step()
        synchronize(device)
    profiler.export_chrome_trace(str(trace))
    time_of, memory_of = (f"self_{'device' if gpu else 'cpu'}_{what}" for what in ("time_total", "memory_usage"))
    costs: dict[str, dict[str, np.ndarray]] = {"kinds": {}, "operators": {}}
    for event in profiler.events():
        if not event.name.startswith("aten::"):
            continue  # markers of the profiler, and kernels, whose time is counted for their operator
        owner = event
        while owner.name in ALLOCATIONS and owner.cpu_parent is not None:
            owner = owner.cpu_parent
        # Freed memory counts as negative; only allocations are of interest here.
        cost = np.array([getattr(event, time_of), max(0, getattr(event, memory_of)), event is owner])
        for found, name in ((costs["kinds"], kind_of(event)), (costs["operators"], owner.name)):
            found[name] = found.get(name, 0) + cost
    total = np.maximum(sum(costs["kinds"].values()), 1e-9)
    by_time, by_memory = (
        [
            Operator(name, share=float(cost[at] / total[at]), calls=float(cost[2] / PROFILED_STEPS))
            for name, cost in sorted(costs["operators"].items(), key=lambda item: -item[1][at])
            if cost[at] / total[at] >= SMALLEST_SHARE
        ]
        for at in (0, 1)
    )
    kinds = {
        kind: Shares(*(cost[:2] / total[:2]).tolist())
        for kind, cost in sorted(costs["kinds"].items(), key=lambda item: -item[1][0])
    }
    return Operators(kinds, by_time, by_memory)


def kind_of(event: FunctionEvent | None) -> str:
    """The kind of an operator: that of the outermost of its callers, or of itself, that has one; otherwise "other"."""
    kind = "other"
    while event is not None:
        kind = next((name for name, parts in KINDS.items() if any(part in event.name for part in parts)), kind)
        event = event.cpu_parent
    return kind


def peak_memory(
    folder: Path, model: PreTrainedModel, *, side: int, batch_size: int, device: torch.device
) -> int | None:
    """Peak memory of a model in bytes, weights included; None if the system does not report it.

    On a GPU, the memory of the device. On a CPU, the growth of the resident set of a new process while it loads and
    runs the model; the libraries are not counted.

    Args:
        folder: folder that holds `model`, which the new process loads.
        side: side of the input in pixels.

    Raises:
        MachineError: the process was killed.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        make_step(model.to(device), noise(batch_size, side=side, device=device))()
        peak = torch.cuda.max_memory_allocated() - before
        model.to("cpu")
        return peak
    # Spawned, because a forked process would start with the memory of this one.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=end_with_parent) as pool:
        try:
            # The new process inherits the signal mask: only this process handles Ctrl-C, and it then ends the other.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            growth = pool.submit(_resident_growth, folder, side, batch_size)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            return growth.result()
        except BrokenProcessPool as error:
            raise MachineError(
                f"The process that measured the memory of '{folder}' at batch size {batch_size} was killed, most "
                "likely because it ran out of memory. Free some memory and try again."
            ) from error


def _resident_growth(folder: Path, side: int, batch_size: int) -> int | None:
    quiet_libraries()
    register_models()
    importlib.import_module("timm")  # imported when a probe is built: its modules must not count as the model's memory
    torch.ones(64, 64) @ torch.ones(64, 64)  # starts the thread pool
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the peak
    except OSError:
        return None
    before = _status("VmRSS")
    model, _ = load_model(folder)
    for _ in range(3):
        make_step(model, noise(batch_size, side=side, device=torch.device("cpu")))()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
