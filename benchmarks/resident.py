"""Compare an epoch of SimpleCNN with images on the device and on the host, and both with a plain PyTorch loop.

The loop makes its batches on the device, as `--resident device` does, and logs nothing. On a GPU, where a step of this
network takes about a millisecond, its ratio is the share of the time that is spent on training.

python benchmarks/resident.py                                   # five minutes on two CPU cores
python benchmarks/resident.py --images 50000 --recipe fast      # on a GPU
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from side_by_side import describe_machine, describe_ratio, draw_split, make_parser, measure
from train_step import ADAMW, bare_loop, make_trainer

from hfprobe.data.pixels.resident import ResidentBatches
from hfprobe.data.pixels.store import ImageBatches
from hfprobe.system.machine import keep_freed_memory, quiet_libraries, use_every_core

WAYS = ("host", "device")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=int, default=2560)
    parser.add_argument("--recipe", choices=("adamw", "fast"), default="adamw", help="default: adamw, as the bare loop")
    arguments = parser.parse_args()
    quiet_libraries()
    use_every_core()
    keep_freed_memory()
    split = draw_split(arguments.images, seed=0)
    settings: dict[str, Any] = {"recipe": "fast", "num_train_epochs": 1} if arguments.recipe == "fast" else ADAMW
    with tempfile.TemporaryDirectory() as folder:
        trainers = {way: make_trainer(split, folder=f"{folder}/{way}", **settings | {"resident": way}) for way in WAYS}
        device = trainers["device"].args.device
        kinds = tuple(type(trainers[way].train_dataset) for way in WAYS)
        assert kinds == (ImageBatches, ResidentBatches), kinds
        batches = {f"{way} batches": read_batches(trainers[way].train_dataset) for way in WAYS}
        epochs = {f"{way} epoch": synchronised(trainers[way].train, device) for way in WAYS}
        bare = {"bare loop": synchronised(bare_loop(trainers["device"]), device)}
        seconds = measure(batches | epochs | bare, rounds=arguments.rounds)
    print(f"\nSimpleCNN, {arguments.images} images, batches of 128, {arguments.recipe}; {describe_machine()}")
    for kind in ("batches", "epoch"):
        print(f"{kind}, device / host, speed: {describe_ratio(seconds[f'host {kind}'], seconds[f'device {kind}'])}")
    for way in WAYS:
        print(f"{way} / bare loop, speed: {describe_ratio(seconds['bare loop'], seconds[f'{way} epoch'])}")
    rates = ", ".join(f"{way} {arguments.images / np.median(seconds[f'{way} epoch']):,.0f}" for way in WAYS)
    print(f"images/s of the Trainer: {rates}")


def read_batches(dataset: ImageBatches) -> Callable[[], None]:
    """An epoch of batches, as the Trainer's loader asks for them, without a model."""

    def run() -> None:
        loader = torch.utils.data.DataLoader(dataset, batch_size=128, shuffle=True, collate_fn=lambda batch: batch)
        dataset.set_epoch(1)
        for _ in loader:
            pass
        wait_for(getattr(dataset, "device", torch.device("cpu")))

    return run


def synchronised(work: Callable[[], object], device: torch.device) -> Callable[[], None]:
    """The work, to the end of what it asks of the device."""

    def run() -> None:
        work()
        wait_for(device)

    return run


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
