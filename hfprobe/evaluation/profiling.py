"""Throughput, latency, memory, multiply-accumulates and operators of trained models, measured in turn."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from hfprobe.data.transforms import input_size
from hfprobe.evaluation.comparison import PROFILE_FILE
from hfprobe.models import family_of, register_models
from hfprobe.models.loading import load_model
from hfprobe.system import provenance
from hfprobe.system.errors import CheckFailedError, InputError, MachineError, first_line
from hfprobe.system.files import write_json
from hfprobe.system.machine import end_with_parent, quiet_libraries
from hfprobe.system.progress import show_progress

WARMUP_STEPS = 10
PROFILED_STEPS = 5
SMALLEST_SHARE_NAMED = 0.001
# What asks for memory on behalf of the operator around it.
ALLOCATIONS = {"aten::empty", "aten::empty_like", "aten::empty_strided", "aten::resize_"}
# Parts of operator names -> what a reader calls them; the first that fits counts.
KINDS = {
    "convolution": ("conv",),
    "batch normalisation": ("batch_norm",),
    "layer normalisation": ("layer_norm",),
    "attention": ("attention", "multi_head", "transformer_encoder"),
    "linear": ("linear", "addmm", "matmul", "::mm", "::bmm"),
    "activation": ("relu", "gelu", "silu", "hardtanh", "clamp", "sigmoid", "softmax"),
    "pooling": ("pool", "::mean"),
}


def profile_models(
    folders: dict[str, Path], *, batch_sizes: list[int], rounds: int, seconds: float, trace_dir: Path
) -> dict[str, Any]:
    """Measure the forward pass of each model on noise of its input size, in evaluation mode.

    Every (model, batch size) is warmed up by ten steps; then all of them run in turn, round after round in turning
    order, so that a machine's drift hits them alike. Each step is timed by itself, the device synchronised.

    Args:
        folders: model folders by the name they are to have.
        batch_sizes: for every model, beside each one's own (`ModelFamily.profile_batch_size`).
        rounds: for the spread of the throughput.
        seconds: of each (model, batch size) in a round; one step at least.
        trace_dir: existing folder for `trace-<name>.json` of each model (ui.perfetto.dev opens it).

    Returns:
        JSON-able: `models`, by name; `device`, `hardware`, `versions`, `load_average` before and after, `rounds`,
        `warmup_steps`. Latencies are milliseconds a batch, throughputs images/s, memory bytes.

    Raises:
        InputError: a folder without a model.
        MachineError: not enough memory for a model at its batch size.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    load_before = os.getloadavg()[0]
    models = {name: load_model(folder) for name, folder in folders.items()}
    own = {name: family_of(model).profile_batch_size for name, (model, _) in models.items()}
    described = {}
    for name, (model, processor) in models.items():
        side = input_size(processor)
        described[name] = {
            "folder": folders[name].name,
            "run": getattr(model.config, "run", {}),
            "backbone": family_of(model).describe(model).get("backbone"),
            "parameters": model.num_parameters(),
            "trainable_parameters": model.num_parameters(only_trainable=True),
            "macs": count_macs(model, side=side),
            "disk_bytes": sum(file.stat().st_size for file in folders[name].glob("*.safetensors")),
            "input": [3, side, side],
            "own_batch_size": own[name],
            "peak_memory_bytes": peak_memory(folders[name], model, side=side, batch_size=own[name], device=device),
        }
    try:
        for model, _ in models.values():
            model.to(device)
        steps = {
            (name, size): _stepper(model, noise(size, side=described[name]["input"][1], device=device))
            for name, (model, _) in models.items()
            for size in sorted({*batch_sizes, *own.values()})
        }
        measured = time_in_turn(steps, rounds=rounds, seconds=seconds, device=device)
    except RuntimeError as error:
        if "memory" not in str(error):  # torch has no class of its own for it on a CPU
            raise
        raise MachineError(
            f"Not enough memory for these batches: {first_line(error)}. Give smaller --batch_sizes."
        ) from error
    for name in models:
        described[name]["batches"] = {str(size): measured[name, size] for of, size in steps if of == name}
        trace = trace_dir / f"trace-{name.replace('/', '-')}.json"
        described[name]["operators"] = profile_operators(steps[name, own[name]], trace=trace, device=device)
    return {
        "models": described,
        "device": device.type,
        "memory_of": "device" if device.type == "cuda" else "resident set",
        "hardware": provenance.hardware(),
        "versions": provenance.versions(),
        "load_average": [round(load_before, 2), round(os.getloadavg()[0], 2)],
        "rounds": rounds,
        "warmup_steps": WARMUP_STEPS,
    }


def save_profile(profile: dict[str, Any], folder: Path) -> Path:
    """Write profile.json; its path."""
    write_json(folder / PROFILE_FILE, profile)
    return folder / PROFILE_FILE


