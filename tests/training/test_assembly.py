import re

import pytest
import torch

from helpers.images import CLASSES, load_splits
from helpers.runs import small_run
from hfprobe.config.run import make_run
from hfprobe.models import build_model
from hfprobe.system.errors import InputError
from hfprobe.training.assembly import build_trainer


def test_principal_filters_are_set_before_training(dataset_folder, tmp_path):
    config = make_run(dataset=str(dataset_folder), output_dir=str(tmp_path), first_filters="principal", use_cpu=True)
    model, processor = build_model("cnn", labels=CLASSES, options=config.model)
    splits = load_splits(config.data, seed=42)
    build_trainer(config=config, model=model, processor=processor, splits=splits)
    filters = model.features[0].weight
    torch.testing.assert_close(filters[27:54], -filters[:27])


def test_a_crop_must_overlap_the_image(dataset_folder, tmp_path):
    with pytest.raises(InputError, match=re.escape("--crop_shift is 32; allowed: 0 to 31.")):
        small_run(dataset_folder, tmp_path, crop_shift=32)
