import json
import re
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch
from transformers import AutoModelForImageClassification, pipeline

from helpers.features import blobs
from helpers.images import CLASSES, draw_images
from helpers.models import SMALL, build_probe
from helpers.runs import read_splits
from hfprobe.data.pixels.store import ImageSplit
from hfprobe.models import build_model, find_family
from hfprobe.models.linear_probe.backbones import find_second_pooling
from hfprobe.models.linear_probe.features import FeatureSplit
from hfprobe.models.linear_probe.head import refit_head, solve_head
from hfprobe.models.linear_probe.search import search_heads, select
from hfprobe.models.own_images import load_images_of
from hfprobe.models.passport import Passport
from hfprobe.settings.run_config import make_run
from hfprobe.system.errors import InputError
from hfprobe.tasks.evaluate.measure import evaluate_images
from hfprobe.training import fit
from hfprobe.training.assembly import build_trainer, settle
from hfprobe.training.publish import push_best
from hfprobe.training.record import RunRecord


@pytest.fixture
def images():
    return torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("backbone", "pooling", "by_hand"),
    [
        ("test_vit", "mean", lambda tokens: tokens[:, 1:].mean(1)),  # after the class token, which timm takes
        ("test_vit2", "max", lambda tokens: tokens[:, 1:].amax(1)),  # after a register token
        (SMALL, "max", lambda maps: maps.amax((2, 3))),
        ("test_mambaout", "max", lambda maps: maps.amax((1, 2))),  # (B, H, W, F)
    ],
)
def test_features_are_those_of_timm_and_the_second_pooling_of_the_last_layer(backbone, pooling, by_hand, images):
    model, _ = build_probe(backbone, head_search=True)
    assert model.config.second_pooling == pooling
    features = model.extract_features(images)
    assert features.shape == (2, model.config.feature_size)
    own = model.backbone(images)
    assert torch.equal(features[:, : own.shape[1]], own)
    second = by_hand(model.backbone.forward_features(images))
    torch.testing.assert_close(features[:, own.shape[1] :], second)
    assert not torch.allclose(second[:, :5], own[:, :5])
    for chosen, expected in (("default", own), (pooling, second), ("both", torch.cat([own, second], dim=1))):
        model.choose_features(pooling=chosen, normalize=False)
        torch.testing.assert_close(model.use(features), expected)
        model.choose_features(pooling=chosen, normalize=True)
        torch.testing.assert_close(model.use(features), expected / expected.norm(dim=1, keepdim=True))
        assert model(images).logits.shape == (2, len(CLASSES))


def test_a_mean_of_tokens_is_beside_the_class_token(monkeypatch):
    model, _ = build_probe("test_vit")
    model.backbone.global_pool = "avg"
    monkeypatch.setattr("timm.create_model", lambda *_, **__: model.backbone)
    assert find_second_pooling("test_vit") == ("token", 64)


@pytest.mark.parametrize("backbone", ["crossvit_tiny_240", "pit_ti_224"])
def test_a_backbone_without_a_second_pooling_is_refused(backbone):
    with pytest.raises(
        InputError, match=re.escape(f"--head_search finds no second pooling for the backbone '{backbone}'")
    ):
        find_second_pooling(backbone)


def test_all_poolings_come_from_one_pass_of_the_backbone(monkeypatch):
    model, processor = build_probe(head_search=True)
    calls = []
    whole = model.backbone.forward_features
    monkeypatch.setattr(model.backbone, "forward_features", lambda pixels: calls.append(len(pixels)) or whole(pixels))
    pixels, labels = draw_images(40, classes=5)
    split = ImageSplit(images=pixels, labels=labels, index=np.arange(40))
    inputs = find_family("probe").inputs(model, processor, split, name="images")
    assert sum(calls) == 64  # two full batches of 32
    search_heads(model, inputs.split, inputs.split)
    find_family("probe").inputs(model, processor, split, name="images")
    assert sum(calls) == 64


