import gc
import os
import signal
from importlib import import_module

# Before any test imports a library that reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes test at once: more threads would wait for each other

import datasets
import numpy as np
import PIL.Image
import pytest

from hfprobe.data.splits import load_images
from hfprobe.models import build_model, find_family
from hfprobe.system.machine import quiet_libraries

quiet_libraries()
import_module("hfprobe.training.assembly")
import_module("hfprobe.training.publish")
gc.freeze()  # Trainer.train collects garbage: what was imported is not looked at again, a second each time
os.environ["TQDM_DISABLE"] = "1"

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
        pictures = [PIL.Image.fromarray(image) for image in images]
        splits[split] = datasets.Dataset.from_dict({"img": pictures, "label": labels}, features=features)
    return datasets.DatasetDict(splits)


def load_splits(data, *, seed: int):
    """All three parts as SimpleCNN sees them."""
    processor = build_model("cnn", labels=["a", "b"], options=find_family("cnn").recipe_options())[1]
    return load_images(data, seed=seed).decode("train", "validation", "test", processor=processor)


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory):
    """A save_to_disk folder of 200 + 60 small pictures in five classes."""
    folder = tmp_path_factory.mktemp("data") / "small"
    make_dataset().save_to_disk(folder)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Decoded images go to a cache of this test session, not to the user's."""
    cache = tmp_path_factory.getbasetemp() / "hfprobe-cache"
    monkeypatch.setattr("hfprobe.data.cache.cache_folder", lambda: cache)


@pytest.fixture(autouse=True)
def own_signals():
    """A script that runs in this process takes Ctrl-C no longer than its test."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def pytest_report_collectionfinish(items):
    """How many wrong or unusual inputs the selected tests try."""
    tests = [item for item in items if item.get_closest_marker("hostile")]
    drawn = [item.obj for item in tests if getattr(item.obj, "is_hypothesis_test", False)]
    examples = sum(test._hypothesis_internal_use_settings.max_examples for test in drawn)
    return f"hostile inputs: {len(tests) - len(drawn)} by table, {examples} by hypothesis" if tests else None
