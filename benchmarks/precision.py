"""Compare bfloat16 autocast with float32: a training step, an epoch, feature extraction and inference.

    python benchmarks/precision.py                                  # about ten minutes on two CPU cores
    python benchmarks/precision.py --images 128 --backbones vit_tiny_patch16_224

All weights are random: times do not depend on them. On a machine without native bfloat16 support, the table says
so, and its ratios are below 1.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from side_by_side import describe_machine, describe_ratio, draw_split, make_parser, measure
from train_step import LABELS, make_trainer

from hfprobe.data import cache
from hfprobe.data.pixels.store import ImageSplit
from hfprobe.models import build_model, find_family
from hfprobe.models.linear_probe.features import extract_features
from hfprobe.system.machine import keep_freed_memory, quiet_libraries, use_every_core
from hfprobe.system.precision import preferred_precision
from hfprobe.tasks.profile.timing import make_step, noise, synchronize

BATCH_SIZE = 128
Ways = dict[str, Callable[[], object]]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=int, default=1280, help="images of an epoch; default: 1280")
    parser.add_argument("--extracted", type=int, default=128, help="images of an extraction; default: 128")
    parser.add_argument("--backbones", nargs="+", default=["tf_efficientnet_lite0", "vit_tiny_patch16_224"])
    arguments = parser.parse_args()
    quiet_libraries()
    use_every_core()
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    table = {}
    cnn = build_model("cnn", labels=LABELS, options=find_family("cnn").recipe_options())[0].to(device)
    cases = {"SimpleCNN, training step": training_step(cnn), "SimpleCNN, inference": inference(cnn, side=32)}
    with tempfile.TemporaryDirectory() as folder:
        cases["SimpleCNN, epoch of the recipe fast"] = epoch(draw_split(arguments.images, seed=0), folder=folder)
        for backbone in arguments.backbones:
            options = find_family("vit").recipe_options(backbone=backbone, backbone_weights="random")
            probe, processor = build_model("vit", labels=LABELS, options=options)
            probe.to(device, memory_format=torch.channels_last)
            split = draw_split(arguments.extracted, seed=0)
            cases[f"{backbone}, extraction"] = extraction(probe, processor, split)
            cases[f"{backbone}, inference"] = inference(probe, side=processor.crop_size["height"])
        for name, ways in cases.items():
            print(f"\n{name}")
            table[name] = measure(ways, rounds=arguments.rounds)
    precision, reason = preferred_precision(device)
    print(f"\n{describe_machine()}\n--precision auto takes {precision or 'fp32'}: {reason}.")
    print("\n| | float32, s | bfloat16, s | speed, bfloat16 / float32 |\n| --- | --- | --- | --- |")
    for name, seconds in table.items():
        medians = " | ".join(f"{sorted(seconds[key])[len(seconds[key]) // 2]:.3f}" for key in ("fp32", "bf16"))
        print(f"| {name} | {medians} | {describe_ratio(seconds['fp32'], seconds['bf16'])} |")


def training_step(model) -> Ways:
    """Forward and backward pass over a batch, without an optimizer."""
    images = noise(BATCH_SIZE, side=32, device=model.device)
    labels = torch.arange(BATCH_SIZE, device=model.device) % len(LABELS)
    model.to(memory_format=torch.channels_last)

    def run(bf16: bool) -> None:
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16):
            model.train()
            model.zero_grad()
            model(pixel_values=images, labels=labels).loss.backward()
        synchronize(model.device)

    return {"fp32": partial(run, False), "bf16": partial(run, True)}


def inference(model, *, side: int) -> Ways:
    """Forward pass over 32 images in evaluation mode; `make_step` sets the precision itself."""
    images = noise(32, side=side, device=model.device)
    steps = {"fp32": make_step(model, images), "bf16": make_step(model, images, bf16=True)}

    def run(precision: str) -> None:
        model.eval()
        steps[precision]()
        synchronize(model.device)

    return {precision: partial(run, precision) for precision in steps}


def epoch(split: ImageSplit, *, folder: str) -> Ways:
    """An epoch in hfprobe's Trainer with its data path and the Muon optimizer, without evaluations."""

    def run(precision: str) -> None:
        steps = -(-len(split) // BATCH_SIZE)
        values = {"bf16": precision == "bf16", "precision": precision, "max_steps": steps}
        trainer = make_trainer(split, folder=folder, **values, per_device_train_batch_size=BATCH_SIZE)
        trainer.train()

    return {precision: partial(run, precision) for precision in ("fp32", "bf16")}


def extraction(model, processor, split: ImageSplit) -> Ways:
    """Features of all images, resizing and writing included."""

    def run(precision: str) -> None:
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.object(cache, "cache_folder", return_value=Path(folder)),
        ):
            extract_features(model=model, processor=processor, split=split, precision=precision)

    return {precision: partial(run, precision) for precision in ("fp32", "bf16")}


if __name__ == "__main__":
    main()