def wide(count, *, seed, second_noise):
    """Features of two poolings of 256 each, of which the second has its own noise."""
    first, second = (
        blobs(count=count, size=256, classes=5, noise=noise, seed=seed + more)
        for more, noise in ((0, 8), (100, second_noise))
    )
    return FeatureSplit(np.concatenate([first.features, second.features], axis=2), first.labels)


@pytest.mark.parametrize(
    ("second_noise", "pooling"),
    [
        pytest.param(0.5, "max", marks=pytest.mark.slow),
        pytest.param(200, "default", marks=pytest.mark.slow),
        (8, "default + max"),
    ],
)
def test_the_head_with_the_lowest_loss_on_validation_is_kept(second_noise, pooling, caplog):
    model, _ = build_probe(head_search=True)
    train, validation = (wide(count, seed=seed, second_noise=second_noise) for count, seed in ((300, 0), (250, 1)))
    with caplog.at_level("INFO", logger="hfprobe.models.linear_probe.search"):
        found = search_heads(model, train, validation)
    assert found["pooling"] == pooling
    assert model.config.normalize is found["normalize"]
    logits = model(features=torch.from_numpy(validation.features[0])).logits
    labels = torch.from_numpy(validation.labels)
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    for chosen in ("default", "max", "both"):
        for normalize in (False, True):
            model.choose_features(pooling=chosen, normalize=normalize)
            head = solve_head(select(model, train), select(model, validation), classes=5)
            assert loss <= head.validation_loss + 1e-5
    assert 6 < found["heads_tried"] <= 6 * 4  # with each penalty
    assert -0.01 < found["selection_optimism"] < 0.1
    accuracy = (logits.argmax(1) == labels).float().mean()
    assert (
        f"chosen from {found['heads_tried']} heads on 250 validation images: {accuracy:.2%}, of which about "
        f"{100 * found['selection_optimism']:.2f} points are selection (bootstrap)." in caplog.messages[-1]
    )


