"""Folders of images in two classes, and checks of how they were divided."""

from pathlib import PurePath

import numpy as np
import PIL.Image

from helpers.images import load_splits
from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.columns import image_paths
from hfprobe.data.splits.images import load_images

NAMES = ["cat", "dog"]


def draw(number, label):
    """An image whose red channel says its class, and whose green channel is its own."""
    return PIL.Image.new("RGB", (32, 32), (200 * label, number, 0))


def write_images(folder, *, count=10, first=0, names=NAMES, ending="png"):
    """`count` images per class in one folder per class; their numbers start at `first`."""
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            draw(number, label).save(folder / name / f"{number:03}.{ending}")
    return folder


def write_noise(folder, *, sides):
    """Photos of two classes; each has these sides in pixels."""
    generator = np.random.default_rng(0)
    for number, side in enumerate(sides):
        (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (*side, 3)).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(folder / "ab"[number % 2] / f"{number:02}.png")
    return folder


def find(place, **settings):
    """The images of a dataset, without decoding them."""
    return load_images(DataArguments(dataset=str(place), **settings), seed=0)


def labels_of(images, *parts):
    """File name, with the folder above it -> class, of the images of some parts; by default, of all parts."""
    found = {}
    for part in parts or images.parts:
        rows = images.parts[part]
        for path, label in zip(image_paths(rows), rows["label"][:], strict=True):
            found["/".join(PurePath(path).parts[-2:])] = images.class_names[label]
    assert sum(len(images.parts[part]) for part in parts or images.parts) == len(found)
    return found


def load(place, **settings):
    return load_splits(DataArguments(dataset=str(place), **settings), seed=0)


def numbers(part):
    """The numbers of the images of a part, after a check that each has the label of its class."""
    assert (part.images[:, 0, 0, 0] == 200 * part.labels).all()
    return set(part.images[:, 0, 0, 1].tolist())


def check_drawn(splits, *, count):
    """Train, validation and test hold each of `count` images per class once, in shares of 64, 16 and 20 %."""
    parts = [splits.train, splits.validation, splits.test]
    for part, share in zip(parts, (0.64, 0.16, 0.2), strict=True):
        assert np.abs(np.bincount(part.labels) - share * count).max() < 1
        numbers(part)
    images = [tuple(image[0, 0]) for part in parts for image in part.images]
    assert len(images) == len(set(images)) == 2 * count
