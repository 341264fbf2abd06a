import json
import logging
import re

import pytest
import torch

from helpers.images import CLASSES, make_imbalanced_dataset
from helpers.models import PROBE
from helpers.runs import interrupted_run, read_splits, small_run
from hfprobe.data.arguments import DEFAULT_DATASET
from hfprobe.data.pixels.store import ImageBatches
from hfprobe.models import build_model, find_family
from hfprobe.models.simple_cnn.modeling import CIFAR10_MEAN
from hfprobe.settings.files import read_config_file
from hfprobe.settings.run_config import make_run
from hfprobe.system.errors import InputError
from hfprobe.training.assembly import adapt, build_trainer, settle
from hfprobe.training.fit import train
from hfprobe.training.resume import check_output_dir


@pytest.mark.usefixtures("whole_network")
def test_principal_filters_are_set_before_training(dataset_folder, tmp_path):
    config = make_run(dataset=str(dataset_folder), output_dir=str(tmp_path), first_filters="principal", use_cpu=True)
    model, processor = build_model("cnn", labels=CLASSES, options=config.model)
    splits = read_splits(config.data, seed=42)
    config = settle(config, splits)
    build_trainer(config=config, model=model, processor=processor, splits=splits)
    filters = model.features[0].weight
    torch.testing.assert_close(filters[27:54], -filters[:27])


def test_images_are_normalised_by_their_own_statistics_unless_they_are_the_default_dataset(dataset_folder, tmp_path):
    means = {}
    for dataset in (str(dataset_folder), DEFAULT_DATASET):
        config = make_run(dataset=str(dataset_folder), output_dir=str(tmp_path), use_cpu=True)
        model, processor = build_model("cnn", labels=CLASSES, options=config.model)
        splits = read_splits(config.data, seed=42)
        config.data.dataset = dataset
        config = settle(config, splits)
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
    model, processor = build_model("vit", labels=CLASSES, options=config.model)
    images = ImageBatches(read_splits(config.data, seed=42).train, processor=processor)
    adapt(config=config, model=model, images=images)
    assert images.processor.to_dict() == find_family("vit").processor_for(model).to_dict()


def test_a_crop_must_overlap_the_image(dataset_folder, tmp_path):
    with pytest.raises(InputError, match=re.escape("--crop_shift is 32; allowed: 0 to 31.")):
        small_run(dataset_folder, tmp_path, crop_shift=32)


@pytest.fixture(scope="module")
def imbalanced_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "imbalanced"
    make_imbalanced_dataset().save_to_disk(folder)
    return folder


WEIGHTS = {"airplane": 0.45, "automobile": 0.9, "bird": 1.8, "cat": 1.8, "dog": 1.8}  # balanced
LINE = (
    "The classes are imbalanced (validation: 4 to 16 images per class), so macro-F1 instead of accuracy chooses the "
    "best epoch. For another metric, pass --metric_for_best_model."
)


@pytest.mark.slow
def test_macro_f1_chooses_the_best_epoch_of_imbalanced_classes_and_is_recorded(imbalanced_folder, tmp_path, caplog):
    caplog.set_level(logging.INFO, "hfprobe")
    trainer, _ = small_run(imbalanced_folder, tmp_path, num_train_epochs=3, class_weights="balanced")
    assert LINE in caplog.messages
    assert trainer.state.best_metric == max(
        entry["eval_macro_f1"] for entry in trainer.state.log_history if "eval_macro_f1" in entry
    )
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["config"]["training"]["metric_for_best_model"] == "macro_f1"
    assert record["class_weights"] == pytest.approx(WEIGHTS)
    assert record["result"]["images_per_class"] == [16, 8, 4, 4, 4]
    assert record["result"]["baseline"]["answer"] == "airplane"
    assert record["result"]["baseline"]["accuracy"] == 16 / 36
    assert trainer.model.config.run["class_weights"] == pytest.approx(WEIGHTS)
    assert trainer.model.config.run["majority_class"] == "airplane"
    settings = read_config_file(tmp_path / "config.yaml")
    assert settings["metric_for_best_model"] == "macro_f1"
    assert settings["class_weights"] == "balanced"


