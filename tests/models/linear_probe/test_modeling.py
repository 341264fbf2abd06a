import json
import math
import re
from functools import partial

import numpy as np
import PIL.Image
import pytest
import timm
import torch
from torchvision.transforms.v2 import functional as tvF
from transformers import AutoModelForImageClassification

from helpers.models import SMALL, build_probe
from hfprobe.data.pixels.transforms import fit_images, normalize
from hfprobe.models import check_processor, family_of
from hfprobe.models.linear_probe import modeling
from hfprobe.models.loading import load_model
from hfprobe.system.errors import InputError


def test_parameter_counts():
    model, _ = build_probe("vit_tiny_patch16_224")
    assert model.num_parameters() == 5_525_381
    assert model.num_parameters(only_trainable=True) == 965


def test_backbone_is_bit_identical_and_in_eval_mode_while_the_head_is_trained():
    model, _ = build_probe()
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    head = model.head.weight.clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1, weight_decay=0.1)
    for _ in range(3):
        model.train()  # as Trainer does at every step
        assert model.head.training
        assert not any(module.training for module in model.backbone.modules())
        optimizer.zero_grad()
        model(torch.randn(4, 3, 64, 64), labels=torch.arange(4)).loss.backward()
        optimizer.step()
    assert all(torch.equal(value, before[key]) for key, value in model.backbone.state_dict().items())
    assert not torch.equal(model.head.weight, head)
    assert model.frozen_sha256() == model.config.backbone_sha256


def test_backbone_dropout_is_disabled_during_training():
    model, _ = build_probe()
    head = model.backbone.head
    head.global_pool = torch.nn.Sequential(head.global_pool, torch.nn.Dropout(0.5))
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(model.train()(images).logits, model.train()(images).logits)
    head.global_pool[1].train()  # as in training mode
    assert not torch.equal(model(images).logits, model(images).logits)


def test_changed_backbone_is_detected():
    model, _ = build_probe()
    family_of(model).check_weights(model)
    next(model.backbone.buffers()).add_(1)
    with pytest.raises(ValueError, match=re.escape("the SHA-256 of the backbone is ")):
        family_of(model).check_weights(model)


# The third has tables that timm computes and does not save; left empty, they are indices out of range.
@pytest.mark.parametrize("backbone", [SMALL, "vit_tiny_patch16_224", "efficientvit_m0"])
def test_round_trip_needs_no_timm_weights_and_stays_frozen(backbone, tmp_path, monkeypatch):
    model, _ = build_probe(backbone)
    model.eval().save_pretrained(tmp_path)
    monkeypatch.setattr(
        "timm.models._builder.load_pretrained", lambda *args, **kwargs: pytest.fail("asked for weights")
    )
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path)
    computed = dict(model.backbone.named_buffers())
    assert all(torch.equal(value, computed[name]) for name, value in loaded.backbone.named_buffers())
    weights = model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())
    # Not to the bit: kernels choose their way by where in memory a tensor begins (seen with efficientvit_m0, 6e-11).
    images = torch.randn(2, 3, 224, 224)
    torch.testing.assert_close(loaded(images).logits, model(images).logits, rtol=1e-4, atol=1e-8)
    assert loaded.frozen_sha256() == model.config.backbone_sha256
    assert {name for name, p in loaded.named_parameters() if p.requires_grad} == {"head.weight", "head.bias"}


def test_features_and_pixels_give_the_same_logits():
    model, _ = build_probe()
    model.eval()
    images = torch.randn(3, 3, 64, 64)
    features = model.extract_features(images)
    assert features.shape == (3, model.config.feature_size)
    assert not features.requires_grad
    assert torch.equal(model(features=features).logits, model(images).logits)
    with pytest.raises(ValueError, match=re.escape("LinearProbe needs pixel_values or features.")):
        model()


def preprocess(image, processor):
    """(H, W, 3) uint8 -> (3, h, w) float32."""
    images = torch.from_numpy(image).permute(2, 0, 1)[None]
    return normalize(fit_images(images, processor=processor), processor=processor)[0]


