"""Names of runs, models and reports: they have the name of the dataset in them, unless it is the default one."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata

from hfprobe.data.arguments import DEFAULT_DATASET
from hfprobe.models.runtimes import Runtime

LONGEST = 40  # characters of the name of a dataset in other names


def name_dataset(dataset: str) -> str:
    """The last part of a folder, a file or a hub id in ASCII letters, digits, "-" and "_"; "" for the default dataset.

    The name of a file loses its ending. If the name would lose letters or digits, or has more than LONGEST characters,
    six digits of its SHA-256 follow, so that different names stay different.
    """
    if dataset == DEFAULT_DATASET:
        return ""
    name = os.path.basename(os.path.abspath(dataset)) if os.path.exists(dataset) else dataset.rpartition("/")[2]
    if os.path.isfile(dataset):
        name = os.path.splitext(name)[0]
    plain = unicodedata.normalize("NFKD", name)
    cleaned = re.sub(r"[^A-Za-z0-9_-]+", "-", re.sub(r"[\u0300-\u036f]", "", plain)).strip("-_")
    lost = sum(map(str.isalnum, plain)) > sum(map(str.isalnum, cleaned))
    if lost or not cleaned or len(cleaned) > LONGEST:
        digits = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:6]
        return f"{cleaned[: LONGEST - 7].rstrip('-_') or 'data'}-{digits}"
    return cleaned


def name_model(name: str, *, dataset: str) -> str:
    """The name of a model in the hub folder, and of a report of it: `simple-cnn`, or `simple-cnn-photos`."""
    return "-".join(filter(None, (name, name_dataset(dataset))))


def name_run(model: str, recipe: str | None, *, dataset: str) -> str:
    """The name of a run without its seed: `cnn-fast`, or `photos-cnn-fast`."""
    return "-".join(filter(None, (name_dataset(dataset), model, recipe)))


def name_report(model: str, *, dataset: str | None, runtime: Runtime = "torch") -> str:
    """The name of a report: that of the model, followed by that of the dataset unless the model's name ends with it.

    Args:
        model: a folder, or a name in the hub folder.
        dataset: that the model is evaluated on, if it is not that of its training run.
        runtime: follows the name, unless it is torch.
    """
    name = model.rstrip("/").split("/")[-1].split("@")[0]
    if dataset is not None:
        other = name_dataset(dataset) or DEFAULT_DATASET.rpartition("/")[2]
        name = name if name.endswith(f"-{other}") else f"{name}-{other}"
    return add_runtime_to(name, runtime)


def add_runtime_to(report: str, runtime: Runtime) -> str:
    """The name of a report, followed by the runtime unless that is torch."""
    return report if runtime == "torch" else f"{report}-{runtime}"
