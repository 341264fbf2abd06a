import json
import os
import re
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from helpers.images import draw_images, load_splits
from hfprobe.cli.run_flags import parse_run
from hfprobe.config.run import make_run
from hfprobe.data import cache
from hfprobe.data.store import ImageSplit
from hfprobe.models import build_model, find_family
from hfprobe.models.linear_probe import features
from hfprobe.models.linear_probe.features import FeatureBatches, FeatureSplit, extract_features
from hfprobe.models.linear_probe.head import PENALTIES, Head, install_head, minimise_cross_entropy, solve_head
from hfprobe.models.loading import load_model
from hfprobe.system.errors import InputError, MachineError
from hfprobe.training import assembly
from hfprobe.training.assembly import build_trainer
from hfprobe.training.run import train

COUNT = 50


@pytest.fixture
def probe(tmp_path, monkeypatch):
    """A small random probe whose backbone calls are counted, with a feature cache of its own."""
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(features, "CPU_BATCH_SIZE", 16)
    torch.manual_seed(0)
    options = find_family("vit").recipe_options(backbone="resnet10t", backbone_weights="random")
    model, processor = build_model("vit", labels=list("abcde"), options=options)
    model.calls = 0

    def count(*args):
        model.calls += 1

    model.backbone.register_forward_hook(count)
    return model, processor


@pytest.fixture(scope="module")
def split():
    images, labels = draw_images(COUNT, classes=5)
    return ImageSplit(images=images, labels=labels, index=np.arange(COUNT) * 2)


def batches(views=1):
    return -(-COUNT // 16) * views


@pytest.mark.parametrize("views", [1, 2, 3])
def test_backbone_is_called_once_per_batch_and_view(probe, split, views):
    model, processor = probe
    first = extract_features(model=model, processor=processor, split=split, views=range(views))
    assert model.calls == batches(views)
    assert first.features.shape == (views, COUNT, 512)
    again = extract_features(model=model, processor=processor, split=split, views=range(views))
    assert model.calls == batches(views)
    np.testing.assert_array_equal(again.features, first.features)
    # Fewer views are part of more.
    extract_features(model=model, processor=processor, split=split)
    assert model.calls == batches(views)


def test_features_equal_the_output_of_the_backbone(probe, split):
    model, processor = probe
    found = extract_features(model=model, processor=processor, split=split, views=range(2)).features
    pixels = processor(list(torch.from_numpy(split.images).permute(0, 3, 1, 2)), return_tensors="pt")["pixel_values"]
    for view, images in enumerate((pixels, pixels.flip(3))):
        np.testing.assert_allclose(found[view], model.extract_features(images), atol=1e-4)


@pytest.mark.parametrize("part", ["weights", "preprocessing", "images", "rows", "view", "dtype", "timm", "torch"])
def test_change_of_any_part_of_the_cache_key_is_a_cache_miss(probe, split, part, monkeypatch):
    model, processor = probe

    def key(view=0, of=split):
        return features.cache_key(model=model, processor=processor, split=of, view=view, seed=0)

    before = key()
    assert key() == before
    if part == "weights":
        next(model.backbone.parameters()).data.add_(1e-3)
        after = key()
    elif part == "preprocessing":
        processor.image_mean = [0.1, 0.2, 0.3]
        after = key()
    elif part == "images":
        changed = split.images.copy()
        changed[7, 0, 0, 0] ^= 1
        after = key(of=ImageSplit(images=changed, labels=split.labels, index=split.index))
    elif part == "rows":
        after = key(of=ImageSplit(images=split.images, labels=split.labels, index=split.index + 1))
    elif part == "view":
        after = key(view=1)
    elif part == "dtype":
        model.head.double()
        model.backbone.double()
        after = key()
    else:
        monkeypatch.setattr(features, "versions", lambda: {"timm": "1", "torch": "1"} | {part: "2"})
        other = key()
        monkeypatch.setattr(features, "versions", lambda: {"timm": "1", "torch": "1"})
        before, after = key(), other
    assert after != before


def test_seed_changes_random_views_only(probe, split):
    model, processor = probe

    def key(view, seed):
        return features.cache_key(model=model, processor=processor, split=split, view=view, seed=seed)

    assert [key(view, 0) == key(view, 1) for view in (0, 1, 2)] == [True, True, False]


def test_interrupted_extraction_continues_where_it_stopped(probe, split):
    model, processor = probe
    expected = extract_features(model=model, processor=processor, split=split).features.copy()
    for path in (cache.cache_folder() / "features").iterdir():
        path.unlink()
    model.calls = 0
    whole = model.extract_features

    def stop_after_two(pixels):
        if model.calls == 2:
            raise KeyboardInterrupt
        return whole(pixels)

    model.extract_features = stop_after_two
    with pytest.raises(KeyboardInterrupt):
        extract_features(model=model, processor=processor, split=split)
    model.extract_features = whole
    found = extract_features(model=model, processor=processor, split=split).features
    assert model.calls == batches()  # two before, the others after
    np.testing.assert_array_equal(found, expected)


def test_full_disk_is_reported_before_any_image_is_computed_and_the_next_call_continues(probe, split, monkeypatch):
    model, processor = probe

    def full(descriptor, start, size):
        assert size == 128 + 4 * len(split) * model.config.feature_size  # all that will be written
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full, raising=False)
        with pytest.raises(MachineError, match=r"No space left on device\. Free some space, or set HF_HOME"):
            extract_features(model=model, processor=processor, split=split)
    assert model.calls == 0
    assert list((cache.cache_folder() / "features").iterdir()) == []
    extract_features(model=model, processor=processor, split=split)
    assert model.calls == batches()


