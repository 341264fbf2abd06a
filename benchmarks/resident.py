"""Compare an epoch of SimpleCNN with images on the device and on the host, and both with a plain PyTorch loop.

The loop has the same optimizer and precision, makes its batches on the device, and logs nothing. An epoch of the
Trainer has its start and its end too, which weigh less the more images there are.

python benchmarks/resident.py                                   # ten minutes on two CPU cores
python benchmarks/resident.py --images 50000 --recipe fast --precision bf16      # on a GPU
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from side_by_side import describe_machine, describe_ratio, draw_split, make_parser, measure
from train_step import ADAMW, LABELS, make_trainer

from hfprobe.data.pixels.resident import ResidentBatches
from hfprobe.data.pixels.store import ImageBatches
from hfprobe.models import build_model, find_family
from hfprobe.system.machine import keep_freed_memory, quiet_libraries, use_every_core
from hfprobe.training.optimizers import make_optimizer
from hfprobe.training.trainer import ProbeTrainer

WAYS = ("host", "device")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=int, default=2560)
    parser.add_argument("--recipe", choices=("adamw", "fast"), default="adamw", help="default: adamw")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of Trainer and loop")
    parser.add_argument("--batches", action="store_true", help="measure the batches alone, without a model")
    arguments = parser.parse_args()
    quiet_libraries()
    use_every_core()
    keep_freed_memory()
    split = draw_split(arguments.images, seed=0)
    recipe: dict[str, Any] = {"recipe": "fast", "num_train_epochs": 1} if arguments.recipe == "fast" else ADAMW
    settings = recipe | {"precision": arguments.precision}
    with tempfile.TemporaryDirectory() as folder:
        trainers = {way: make_trainer(split, folder=f"{folder}/{way}", **settings | {"resident": way}) for way in WAYS}
        device = trainers["device"].args.device
        kinds = tuple(type(trainers[way].train_dataset) for way in WAYS)
        assert kinds == (ImageBatches, ResidentBatches), kinds
        batches = {f"{way} batches": read_batches(trainers[way].train_dataset) for way in WAYS}
        epochs = {f"{way} epoch": synchronised(trainers[way].train, device) for way in WAYS}
        bare = {"bare loop": synchronised(plain_loop(trainers["device"]), device)}
        seconds = measure(batches | ({} if arguments.batches else epochs | bare), rounds=arguments.rounds)
    what = f"{arguments.images} images, batches of 128, {arguments.recipe}, {arguments.precision}"
    print(f"\nSimpleCNN, {what}; {describe_machine()}")
    for kind in ("batches",) if arguments.batches else ("batches", "epoch"):
        slow, fast = (seconds[f"{way} {kind}"] for way in WAYS)
        rates = ", ".join(f"{way} {arguments.images / np.median(seconds[f'{way} {kind}']):,.0f}" for way in WAYS)
        print(f"{kind}, device / host, speed: {describe_ratio(slow, fast)}; images/s: {rates}")
    for way in () if arguments.batches else WAYS:
        print(f"{way} / bare loop, speed: {describe_ratio(seconds['bare loop'], seconds[f'{way} epoch'])}")


def plain_loop(trainer: ProbeTrainer) -> Callable[[], None]:
    """The same epoch without a Trainer: batches of the device, optimizer and precision are the same, in a new model."""
    arguments, dataset = trainer.args, trainer.train_dataset
    device, size = arguments.device, arguments.per_device_train_batch_size
    options = find_family("cnn").recipe_options(arguments.recipe)
    model = build_model("cnn", labels=LABELS, options=options)[0].to(device, memory_format=torch.channels_last)
    smoothing, mixed = arguments.label_smoothing_factor, arguments.mixed_precision == "bf16"

    def run() -> None:
        model.train()
        muon = arguments.optimizer == "muon"
        optimizer = make_optimizer("muon", model, arguments) if muon else torch.optim.AdamW(model.parameters(), lr=1e-3)
        order = np.random.default_rng(0).permutation(len(dataset))
        dataset.set_epoch(1)
        for first in range(0, len(order), size):
            batch = dataset.__getitems__(order[first : first + size])
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
                logits = model(pixel_values=batch["pixel_values"]).logits
            loss = torch.nn.functional.cross_entropy(logits.float(), batch["labels"], label_smoothing=smoothing)
            loss.backward()
            optimizer.step()

    return run


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
