"""Small generated images in five classes."""

import datasets
import numpy as np
import PIL.Image

from hfprobe.data.splits.images import load_images
from hfprobe.models.simple_cnn.modeling import IMAGE_SIZE, build_processor

CLASSES = ["airplane", "automobile", "bird", "cat", "dog"]


def draw_images(count: int, *, classes: int, size: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a class-coloured square: (N, size, size, 3) uint8 and (N,) labels that a network learns in seconds."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = generator.integers(0, 96, (count, size, size, 3), dtype=np.uint8)
    colours = np.random.default_rng(7).integers(96, 255, (classes, 3), dtype=np.uint8)
    images[:, size // 4 : -size // 4, size // 4 : -size // 4] = colours[labels][:, None, None]
    return images, labels


def make_dataset(*, train: int = 200, test: int = 60, classes: list[str] = CLASSES, size: int = 32):
    """A DatasetDict like the hub's: columns `img` and `label`."""
    features = datasets.Features(img=datasets.Image(), label=datasets.ClassLabel(names=classes))
    splits = {}
    for seed, (split, count) in enumerate({"train": train, "test": test}.items()):
        images, labels = draw_images(count, classes=len(classes), size=size, seed=seed)
        images = [PIL.Image.fromarray(image) for image in images]
        splits[split] = datasets.Dataset.from_dict({"img": images, "label": labels}, features=features)
    return datasets.DatasetDict(splits)


def load_splits(data, *, seed: int):
    """All three parts as SimpleCNN sees them."""
    processor = build_processor(IMAGE_SIZE)
    return load_images(data, seed=seed).decode("train", "validation", "test", processor=processor)


def make_imbalanced_dataset(**values):
    """`make_dataset` with 80, 40, 20, 20 and 20 training images, and a quarter as many test images."""
    found = make_dataset(train=400, test=100, **values)
    for split, counts in {"train": (80, 40, 20, 20, 20), "test": (20, 10, 5, 5, 5)}.items():
        found[split] = found[split].select(
            [5 * row + label for label, count in enumerate(counts) for row in range(count)]
        )
    return found
