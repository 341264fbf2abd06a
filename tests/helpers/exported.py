"""A model with its export, and clients of the export in processes of their own."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import torch

from helpers.images import CLASSES
from helpers.models import CARD, stamp
from hfprobe.hub.local import push_model
from hfprobe.models import build_model, find_family
from hfprobe.system.files import sha256
from hfprobe.tasks.export import runtime

DOCS = Path(__file__).parents[2] / "docs"


def push(hub_dir, dataset, *, name="cnn", temperature=1.5, thresholds=None, seed=0, **options):
    """The folder of a pushed model whose weights are random; its logits are spread so that answers are no ties."""
    torch.manual_seed(seed)
    family = find_family(name)
    model, processor = build_model(name, labels=CLASSES, options=family.recipe_options(**options))
    head = model.classifier[-1] if name == "cnn" else model.head
    with torch.no_grad():
        head.weight.mul_(3 / head.weight.std() / head.in_features**0.5)
    stamp(model, dataset=str(dataset))
    if temperature is not None:
        model.config.calibration_temperature = temperature
    if thresholds is not None:
        thresholds.stamp(model)
    model.eval()
    return push_model(model=model, processor=processor, hub_dir=hub_dir, name=family.hub_name, card=CARD).path


def find_runtime():
    """The folder of the files of onnxruntime-web, from node_modules or the user's cache. Skips without them."""
    modules = [os.environ.get("NODE_PATH", ""), str(DOCS.parent / "node_modules")]
    places = [Path(path, "onnxruntime-web", "dist") for path in modules if path]
    for place in [*places, Path(datasets.config.HF_DATASETS_CACHE, "hfprobe", runtime.PACKAGE.folder_name)]:
        if all((place / name).is_file() and sha256(place / name) == sum for name, sum in runtime.CHECKSUMS.items()):
            return place
    pytest.skip(f"{runtime.PACKAGE.name} is not here: run hfprobe export --web once, or npm install it")


def snippet(language):
    """The only block in this language of docs/export.md."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", (DOCS / "export.md").read_text(), re.DOTALL)
    return block


def run_snippet(folder):
    """Run the Python block of docs/export.md in a folder, without torch, transformers and hfprobe; what it prints."""
    block = "import sys; sys.modules |= dict.fromkeys(('torch', 'transformers', 'hfprobe'))\n"
    done = subprocess.run(
        [sys.executable, "-c", block + snippet("python")], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def run_in_node(folder):
    """Run the JavaScript block of docs/export.md in a folder; what it prints. Skips without onnxruntime-node."""
    node = shutil.which("node")
    modules = [os.environ.get("NODE_PATH", ""), str(DOCS.parent / "node_modules")]
    place = next((path for path in modules if path and Path(path, "onnxruntime-node").is_dir()), None)
    if node is None or place is None:
        pytest.skip("onnxruntime-node is not installed: npm install onnxruntime-node, or set NODE_PATH")
    environment = os.environ | {"NODE_PATH": place}
    done = subprocess.run(
        [node, "-e", snippet("js")], capture_output=True, text=True, cwd=folder, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
