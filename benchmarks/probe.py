"""Compare feature extraction with a plain timm loop, and the complete probe with training without a cache.

    python benchmarks/probe.py                          # ViT-Tiny with random weights; the time does not depend on them
    python benchmarks/probe.py --backbone tf_efficientnet_lite0 --images 512

Training without a cache is measured for one epoch per round and multiplied by --epochs, the number of epochs that
`--head sgd --recipe reference` took on all images (docs/results.md). Takes about ten minutes on two CPU cores.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import timm
import torch
from side_by_side import describe_machine, describe_ratio, draw_split, make_parser, measure

from hfprobe.data import cache
from hfprobe.data.pixels.store import ImageBatches, ImageSplit
from hfprobe.data.pixels.transforms import fit_images, normalize
from hfprobe.models import build_model, find_family
from hfprobe.models.linear_probe.features import CPU_BATCH_SIZE, GPU_BATCH_SIZE, extract_features
from hfprobe.models.linear_probe.head import install_head, solve_head
from hfprobe.system.machine import keep_freed_memory, quiet_libraries, use_every_core

REFERENCE = find_family("vit").RECIPES["reference"]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--backbone", default="vit_tiny_patch16_224")
    parser.add_argument(
        "--images",
        type=int,
        default=320,
        help="training images; a quarter as many are used for validation; default: 320",
    )
    parser.add_argument("--epochs", type=int, required=True, help="number of epochs that the reference recipe took")
    arguments = parser.parse_args()
    quiet_libraries()
    use_every_core()
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train, validation = draw_split(arguments.images, seed=0), draw_split(arguments.images // 4, seed=1)
    options = find_family("vit").recipe_options(backbone=arguments.backbone, backbone_weights="random")
    model, processor = build_model("vit", labels=list("abcde"), options=options)
    model.to(device, memory_format=torch.channels_last)
    batch_size = CPU_BATCH_SIZE if device.type == "cpu" else GPU_BATCH_SIZE

    def bare_loop() -> None:
        with torch.inference_mode():
            for first in range(0, len(train), batch_size):
                images = torch.from_numpy(train.images[first : first + batch_size]).permute(0, 3, 1, 2)
                images = normalize(fit_images(images, processor=processor), processor=processor)
                bare(images.to(device)).cpu()

    def extraction() -> None:
        with fresh_cache():
            extract_features(model=model, processor=processor, split=train)

    def whole_probe() -> None:
        with fresh_cache():
            features = [
                extract_features(model=model, processor=processor, split=split) for split in (train, validation)
            ]
            head = solve_head(*features, classes=5)
            install_head(model, head.weight, head.bias)

    def one_epoch_without_a_cache() -> None:
        optimizer = torch.optim.SGD(model.head.parameters(), lr=REFERENCE["learning_rate"], momentum=0.9)
        model.train()
        for batch in in_batches(train, processor, size=REFERENCE["per_device_train_batch_size"], augment={}):
            optimizer.zero_grad()
            model(pixel_values=batch["pixel_values"].to(device), labels=batch["labels"].to(device)).loss.backward()
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            for batch in in_batches(validation, processor, size=REFERENCE["per_device_train_batch_size"]):
                model(pixel_values=batch["pixel_values"].to(device)).logits.cpu()

    bare = timm.create_model(arguments.backbone, pretrained=False, num_classes=0).eval()
    bare.to(device, memory_format=torch.channels_last)
    ways = {
        "bare timm loop": bare_loop,
        "extraction": extraction,
        "whole probe": whole_probe,
        "an epoch without a cache": one_epoch_without_a_cache,
    }
    seconds = measure(ways, rounds=arguments.rounds)
    rate = arguments.images / np.median(seconds["extraction"])
    print(f"\n{arguments.backbone}, {arguments.images} + {arguments.images // 4} images; {describe_machine()}")
    print(f"extraction / bare timm loop, speed: {describe_ratio(seconds['bare timm loop'], seconds['extraction'])}")
    slow = arguments.epochs * seconds["an epoch without a cache"]
    print(
        f"whole probe / {arguments.epochs} epochs without a cache, speed: "
        f"{describe_ratio(slow, seconds['whole probe'])}"
    )
    print(f"images/s in extraction, resizing and writing included: {rate:.0f}")


def in_batches(split: ImageSplit, processor, *, size: int, augment: dict | None = None):
    batches = ImageBatches(split, processor=processor, augment=augment)
    for first in range(0, len(split), size):
        yield batches.__getitems__(list(range(first, min(first + size, len(split)))))


@contextmanager
def fresh_cache() -> Iterator[None]:
    """Use an empty folder as the feature cache, so that every feature is computed."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(cache, "cache_folder", return_value=Path(folder)):
        yield


if __name__ == "__main__":
    main()
