"""Which backbones can be had on this machine: on the hub, in its cache, and in installed packages."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache

from hfprobe.hub import client as hub_client
from hfprobe.models.linear_probe.backbones import ask_hub, find_cached
from hfprobe.models.linear_probe.packages import PACKAGES, install_command, is_installed
from hfprobe.system.errors import InputError, shorten

logger = logging.getLogger(__name__)

# What --backbone auto takes where its weights can be had: the default of --backbone.
PREFERRED = "vit_tiny_patch16_224"


@cache  # one line, however many runs ask
def choose_backbone() -> tuple[str, str]:
    """What `--backbone auto` takes: ViT-Tiny if the cache or the hub has its weights, else the best installed package.

    Returns:
        The values of `--backbone` and `--backbone_weights`. The log names them.

    Raises:
        InputError: there are no weights.
    """
    reason = _why_not_on_hub(PREFERRED)
    packages = _list_packages()
    if reason is not None and not packages:
        raise InputError(_say_missing("--backbone", reason))
    name, source = packages[0] if reason is not None else (PREFERRED, "hub")
    because = f" ({PREFERRED} cannot be downloaded: {reason})" if reason else ""
    logger.info("--backbone auto takes %s, --backbone_weights %s%s.", name, source, because)
    return name, source


def list_variants(names: Sequence[str]) -> list[tuple[str, str]]:
    """Backbones and the sources of their weights, which a decision chooses between.

    Args:
        names: `auto`: ViT-Tiny if the cache or the hub has its weights, the installed packages of ImageNet weights, and
            other models of timm in the cache of the hub; NAME=WEIGHTS: this source; NAME: an installed package, else
            the hub.

    Raises:
        InputError: a backbone is named twice; `auto` finds no weights.
    """
    found: list[tuple[str, str]] = []
    packages = _list_packages()
    for each in names:
        if each == "auto":
            reason = _why_not_on_hub(PREFERRED)
            available = [(PREFERRED, "hub")] * (reason is None) + packages + _list_cached()
            if not available:
                raise InputError(_say_missing("--backbones", str(reason)))
            found += [one for one in available if one not in found]
            continue
        name, _, source = each.partition("=")
        source = source or dict(packages).get(name, "hub")
        if (name, source) in found:
            raise InputError(f"--backbones names {shorten(name)} twice. Pass each backbone once.")
        found.append((name, source))
    return found


def _say_missing(flag: str, reason: str) -> str:
    best, *others = PACKAGES.values()
    return (
        f"{flag} auto finds no weights: {PREFERRED} cannot be downloaded ({reason}), and no package of "
        f"{', '.join([best, *others])} is installed. Install them: {install_command(best)}"
    )


def _list_packages() -> list[tuple[str, str]]:
    """Backbone and source of each installed package of weights, the most accurate first."""
    return [(name, f"pip:{package}") for name, package in PACKAGES.items() if is_installed(package)]


def _list_cached() -> list[tuple[str, str]]:
    """The models of timm, PREFERRED excepted, whose weights are in the cache of the hub client."""
    import timm
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        repositories = sorted(found.repo_id for found in scan_cache_dir().repos if found.repo_type == "model")
    except CacheNotFound:
        return []
    names = set(timm.list_pretrained())
    preferred = timm.create_model(PREFERRED, pretrained=False).pretrained_cfg["hf_hub_id"]
    return [
        (repository.removeprefix("timm/"), "hub")
        for repository in repositories
        if repository != preferred and repository.removeprefix("timm/") in names and find_cached(repository) is not None
    ]


def _why_not_on_hub(name: str) -> str | None:
    """Why neither the cache nor the hub has the weights of a backbone; None if one of them has."""
    import timm

    repository: str = timm.create_model(name, pretrained=False).pretrained_cfg["hf_hub_id"]
    if find_cached(repository) is not None:
        return None
    try:
        return None if ask_hub(repository) is not None else f"the hub has no weights file of '{repository}'"
    except Exception as error:  # see _find_on_hub
        failure = hub_client.explain(error, what=f"model '{repository}'")
        if failure is None:
            raise
        return failure.reason
