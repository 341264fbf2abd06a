"""Datasets of the Hugging Face hub: from the network, or from the cache of the datasets library without it."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import datasets
from datasets import DatasetDict
from datasets.naming import camelcase_to_snakecase
from datasets.packaged_modules.cache.cache import Cache
from huggingface_hub import constants

from hfprobe.hub import client as hub_client
from hfprobe.system.errors import InputError, shorten

logger = logging.getLogger(__name__)

# What datasets says where a configuration has to be chosen, or does not exist.
_CONFIGURATIONS = re.compile(r"(?:available configs|Available): (\[[^\]]*\])")


def load_from_hub(dataset: str, *, config: str | None = None, seconds: float) -> DatasetDict:
    """A dataset of the hub; files that are in the cache already are not downloaded again.

    Args:
        dataset: hub id, `owner/name`.
        config: name of a configuration; None: the default one, or the only one.
        seconds: how long to wait for the first answer of the hub.

    Raises:
        TimeoutError: no answer in time.
        Exception: whatever the client libraries raise; `hfprobe.hub.client.explain` puts it into words.
    """
    from huggingface_hub import HfApi

    # The hub is asked first, because load_dataset retries for 23 seconds before it reports that there is no network.
    info, token = hub_client.ask(
        lambda token: HfApi().dataset_info(dataset, token=token, files_metadata=True), seconds=seconds
    )
    try:
        builder = datasets.load_dataset_builder(dataset, config, token=token)
    except ValueError as error:
        found = _CONFIGURATIONS.search(str(error))
        if found is None:
            raise
        names = ", ".join(re.findall(r"'([^']*)'", found[1]))
        told = "several configurations" if config is None else f"no configuration '{shorten(config)}'"
        raise InputError(
            f"Dataset '{dataset}' has {told}; its configurations: {shorten(names)}. Choose one with --dataset_config."
        ) from error
    if Path(builder.cache_dir).is_dir():
        builder.download_and_prepare()
    else:
        size = builder.info.download_size or sum(file.size or 0 for file in info.siblings or [])
        logger.info("Downloading dataset %s from %s (%.1f MB) ...", dataset, constants.ENDPOINT, size / 1e6)
        with hub_client.progress_bars():
            builder.download_and_prepare()
    return builder.as_dataset()


def cached_configurations(dataset: str) -> list[Path]:
    """The configurations of a hub dataset in the cache of the datasets library, each a folder of versions."""
    owner, _, name = dataset.rpartition("/")
    folder = (f"{owner}___" if owner else "") + camelcase_to_snakecase(name)
    found = (Path(datasets.config.HF_DATASETS_CACHE) / folder).glob("*/*/*/dataset_info.json")
    return sorted({file.parents[2] for file in found})


def load_from_cache(dataset: str, *, config: str | None = None) -> DatasetDict:
    """The newest version in the cache of a hub dataset, without the network.

    Args:
        config: name of a configuration; None: the only one in the cache.
    """
    name = dataset.rpartition("/")[2]
    builder = Cache(repo_id=dataset, dataset_name=name, config_name=config, version="auto", hash="auto")
    builder.download_and_prepare()
    return builder.as_dataset()


def is_offline() -> bool:
    """Whether the environment forbids downloads from the hub."""
    return constants.is_offline_mode() or datasets.config.HF_HUB_OFFLINE  # HF_DATASETS_OFFLINE sets the second alone