@pytest.mark.parametrize("damage", ["cut", "changed", "no sums"])
def test_damaged_cache_is_computed_again(probe, split, damage):
    model, processor = probe
    expected = extract_features(model=model, processor=processor, split=split).features.copy()
    (kept,) = (cache.cache_folder() / "features").glob("*.npy")
    content = bytearray(kept.read_bytes())
    if damage == "cut":
        kept.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        content[-5] ^= 1
        kept.write_bytes(content)
    else:
        kept.with_suffix(".json").unlink()
    found = extract_features(model=model, processor=processor, split=split).features
    assert model.calls == 2 * batches()
    np.testing.assert_array_equal(found, expected)


def blobs(count=400, size=20, classes=3, seed=0, noise=2):
    """Overlapping Gaussian classes, with a feature that never changes and one on another scale."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = np.random.default_rng(9).normal(size=(classes, size))
    values = (centres[labels] + noise * generator.normal(size=(count, size))).astype(np.float32)
    values[:, 0] = 3
    values[:, 1] *= 100
    return FeatureSplit(features=values[None], labels=labels)


@pytest.mark.parametrize("penalty", [1e-1, 1e-3])
def test_solution_equals_that_of_scikit_learn(penalty):
    data = blobs()
    values = data.features[0, :, 2:].astype(np.float64)  # without the constant, which only the biases tell apart
    expected = LogisticRegression(C=1 / (penalty * len(values)), tol=1e-10, max_iter=10_000).fit(values, data.labels)
    found = minimise_cross_entropy(
        torch.from_numpy(values), torch.from_numpy(data.labels), penalty=penalty, start=torch.zeros(3, 19).double()
    )
    np.testing.assert_allclose(found[:, :-1], expected.coef_, atol=1e-4)
    # The penalty leaves the biases alone, so they are fixed up to a common constant.
    bias = found[:, -1].numpy()
    np.testing.assert_allclose(bias - bias.mean(), expected.intercept_ - expected.intercept_.mean(), atol=1e-3)


def test_standardisation_is_folded_into_the_linear_layer():
    data, held_out = blobs(), blobs(seed=1)
    head = solve_head(data, held_out, classes=3)
    mean, scale = data.features[0].astype(np.float64).mean(0), data.features[0].astype(np.float64).std(0)
    scale[scale < 1e-12] = 1
    standardised = torch.from_numpy((data.features[0].astype(np.float64) - mean) / scale)
    solution = minimise_cross_entropy(
        standardised, torch.from_numpy(data.labels), penalty=head.penalty, start=torch.zeros(3, 21).double()
    )
    expected = standardised @ solution[:, :-1].T + solution[:, -1]
    found = data.features[0] @ head.weight.T + head.bias
    difference = found - expected.numpy()
    np.testing.assert_allclose(difference - difference.mean(1, keepdims=True), 0, atol=1e-3)


def test_chosen_penalty_is_the_best_on_validation():
    data, held_out = blobs(count=60), blobs(count=300, seed=1)
    head = solve_head(data, held_out, classes=3)
    for penalty in PENALTIES:
        values = data.features[0].astype(np.float64)
        mean, scale = values.mean(0), values.std(0)
        scale[scale == 0] = 1
        solution = minimise_cross_entropy(
            torch.from_numpy((values - mean) / scale),
            torch.from_numpy(data.labels),
            penalty=penalty,
            start=torch.zeros(3, 21).double(),
        )
        logits = torch.from_numpy((held_out.features[0] - mean) / scale) @ solution[:, :-1].T + solution[:, -1]
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(held_out.labels)).item()
        assert head.validation_loss <= loss + 1e-6


def run_probe(dataset_folder, folder, **values):
    config = make_run(
        model="vit", dataset=str(dataset_folder), output_dir=str(folder), backbone="resnet10t",
        backbone_weights="random", disable_tqdm=True, use_cpu=True, **values,
    )  # fmt: skip
    torch.manual_seed(0)
    model, processor = build_model("vit", labels=config.data.classes, options=config.model)
    splits = load_splits(config.data, seed=42)
    trainer = build_trainer(config=config, model=model, processor=processor, splits=splits)
    return trainer, train(trainer, config=config, splits=splits)


def test_a_run_records_the_frozen_backbone(dataset_folder, tmp_path):
    trainer, result = run_probe(dataset_folder, tmp_path)
    assert result.metrics["accuracy"] > 0.9
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["backbone_sha256"] == trainer.model.frozen_sha256()
    assert record["backbone_weights"] == "random features, not pretrained"
    # The solved head is in the run folder, with the temperature that validation gave.
    model, _ = load_model(tmp_path / "model")
    assert torch.equal(model.head.weight, trainer.model.head.weight)
    assert model.config.calibration_temperature == trainer.model.config.calibration_temperature > 0


def test_run_logs_that_the_temperature_stays_at_one(dataset_folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("hfprobe.training.run.fit_temperature", lambda **_: 1.0)
    with caplog.at_level("INFO", logger="hfprobe.training.run"):
        trainer, _ = run_probe(dataset_folder, tmp_path)
    assert trainer.model.config.calibration_temperature == 1
    assert "The calibration temperature stays at 1: the validation images determine no other." in caplog.messages


def test_extraction_time_is_kept_in_the_cache(probe, split):
    model, processor = probe
    extract = partial(extract_features, model=model, processor=processor, split=split, views=range(2))
    made, kept = extract().seconds, extract().seconds
    assert made == kept > 0


def test_exact_and_sgd_heads_agree_on_the_same_features(dataset_folder, tmp_path, monkeypatch):
    data = [blobs(count=count, size=512, classes=5, noise=2.5, seed=count) for count in (6000, 5000)]
    for split in data:
        split.features[..., 1] /= 100  # SGD alone minds the scale
        split.features[..., 40:] = 0  # few enough for both to find the same optimum
    monkeypatch.setattr(assembly, "make_inputs", lambda **_: tuple(FeatureBatches(split) for split in data))
    _, exact = run_probe(dataset_folder, tmp_path / "exact")
    _, sgd = run_probe(dataset_folder, tmp_path / "sgd", head="sgd", recipe="reference", num_train_epochs=10)
    assert 0.8 < exact.metrics["accuracy"] < 0.99
    assert abs(exact.metrics["accuracy"] - sgd.metrics["accuracy"]) <= 0.005


def test_without_the_cache_every_step_runs_the_backbone(dataset_folder, tmp_path):
    trainer, result = run_probe(
        dataset_folder, tmp_path, head="sgd", feature_cache="off", num_train_epochs=1, per_device_train_batch_size=40,
        max_train_samples=40, max_eval_samples=20,
    )  # fmt: skip
    assert "pixel_values" in trainer.train_dataset[0]
    assert result.n_validation == 20
    assert trainer.model.frozen_sha256() == trainer.model.config.backbone_sha256


def test_install_head_copies_the_weights(probe):
    model, _ = probe
    head = Head(weight=np.ones((5, 512)), bias=np.arange(5.0), penalty=1.0, validation_loss=0.0)
    install_head(model, head)
    assert torch.equal(model.head.weight, torch.ones(5, 512))
    assert model.head.bias.tolist() == [0, 1, 2, 3, 4]


def test_flags_of_the_probe_are_checked():
    with pytest.raises(InputError, match=re.escape("Unknown argument '--backbon'. Did you mean --backbone?")):
        parse_run(["--model", "vit", "--backbon", "x"])
