"""Backbone weights in files as training tools write them: the tensors in a file, and those that a model needs."""

from __future__ import annotations

import logging
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hfprobe.models.linear_probe.packages import SMALLEST
from hfprobe.models.loading import describe_difference
from hfprobe.system.errors import InputError, first_line, list_some, shorten

logger = logging.getLogger(__name__)

# Entries of a checkpoint that hold weights; the first that is there is taken. Averaged weights (EMA) come first, as in
# timm, because training tools report the accuracy of those.
ENTRIES = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
# What wrappers and larger models put in front of the names of a backbone's weights; there may be several.
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.")
HALF = (torch.float16, torch.bfloat16)  # every such number is also one in float32


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """The weights in a .safetensors file or in one that `torch.save` wrote; no code in it is run.

    Returns:
        Name -> tensor, and the entry of the checkpoint that held them, '' if the file holds nothing else.

    Raises:
        InputError: the file does not exist, is damaged, or holds other pickled objects; it holds no weights.
    """
    if not os.path.isfile(path):  # False for a name that is too long, for which Path.is_file raises
        raise InputError(f"--backbone_weights '{shorten(path)}' is not a file, nor one of hub, random, pip:{SMALLEST}.")
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path), ""
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors and torch raise many types of errors for a damaged file
        raise InputError(_explain(error, path)) from error
    return _find_weights(content, path)


def _explain(error: Exception, path: Path) -> str:
    """Why a file cannot be loaded, and what to do."""
    if "TorchScript" in str(error):
        found = "a TorchScript program"
    elif isinstance(error, pickle.UnpicklingError):
        # torch names the class in "Unsupported global: GLOBAL argparse.Namespace was not an allowed global by default",
        # or in "Trying to load unsupported GLOBAL builtins.eval whose module builtins is blocked".
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named is None:
            return f"'{path}' is damaged, or no file of torch; nothing in it was run. Download or save it again."
        found = f"a pickled {named[1]}"
    else:
        return f"'{path}' cannot be read: {first_line(error)}. Download it again."
    return (
        f"'{path}' holds {found} beside the weights or in place of them. It was not loaded, because that can run code. "
        "Where the file came from a trusted source, save only its weights: content = torch.load(path, "
        "weights_only=False), then torch.save(content['state_dict'], 'weights.pth') with the entry that holds them, or "
        "torch.save(content.state_dict(), 'weights.pth') for a whole model."
    )


def _find_weights(content: Any, path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """The weights in the content of a file, and the entry that held them."""
    entry = ""
    while isinstance(content, Mapping) and not all(isinstance(value, torch.Tensor) for value in content.values()):
        there = [name for name in ENTRIES if isinstance(content.get(name), Mapping)]
        if not there:
            others = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
            raise InputError(
                f"'{path}' does not hold a state dict of tensors, nor one in an entry {', '.join(ENTRIES)}; other "
                f"entries: {shorten(list_some(others, 5))}. Save only model.state_dict()."
            )
        entry = there[0]
        left = f"; not used: {', '.join(there[1:])}" if there[1:] else ""
        logger.info("Weights of %s: the entry '%s'%s.", path, entry, left)
        content = content[entry]
    if not isinstance(content, Mapping):
        raise InputError(f"'{path}' does not hold a state dict of tensors. Save only model.state_dict().")
    return {str(name): value for name, value in content.items()}, entry


def select_weights(
    weights: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], *, head: set[str], source: str
) -> dict[str, torch.Tensor]:
    """The tensors of a state dict under the names that a model needs, in the model's dtypes.

    Prefixes of wrappers and larger models are removed, half precision becomes float32; the log says both.

    Args:
        wanted: name -> tensor of the same shape and dtype.
        head: names that a classifier would have; they are left out.
        source: what messages call the weights.

    Raises:
        InputError: they do not fit exactly, or they fit below several prefixes.
    """
    below = {
        prefix: {
            name.removeprefix(prefix): value
            for name, value in weights.items()
            if name.startswith(prefix) and name.removeprefix(prefix) not in head
        }
        for prefix in sorted({prefix for name in weights for prefix in _prefixes_of(name)}, key=len)
    }
    half = sorted({str(value.dtype).removeprefix("torch.") for value in weights.values() if value.dtype in HALF})
    for found in below.values():
        for name, value in found.items():
            if value.dtype in HALF and name in wanted and wanted[name].dtype == torch.float32:
                found[name] = value.float()
    fitting = [prefix for prefix, found in below.items() if describe_difference(found, wanted) is None]
    if not fitting:
        nearest = max(below, key=lambda prefix: len(below[prefix].keys() & wanted.keys()), default="")
        where = f" below '{nearest}'" if nearest else ""
        raise InputError(
            f"'{source}' does not match the backbone; {describe_difference(below.get(nearest, {}), wanted)}{where}. "
            "Pass the weights of the model that --backbone names, with the key names of timm."
        )
    if len(fitting) > 1:
        raise InputError(
            f"'{source}' holds weights that match the backbone below several prefixes: "
            f"{', '.join(map(repr, fitting))}. Save only those that you mean, without the prefix."
        )
    (prefix,) = fitting
    if prefix:
        others = sorted(name for name in weights if not name.startswith(prefix))
        left = f"; {len(others):,} other tensors are left out, among them {others[0]}" if others else ""
        logger.info("The weights in %s are those below '%s'%s.", source, prefix, left)
    if half:
        logger.info("The weights in %s are in %s; they are loaded as float32.", source, " and ".join(half))
    return below[prefix]


def _prefixes_of(name: str) -> list[str]:
    """'' and every chain of PREFIXES at the beginning of a name."""
    found = [""]
    while rest := next((prefix for prefix in PREFIXES if name[len(found[-1]) :].startswith(prefix)), ""):
        found.append(found[-1] + rest)
    return found
