"""The profile of trained models: what each model is, and what its inference costs."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from hfprobe.data.pixels.transforms import input_size
from hfprobe.models import family_of
from hfprobe.models.loading import load_model
from hfprobe.models.network import describe_network
from hfprobe.models.passport import training_of
from hfprobe.system import provenance
from hfprobe.system.errors import InputError, MachineError, first_line
from hfprobe.system.machine import find_device
from hfprobe.system.precision import preferred_precision
from hfprobe.tasks.profile.exported import find_networks, make_network_steps
from hfprobe.tasks.profile.precisions import COMPARED, choose_precision, compare_answers
from hfprobe.tasks.profile.result import Bfloat16, Profile, ProfiledModel
from hfprobe.tasks.profile.timing import (
    WARMUP_STEPS,
    count_macs,
    make_step,
    noise,
    peak_memory,
    profile_operators,
    time_in_turn,
)


def profile_models(
    folders: dict[str, Path],
    *,
    batch_sizes: list[int],
    rounds: int,
    seconds: float,
    trace_dir: Path,
    only_own: bool = False,
) -> Profile:
    """Measure the forward pass of each model on noise of its input size, in evaluation mode.

    Each (model, batch size) is warmed up by at most WARMUP_STEPS steps. Then all of them are timed in turn, in rounds
    that each start with another one, so that a change in the speed of the machine affects all of them alike.

    The ONNX files of a model that has an export are timed in the same turns.

    Args:
        folders: name of each model in the profile -> its folder.
        batch_sizes: measured for every model, in addition to the own sizes of all (`ModelFamily.profile_batch_size`).
        rounds: number of rounds, which give the spread of the throughput.
        seconds: duration of each (model, batch size) in a round; at least one step.
        only_own: measure each model at `batch_sizes` and at its own size only, not at those of the others.
        trace_dir: existing folder for `trace-<name>.json` of each model, which ui.perfetto.dev opens.

    Raises:
        InputError: a folder does not hold a model.
        MachineError: out of memory for a model at one of the batch sizes.
    """
    device = find_device()
    load_before = os.getloadavg()[0]
    models = {name: load_model(folder) for name, folder in folders.items()}
    exported = {name: find_networks(folder, name=name, device=device) for name, folder in folders.items()}
    own = {name: family_of(model).profile_batch_size for name, (model, _) in models.items()}
    sides = {name: input_size(processor) for name, (_, processor) in models.items()}
    macs = {name: count_macs(model, side=sides[name]) for name, (model, _) in models.items()}
    memory = {
        name: peak_memory(folders[name], model, side=sides[name], batch_size=own[name], device=device)
        for name, (model, _) in models.items()
    }
    try:
        for model, _ in models.values():
            model.to(device)
        steps: dict[Any, Callable[[], Any]] = {}
        precisions = COMPARED if preferred_precision(device)[0] != "fp32" else ("fp32",)
        for name, (model, _) in models.items():
            sizes = sorted({*batch_sizes, *([own[name]] if only_own else own.values())})
            batches = {size: noise(size, side=sides[name], device=device) for size in sizes}
            for size, images in batches.items():
                for precision in precisions if size == own[name] else ("fp32",):
                    steps[name, size, precision] = make_step(model, images, bf16=precision == "bf16")
            for file in exported[name].files:
                steps |= {(name, size, file.name): step for size, step in make_network_steps(file, batches).items()}
        measured = time_in_turn(steps, rounds=rounds, seconds=seconds, device=device)
    except RuntimeError as error:
        if "memory" not in str(error):  # on a CPU, torch has no error class for out of memory
            raise
        raise MachineError(
            f"Not enough memory for these batches: {first_line(error)}. Pass smaller --batch_sizes."
        ) from error
    described = {}
    for name, (model, processor) in models.items():
        bf16 = None
        if "bf16" in precisions:
            batch = measured[name, own[name], "bf16"]
            speedup = batch.throughput.median / measured[name, own[name], "fp32"].throughput.median
            answers = compare_answers(model, processor, name=name)
            bf16 = Bfloat16(batch, speedup, answers, best=choose_precision(speedup, answers))
        trace = trace_dir / f"trace-{name.replace('/', '-')}.json"
        described[name] = ProfiledModel(
            folder=folders[name].name,
            run=training_of(model),
            network=describe_network(model, side=sides[name]),
            trainable_parameters=model.num_parameters(only_trainable=True),
            macs=macs[name],
            disk_bytes=sum(file.stat().st_size for file in folders[name].glob("*.safetensors")),
            own_batch_size=own[name],
            peak_memory_bytes=memory[name],
            batches={key[1]: batch for key, batch in measured.items() if (key[0], key[2]) == (name, "fp32")},
            bf16=bf16,
            exported=exported[name].describe(
                {
                    file.name: {
                        key[1]: batch for key, batch in measured.items() if (key[0], key[2]) == (name, file.name)
                    }
                    for file in exported[name].files
                }
            ),
            operators=profile_operators(steps[name, own[name], "fp32"], trace=trace, device=device),
        )
    return Profile(
        models=described,
        device=device.type,
        memory_of="device" if device.type == "cuda" else "resident set",
        hardware=provenance.find_hardware(),
        versions=provenance.versions()
        | ({"onnxruntime": metadata.version("onnxruntime")} if any(found.files for found in exported.values()) else {}),
        load_average=(round(load_before, 2), round(os.getloadavg()[0], 2)),
        rounds=rounds,
        warmup_steps=WARMUP_STEPS,
    )


def name_models(arguments: list[str], folders: list[Path]) -> dict[str, Path]:
    """A name for each model folder: the argument as typed, shortened to the model's name if the names stay distinct.

    Args:
        arguments: models as typed on the command line, such as `hfprobe/simple-cnn@0123abc`.
        folders: the folder of each argument.

    Raises:
        InputError: two arguments name the same folder.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError("A model is named twice. Pass each model once.")
    short = [argument.rstrip("/").removeprefix("hfprobe/").split("@")[0] for argument in arguments]
    return dict(zip(short if len(set(short)) == len(short) else arguments, folders, strict=True))