def photograph(width, height):
    """(H, W, 3) uint8: soft shapes with some noise, as a camera takes them."""
    generator = np.random.default_rng(width + height)
    shapes = generator.integers(0, 256, (height // 40 + 2, width // 40 + 2, 3), dtype=np.uint8)
    soft = PIL.Image.fromarray(shapes).resize((width, height), PIL.Image.Resampling.BICUBIC)
    return (np.asarray(soft) + generator.integers(-10, 11, (height, width, 3))).clip(0, 255).astype(np.uint8)


# Odd remainders on either side are among them: there torchvision and transformers crop one pixel apart.
SHAPES = [(32, 32), (64, 48), (224, 224), (251, 249), (640, 480), (480, 640), (641, 427), (427, 639), (1000, 333)]


@pytest.mark.parametrize(
    "backbone",
    ["vit_tiny_patch16_224", "tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2", SMALL],
)
@pytest.mark.parametrize("size", SHAPES)
def test_preprocessing_equals_the_evaluation_transform_of_timm(backbone, size):
    """To within one grey level, but for a few pixels in a thousand: torch's weights have 16 bits, Pillow's 22."""
    cfg = timm.get_pretrained_cfg(backbone).to_dict()
    transform = timm.data.create_transform(
        **timm.data.resolve_data_config(pretrained_cfg=cfg), is_training=False, normalize=False
    )
    image = photograph(*size)
    expected = transform(PIL.Image.fromarray(image)).int()
    images = torch.from_numpy(image).permute(2, 0, 1)[None]
    difference = (fit_images(images, processor=modeling.build_processor(cfg))[0].int() - expected).abs()
    assert difference.max() <= 2
    assert (difference > 1).float().mean() < 0.002
    assert (difference > 0).float().mean() < 0.02


def test_a_very_tall_image_is_scaled_by_pillow_in_another_order():
    """Pillow 13 scales it vertically first, torch horizontally, and both round in between: up to three grey levels."""
    cfg = timm.get_pretrained_cfg(SMALL).to_dict()
    side = modeling.build_processor(cfg).size.shortest_edge
    image = torch.from_numpy(photograph(333, 1000)).permute(2, 0, 1)[None]
    size = (int(side * 1000 / 333), side)
    resize = partial(tvF.resize, interpolation=tvF.InterpolationMode.BICUBIC, antialias=True)
    pillow = PIL.Image.fromarray(image[0].permute(1, 2, 0).numpy()).resize(size[::-1], PIL.Image.Resampling.BICUBIC)
    expected = torch.from_numpy(np.array(pillow)).permute(2, 0, 1)[None].int()
    across_first = resize(image, list(size)).int()
    down_first = resize(image.transpose(2, 3), list(size[::-1])).transpose(2, 3).int()
    assert (across_first - expected).abs().max() <= 3
    same_order = down_first if int(PIL.__version__.split(".")[0]) >= 13 else across_first
    assert ((same_order - expected).abs() > 0).float().mean() < 0.02


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", SMALL])
def test_normalisation_equals_that_of_timm(backbone):
    model, processor = build_probe(backbone)
    config = timm.data.resolve_data_config(model.backbone.pretrained_cfg)
    image = photograph(64, 48)
    expected = timm.data.create_transform(**config, is_training=False)(PIL.Image.fromarray(image))
    level = 1 / 255 / min(processor.image_std)
    assert (preprocess(image, processor) - expected).abs().max() < 2.1 * level


def test_images_are_squashed_as_in_pretraining():
    cfg = {"input_size": (3, 64, 64), "crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bicubic"}
    cfg |= {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    noise = np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)
    transform = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=cfg), is_training=False)
    found = preprocess(noise, modeling.build_processor(cfg))
    assert (found - transform(PIL.Image.fromarray(noise))).abs().max() < 2.1 / 255 / 0.5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_mean", [0.4914, 0.4822, 0.4465]),
        ("image_std", [0.5, 0.5, 0.5]),
        ("size", {"shortest_edge": 224}),
        ("resample", 0),
        ("do_normalize", False),
    ],
)
def test_preprocessing_that_contradicts_the_weights_is_refused(name, value, tmp_path):
    model, processor = build_probe()
    check_processor(model, processor)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    load_model(tmp_path)
    right = json.loads(processor.to_json_string())[name]
    other = modeling.LinearProbeImageProcessor(**processor.to_dict() | {name: value})
    other.save_pretrained(tmp_path)
    reason = f"The image processor's {name} is {value}; allowed: {right}. "
    with pytest.raises(InputError, match=re.escape(f"{reason}Use the image processor that build_model returns.")):
        check_processor(model, other)
    with pytest.raises(InputError, match=re.escape(f"preprocessor_config.json: {reason}Pass a folder or a name that")):
        load_model(tmp_path)


def test_head_starts_near_zero():
    model, _ = build_probe()
    assert not model.head.bias.any()
    assert model.head.weight.std().item() == pytest.approx(0.01, rel=5 / math.sqrt(model.head.weight.numel()))