def test_refit_solves_on_all_images():
    train, validation = blobs(), blobs(count=150, seed=1)
    train = FeatureSplit(np.concatenate([train.features, train.features + 0.1]), train.labels)  # two views
    weights = np.array([1.0, 2.0, 0.5])
    found = refit_head(train, validation, classes=3, penalty=0.01, class_weights=weights)
    together = FeatureSplit(
        np.concatenate([*train.features, validation.features[0]])[None],
        np.concatenate([train.labels, train.labels, validation.labels]),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hfprobe.models.linear_probe.head.PENALTIES", np.array([0.01]))
        expected = solve_head(together, validation, classes=3, class_weights=weights)
    np.testing.assert_allclose(found[0], expected.weight, atol=1e-6)
    np.testing.assert_allclose(found[1] - found[1].mean(), expected.bias - expected.bias.mean(), atol=1e-6)


@pytest.fixture(scope="module")
def searched(dataset_folder, tmp_path_factory):
    """A run with --head_search, a run with --refit too, and the images: (folder, trainer, result) of each."""
    runs = []
    for refit in (False, True):
        folder = tmp_path_factory.mktemp("run")
        config = make_run(
            model="vit", dataset=str(dataset_folder), output_dir=str(folder / "run"), hub_dir=str(folder / "hub"),
            backbone=SMALL, backbone_weights="random", disable_tqdm=True, use_cpu=True, head_search=True, refit=refit,
            max_train_samples=60, max_eval_samples=40,
        )  # fmt: skip
        torch.manual_seed(0)
        model, processor = build_model("vit", labels=CLASSES, options=config.model)
        splits = read_splits(config.data, seed=42)
        config = settle(config, splits)
        trainer = build_trainer(config=config, model=model, processor=processor, splits=splits)
        result = fit.train(trainer, config=config, splits=splits)
        revision = push_best(trainer, config=config, splits=splits, result=result)
        runs.append((folder, trainer, result, revision.path, splits))
    return runs


@pytest.mark.slow
def test_a_run_records_what_was_chosen(searched):
    folder, trainer, result, pushed, _ = searched[0]
    record = RunRecord.find(folder / "run")
    assert record.solution.keys() == {"penalty", "pooling", "normalize", "heads_tried", "selection_optimism"}
    assert record.trainable_parameters == sum(part.numel() for part in trainer.model.head.parameters())
    assert not result.refit
    card = (pushed / "README.md").read_text()
    heads, optimism = record.solution["heads_tried"], record.solution["selection_optimism"]
    assert f"The head is one of {heads}: about {100 * optimism:.2f} points of the accuracy are selection" in card
    assert "train + validation" not in card
    config = json.loads((pushed / "config.json").read_text())
    assert config["run"]["solution"] == record.solution


@pytest.mark.slow
def test_the_chosen_head_answers_the_same_in_transformers_as_in_training(searched):
    _, trainer, _, pushed, splits = searched[0]
    trainer.model.choose_features(pooling="both", normalize=True)  # whatever was chosen
    torch.nn.init.normal_(trainer.model.head.weight)
    trainer.model.save_pretrained(pushed)
    loaded = AutoModelForImageClassification.from_pretrained(pushed)
    assert (loaded.config.pooling, loaded.config.normalize) == ("both", True)
    inputs = trainer.eval_dataset.__getitems__(range(4))
    expected = trainer.model(features=inputs["features"]).logits
    pixels = [PIL.Image.fromarray(image) for image in splits.part("validation").images[:4]]
    processed = trainer.processing_class(pixels, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        torch.testing.assert_close(loaded(processed).logits, expected, rtol=1e-3, atol=1e-3)
    classify = pipeline("image-classification", model=str(pushed), trust_remote_code=True, device="cpu")
    for image, logits in zip(pixels, expected, strict=True):
        scores = {answer["label"]: answer["score"] for answer in classify(image)}
        for label, score in zip(CLASSES, logits.softmax(-1).tolist(), strict=True):
            assert scores[label] == pytest.approx(score, abs=1e-3)


@pytest.mark.slow
def test_a_refitted_run_reports_the_head_before_it(searched):
    (_, _, before, *_), (folder, trainer, after, pushed, _) = searched
    assert after.refit
    assert after.metrics == before.metrics
    train, validation = (select(trainer.model, part.split) for part in (trainer.train_dataset, trainer.eval_dataset))
    penalty = RunRecord.find(folder / "run").solution["penalty"]
    weight, bias = refit_head(train, validation, classes=5, penalty=penalty)
    np.testing.assert_allclose(trainer.model.head.weight.detach(), weight, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(trainer.model.head.bias.detach(), bias, rtol=1e-5, atol=1e-6)
    alone = solve_head(train, validation, classes=5)
    assert not np.allclose(alone.weight, weight, atol=1e-4)
    kept = AutoModelForImageClassification.from_pretrained(folder / "run" / "model")
    assert torch.equal(kept.head.weight, trainer.model.head.weight)
    card = (pushed / "README.md").read_text()
    assert "The numbers are those of the head before it was solved again, on train + validation." in card
    assert "exact solution on train + validation in" in card
    assert RunRecord.find(folder / "run").result == after
    passport = Passport.of(kept)
    assert passport.summary()["refit"] is True


@pytest.mark.slow
def test_a_refitted_model_is_not_evaluated_on_validation(searched, dataset_folder):
    _, trainer, *_ = searched[1]
    how = {"model": trainer.model, "processor": trainer.processing_class, "name": "probe", "revision": "1"}
    images = load_images_of(trainer.model)
    with pytest.raises(
        InputError, match=re.escape("The validation images are among those that this model was solved on")
    ):
        evaluate_images(images=images, split="validation", **how)
    evaluate_images(images=images, split="test", **how)
    passport = Passport.of(trainer.model)
    replace(passport, refit=False).stamp(trainer.model)
    evaluate_images(images=images, split="validation", **how)
