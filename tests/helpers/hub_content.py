"""Small images and backbone weights for a hub server, and what a test asks after it loads them."""

import io

import datasets
import timm
import torch
from safetensors.torch import save

from helpers.images import make_dataset
from hfprobe.data.arguments import DEFAULT_DATASET, DataArguments
from hfprobe.data.sources import cifar10_mirror
from hfprobe.data.sources.columns import standard_columns
from hfprobe.models.linear_probe.backbones import load_backbone_weights

BACKBONE = "test_vit.r160_in1k"
WEIGHTS = f"timm/{BACKBONE}"
LOG_IN = "Log in with `hf auth login`, or correct the environment variable HF_TOKEN or unset it."


def fill(server):
    """Two datasets and the weights of a backbone."""
    for name in (DEFAULT_DATASET, "someone/images"):
        server.add("datasets", name, parquet_files())
    torch.manual_seed(1)
    weights = timm.create_model(BACKBONE).state_dict()
    server.add("models", WEIGHTS, {"model.safetensors": save(weights), "config.json": b"{}"})


def parquet_files():
    files = {}
    for split, rows in make_dataset(train=40, test=20).items():
        rows.to_parquet(file := io.BytesIO())
        files[f"data/{split}-00000-of-00001.parquet"] = file.getvalue()
    return files


def keep_mirror():
    """The same images as those on the server, as the registry mirror is kept."""
    splits = {
        split: standard_columns(rows, data=DataArguments(dataset="small"))
        for split, rows in make_dataset(train=40, test=20).items()
    }
    datasets.DatasetDict(splits).save_to_disk(cifar10_mirror.cached_folder())


def load_weights():
    backbone = timm.create_model(BACKBONE, num_classes=0)
    return load_backbone_weights(backbone, name=BACKBONE, source="hub")


def logged(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith("hfprobe")]


def go_offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def snapshot_files(hub_dir):
    main = next(hub_dir.glob("models--*/refs/main"))
    snapshot = main.parent.parent / "snapshots" / main.read_text()
    return {file.name: file.read_bytes() for file in snapshot.iterdir()}
