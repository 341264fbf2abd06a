"""A model of another package, registered as an entry point: every command takes it, and no file of hfprobe changes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FAMILY = '''
"""Logistic regression on the pixels of 8 x 8 images."""

from dataclasses import dataclass

from hfprobe.models.base import ModelFamily


@dataclass
class Options:
    def ignored_settings(self):
        return {}


class PixelsFamily(ModelFamily):
    name = hub_name = "pixels"
    Options = Options
    RECIPES = {"fast": {"learning_rate": 1e-2, "per_device_train_batch_size": 20, "num_train_epochs": 3}}

    @property
    def model_class(self):
        from pixels.modeling import Pixels

        return Pixels

    def build(self, *, options, labels):
        names = dict(enumerate(labels))
        config = self.model_class.config_class(id2label=names, label2id={name: key for key, name in names.items()})
        return self.model_class(config), self.processor_for(None)

    def processor_for(self, model):
        from transformers import ViTImageProcessor

        return ViTImageProcessor(size={"height": 8, "width": 8})


FAMILY = PixelsFamily()
'''
MODELING = """
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification, PretrainedConfig
from transformers import PreTrainedModel, ViTImageProcessor
from transformers.modeling_outputs import ImageClassifierOutput


class PixelsConfig(PretrainedConfig):
    model_type = "pixels"


class Pixels(PreTrainedModel):
    config_class = PixelsConfig
    main_input_name = "pixel_values"
    accepts_loss_kwargs = False

    def __init__(self, config):
        super().__init__(config)
        self.head = torch.nn.Linear(3 * 8 * 8, config.num_labels)
        self.post_init()

    def forward(self, pixel_values, labels=None):
        logits = self.head(pixel_values.flatten(1))
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)


AutoConfig.register("pixels", PixelsConfig)
AutoModelForImageClassification.register(PixelsConfig, Pixels)
AutoImageProcessor.register(PixelsConfig, slow_image_processor_class=None, fast_image_processor_class=ViTImageProcessor)
PixelsConfig.register_for_auto_class()
Pixels.register_for_auto_class("AutoModelForImageClassification")
"""

NEXT = "next command\n"
# In one process, because the imports of each command take seconds.
ALL_IN_TURN = f"""
import runpy, sys
scripts, *commands = sys.argv[1:]
for command in commands:
    print({NEXT!r}, end="", flush=True)
    script, *sys.argv[1:] = command.split()
    try:
        runpy.run_path(f"{{scripts}}/{{script}}.py", run_name="__main__")
    except SystemExit as stopped:
        assert not stopped.code, command
"""


@pytest.mark.slow
def test_a_third_model_takes_every_command(dataset_folder, tmp_path):
    added = tmp_path / "site" / "pixels"
    added.mkdir(parents=True)
    (added / "__init__.py").write_text(FAMILY)
    (added / "modeling.py").write_text(MODELING)
    metadata = added.parent / "pixels-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: pixels\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[hfprobe.models]\npixels = pixels:FAMILY\n")
    data = f"--dataset {dataset_folder}"
    commands = {
        f"sanity_check --model pixels {data} --epochs 300 --lr 0.1": "",
        f"train --model pixels {data}": "Validation accuracy",
        "eval --model pixels-small --report_dir a": "",
        "eval --model pixels-small --tta --report_dir b": "",
        "profile_models pixels-small --rounds 5 --batch_sizes 1 --report_dir profile": "pixels",
        "compare a b --profile profile": "images/s",
        f"label_efficiency --models pixels {data} --shots 4 --seeds 1": "| images per class | pixels |",
    }
    done = subprocess.run(
        [sys.executable, "-c", ALL_IN_TURN, ROOT / "scripts", *commands],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{added.parent}:{ROOT}", "HF_DATASETS_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for printed, expected in zip(done.stdout.split(NEXT)[1:], commands.values(), strict=True):
        assert expected in printed