@pytest.mark.parametrize(
    "values", [{"metric_for_best_model": "accuracy"}, {"eval_strategy": "no", "load_best_model_at_end": False}]
)
def test_a_metric_that_was_passed_or_that_chooses_nothing_is_left_alone(imbalanced_folder, tmp_path, caplog, values):
    caplog.set_level(logging.INFO, "hfprobe")
    config = make_run(dataset=str(imbalanced_folder), output_dir=str(tmp_path), use_cpu=True, **values)
    model, processor = build_model("cnn", labels=CLASSES, options=config.model)
    config = settle(config, read_splits(config.data, seed=42))
    trainer = build_trainer(config=config, model=model, processor=processor, splits=read_splits(config.data, seed=42))
    assert trainer.args.metric_for_best_model == "accuracy"
    assert LINE not in caplog.messages


def test_equal_classes_keep_accuracy(dataset_folder, tmp_path, caplog):
    caplog.set_level(logging.INFO, "hfprobe")
    trainer, _ = small_run(dataset_folder, tmp_path, num_train_epochs=1)
    assert trainer.args.metric_for_best_model == "accuracy"
    assert not [line for line in caplog.messages if "imbalanced" in line]
    assert trainer.class_weights is None
    assert trainer.model.config.run["class_weights"] is None


@pytest.mark.slow
def test_weights_that_are_all_equal_change_the_weights_of_the_network_hardly_and_others_do(dataset_folder, tmp_path):
    plain, equal, other = (
        small_run(dataset_folder, tmp_path / str(number), num_train_epochs=1, **values)[0]
        for number, values in enumerate(
            (
                {},
                {"class_weights": dict.fromkeys(("cat", "dog", "bird", "airplane", "automobile"), 7)},
                {"class_weights": {"cat": 7}},
            )
        )
    )
    for mine, theirs in zip(plain.model.parameters(), equal.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-3, rtol=0)
    first, second = (trainer.model.classifier[-1].bias[3] for trainer in (plain, other))  # cat
    assert second - first > 1e-3


@pytest.mark.slow
def test_a_weighted_run_of_imbalanced_classes_resumes_to_the_bit(imbalanced_folder, tmp_path):
    values = {"num_train_epochs": 3, "class_weights": '{"dog": 3}'}
    whole, expected = small_run(imbalanced_folder, tmp_path / "whole", **values)
    interrupted_run(imbalanced_folder, tmp_path / "parts", **values)
    how = {"per_device_train_batch_size": 40, "use_cpu": True, "disable_tqdm": True, "resume": True}
    check_output_dir(make_run(dataset=str(imbalanced_folder), output_dir=str(tmp_path / "parts"), **values, **how))
    resumed, found = small_run(imbalanced_folder, tmp_path / "parts", resume=True, **values)
    assert found.metrics == expected.metrics
    for mine, theirs in zip(resumed.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(InputError, match=r'--class_weights was {"dog": 3.0}, is none'):
        small_run(imbalanced_folder, tmp_path / "parts", resume=True, num_train_epochs=3)
    with pytest.raises(InputError, match=r"--metric_for_best_model was macro_f1, is accuracy"):
        small_run(imbalanced_folder, tmp_path / "parts", resume=True, metric_for_best_model="accuracy", **values)


@pytest.mark.slow
def test_the_weights_reach_the_exact_head(imbalanced_folder, tmp_path):
    values = {"model": "probe", "backbone": "test_byobnet", "backbone_weights": "random", "disable_tqdm": True}
    heads = []
    for weights in ("none", {"cat": 50.0}):
        config = make_run(
            dataset=str(imbalanced_folder),
            output_dir=str(tmp_path / str(weights)[:3]),
            class_weights=weights,
            use_cpu=True,
            **values,
        )
        torch.manual_seed(0)
        model, processor = build_model("probe", labels=CLASSES, options=config.model)
        splits = read_splits(config.data, seed=42)
        config = settle(config, splits)
        trainer = build_trainer(config=config, model=model, processor=processor, splits=splits)
        train(trainer, config=config, splits=splits)
        logits = torch.from_numpy(trainer.predict(trainer.eval_dataset).predictions)
        heads.append(logits.softmax(-1).mean(0)[3])
        assert trainer.args.metric_for_best_model == "accuracy"  # no epochs, nothing to choose
    assert heads[1] > heads[0]
