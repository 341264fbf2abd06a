import re

import pytest
import torch

from helpers.images import CLASSES, load_splits
from helpers.models import PROBE
from helpers.runs import small_run
from hfprobe.config.run import make_run
from hfprobe.data.arguments import DEFAULT_DATASET
from hfprobe.data.store import ImageBatches
from hfprobe.models import build_model, find_family
from hfprobe.models.simple_cnn.modeling import CIFAR10_MEAN
from hfprobe.system.errors import InputError
from hfprobe.training.assembly import adapt, build_trainer


def test_principal_filters_are_set_before_training(dataset_folder, tmp_path):
    config = make_run(dataset=str(dataset_folder), output_dir=str(tmp_path), first_filters="principal", use_cpu=True)
    model, processor = build_model("cnn", labels=CLASSES, options=config.model)
    splits = load_splits(config.data, seed=42)
    build_trainer(config=config, model=model, processor=processor, splits=splits)
    filters = model.features[0].weight
    torch.testing.assert_close(filters[27:54], -filters[:27])


def test_images_are_normalised_by_their_own_statistics_unless_they_are_the_default_dataset(dataset_folder, tmp_path):
    means = {}
    for dataset in (str(dataset_folder), DEFAULT_DATASET):
        config = make_run(dataset=str(dataset_folder), output_dir=str(tmp_path), use_cpu=True)
        model, processor = build_model("cnn", labels=config.data.classes, options=config.model)
        splits = load_splits(config.data, seed=42)
        config.data.dataset = dataset
        trainer = build_trainer(config=config, model=model, processor=processor, splits=splits)
        assert trainer.train_dataset.processor is trainer.eval_dataset.processor is processor
        means[dataset] = list(processor.image_mean)
        pixels = ImageBatches(splits.train, processor=processor).__getitems__(range(160))["pixel_values"]
        if dataset != DEFAULT_DATASET:
            torch.testing.assert_close(pixels.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
            torch.testing.assert_close(pixels.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)
    assert means[DEFAULT_DATASET] == CIFAR10_MEAN != means[str(dataset_folder)]


def test_a_pretrained_backbone_keeps_its_statistics(dataset_folder, tmp_path):
    config = make_run(model="vit", dataset=str(dataset_folder), output_dir=str(tmp_path), use_cpu=True, **PROBE)
    model, processor = build_model("vit", labels=config.data.classes, options=config.model)
    images = ImageBatches(load_splits(config.data, seed=42).train, processor=processor)
    adapt(config=config, model=model, images=images)
    assert images.processor.to_dict() == find_family("vit").processor_for(model).to_dict()


def test_a_crop_must_overlap_the_image(dataset_folder, tmp_path):
    with pytest.raises(InputError, match=re.escape("--crop_shift is 32; allowed: 0 to 31.")):
        small_run(dataset_folder, tmp_path, crop_shift=32)