def noise(count: int, *, side: int, device: torch.device) -> torch.Tensor:
    """(count, 3, side, side) float32, channels last as batches come: what is in the pictures does not matter."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, side, side, generator=generator).to(device, memory_format=torch.channels_last)


def count_macs(model: PreTrainedModel, *, side: int) -> int:
    """Multiply-accumulates of one image in convolutions, matrix products and attention (torch's flop counter / 2).

    Attention is run as matrix products, which every version of torch counts, and not by a fused operator.

    Raises:
        CheckFailedError: the model runs an attention operator all the same that torch's flop counter does not know.
    """
    operators = OperatorNames()
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # torch.nn.MultiheadAttention's fused operators
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
    """Collects the names of the operators that run inside the context, such as `aten.bmm`, in `found`."""

    def __init__(self):
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found.add(str(func.overloadpacket))
        return func(*args, **kwargs or {})


def time_in_turn(
    steps: dict[Any, Any], *, rounds: int, seconds: float, device: torch.device
) -> dict[Any, dict[str, Any]]:
    """Time steps in turn.

    Args:
        steps: (name, batch size) -> a call that runs one batch.

    Returns:
        For each: `n` steps, `latency_ms` with p50 and p95 over them, `throughput` in images/s as the median, the
        smallest and the largest of the rounds.
    """
    keys = list(steps)
    found: dict[Any, list[list[float]]] = {key: [] for key in keys}
    a_round = {}
    with show_progress(total=len(keys) * (rounds + 1), desc="Profiling", unit="turn") as progress:
        for key in keys:
            warm = [_timed(steps[key], device) for _ in range(WARMUP_STEPS)]
            a_round[key] = max(1, round(seconds / statistics.median(warm)))
            progress.update()
        for number in range(rounds):
            start = number % len(keys)
            for key in keys[start:] + keys[:start]:
                found[key].append([_timed(steps[key], device) for _ in range(a_round[key])])
                progress.update()
    return {key: _summarize(found[key], batch_size=key[1]) for key in keys}


def _summarize(rounds: list[list[float]], *, batch_size: int) -> dict[str, Any]:
    latencies = 1000 * np.concatenate(rounds)
    speeds = [batch_size * len(times) / sum(times) for times in rounds]
    return {
        "n": len(latencies),
        "latency_ms": {"p50": float(np.percentile(latencies, 50)), "p95": float(np.percentile(latencies, 95))},
        "throughput": {"median": float(np.median(speeds)), "min": min(speeds), "max": max(speeds)},
    }


def _stepper(model: PreTrainedModel, images: torch.Tensor):
    def step() -> None:
        with torch.inference_mode():
            model(pixel_values=images)

    return step


def _timed(step, device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    step()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait for what a GPU still has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def profile_operators(step, *, trace: Path, device: torch.device) -> dict[str, Any]:
    """torch.profiler over a few steps: which operators take the time and the memory.

    Returns:
        `kinds`: kind -> shares of time and of the memory that was asked for; `by_time` and `by_memory`: operators with
        their share and calls a step, the largest first.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it tells of its start and of missing GPUs on stderr
    gpu = device.type == "cuda"
    for _ in range(WARMUP_STEPS):
        step()
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
            continue  # markers of the profiler, and kernels, whose time their operator has
        asker = event
        while asker.name in ALLOCATIONS and asker.cpu_parent is not None:
            asker = asker.cpu_parent
        # Freed memory counts as negative; what an operator asks for is the question.
        cost = np.array([getattr(event, time_of), max(0, getattr(event, memory_of)), event is asker])
        for found, name in ((costs["kinds"], kind_of(event)), (costs["operators"], asker.name)):
            found[name] = found.get(name, 0) + cost
    whole = np.maximum(sum(costs["kinds"].values()), 1e-9)
    return {
        "kinds": {
            kind: {"time": float(cost[0] / whole[0]), "memory": float(cost[1] / whole[1])}
            for kind, cost in sorted(costs["kinds"].items(), key=lambda item: -item[1][0])
        },
        **{
            f"by_{what}": [
                {"operator": name, "share": float(cost[at] / whole[at]), "calls": float(cost[2] / PROFILED_STEPS)}
                for name, cost in sorted(costs["operators"].items(), key=lambda item: -item[1][at])
                if cost[at] / whole[at] >= SMALLEST_SHARE_NAMED
            ]
            for at, what in enumerate(("time", "memory"))
        },
    }


def kind_of(event) -> str:
    """What an operator belongs to: the outermost operator around it that has a kind, itself included."""
    kind = "other"
    while event is not None:
        kind = next((name for name, parts in KINDS.items() if any(part in event.name for part in parts)), kind)
        event = event.cpu_parent
    return kind


def peak_memory(
    folder: Path, model: PreTrainedModel, *, side: int, batch_size: int, device: torch.device
) -> int | None:
    """Bytes that a model takes at its peak, weights included; None where the system does not say.

    On a GPU the device's memory; else what the resident set of a new process grows by while it loads the model and
    runs it, the libraries not counted.

    Raises:
        MachineError: the process was killed.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        _stepper(model.to(device), noise(batch_size, side=side, device=device))()
        peak = torch.cuda.max_memory_allocated() - before
        model.to("cpu")
        return peak
    # Spawned, because a forked child would begin with this process's memory.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=end_with_parent) as pool:
        try:
            # The child inherits the mask: Ctrl-C is for this process, which ends the child.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            growth = pool.submit(_resident_growth, folder, side, batch_size)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            return growth.result()
        except BrokenProcessPool as error:
            raise MachineError(
                f"The process that measured the memory of '{folder}' at batch size {batch_size} was killed, most "
                "likely because the memory ran out. Free some memory."
            ) from error


def _resident_growth(folder: Path, side: int, batch_size: int) -> int | None:
    quiet_libraries()
    register_models()
    importlib.import_module("timm")  # a probe imports it when it is built: its modules are not the model's memory
    torch.ones(64, 64) @ torch.ones(64, 64)  # the thread pool
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    except OSError:
        return None
    before = _status("VmRSS")
    model, _ = load_model(folder)
    for _ in range(3):
        _stepper(model, noise(batch_size, side=side, device=torch.device("cpu")))()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def name_models(arguments: list[str], folders: list[Path]) -> dict[str, Path]:
    """A name for each model folder: as typed on the command line, without `hfprobe/` and revision where that tells them
    apart.

    Raises:
        InputError: a model named twice.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError("A model is named twice. Name each once.")
    short = [argument.rstrip("/").removeprefix("hfprobe/").split("@")[0] for argument in arguments]
    return dict(zip(short if len(set(short)) == len(short) else arguments, folders, strict=True))
