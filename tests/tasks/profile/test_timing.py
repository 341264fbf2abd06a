import contextlib
import re
from types import SimpleNamespace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from hfprobe.models import build_model, find_family
from hfprobe.system.errors import CheckFailedError
from hfprobe.tasks.profile import timing as measurements
from hfprobe.tasks.profile.timing import count_macs, kind_of, time_in_turn

CPU = torch.device("cpu")


def vit_macs(*, patch, width, depth):
    """Multiply-accumulates of a ViT at 224 x 224 with a head for two labels."""
    patches = (224 // patch) ** 2
    tokens = patches + 1
    block = tokens * (3 + 1 + 4 + 4) * width**2 + 2 * tokens**2 * width
    return patches * 3 * patch**2 * width + depth * block + width * 2


TINY = ("vit_tiny_patch16_224", vit_macs(patch=16, width=192, depth=12))
SMALL = ("vit_small_patch32_224", vit_macs(patch=32, width=384, depth=12))
# No attention: eight blocks, each with a network over the 49 patches and one over the 512 channels.
MIXER = ("mixer_s32_224", 49 * 3072 * 512 + 8 * 2 * (512 * 49 * 256 + 49 * 512 * 2048) + 512 * 2)


@pytest.mark.parametrize(
    ("backbone", "macs", "backend"),
    [
        (*TINY, None),
        (*TINY, SDPBackend.FLASH_ATTENTION),
        (*TINY, SDPBackend.MATH),
        (*TINY, "timm"),
        (*SMALL, None),
        (*MIXER, None),
    ],
)
def test_macs_of_attention_and_linear_layers(backbone, macs, backend, monkeypatch):
    if backend == "timm":  # its own matrix products instead of torch's operator
        monkeypatch.setattr("timm.layers.config._USE_FUSED_ATTN", 0)
    options = find_family("vit").recipe_options(backbone=backbone, backbone_weights="random")
    model, _ = build_model("vit", labels=["cat", "dog"], options=options)
    with contextlib.nullcontext() if backend in (None, "timm") else sdpa_kernel(backend):
        assert count_macs(model, side=224) == macs
    if backbone == "vit_tiny_patch16_224":
        assert macs == 1_253_491_200 + 192 * 2


@pytest.mark.parametrize("side", [32, 64, 100])
def test_macs_of_simple_cnn_follow_the_size_of_its_images(side):
    model, _ = build_model("cnn", labels=["cat", "dog"], options=find_family("cnn").recipe_options(image_size=side))
    blocks = [(3, 64, side), (64, 128, side // 2), (128, 256, side // 4)]
    convolutions = sum(9 * before * after * size**2 for before, after, size in blocks)
    assert count_macs(model, side=side) == convolutions + 4 * 4 * 256 * 512 + 512 * 2
    if side == 64:
        assert convolutions == 158_072_832


class OneOperator(torch.nn.Module):
    """Calls `run` on 16 tokens of width 8."""

    device = CPU

    def __init__(self, run):
        super().__init__()
        self.run = run

    def forward(self, pixel_values):
        return self.run(pixel_values[:, 0, :16, :8].contiguous())


def test_macs_of_the_encoder_layer_of_torch():
    layer = torch.nn.TransformerEncoderLayer(8, nhead=2, dim_feedforward=32, dropout=0, batch_first=True).eval()
    assert count_macs(OneOperator(layer), side=16) == 16 * (3 + 1 + 4 + 4) * 8**2 + 2 * 16**2 * 8
    assert torch.backends.mha.get_fastpath_enabled()


def test_an_attention_operator_that_torch_cannot_count_is_an_error():
    @torch.library.custom_op("hfprobe_test::fused_attention", mutates_args=())
    def fused_attention(tokens: torch.Tensor) -> torch.Tensor:
        return tokens.clone()

    message = (
        f"The multiply-accumulates cannot be counted: torch {torch.__version__} has no formula for "
        "hfprobe_test.fused_attention. Report this with the name of the model, or try another version of torch."
    )
    with pytest.raises(CheckFailedError, match=f"^{re.escape(message)}$"):
        count_macs(OneOperator(fused_attention), side=16)


def test_models_are_timed_in_turn_and_every_step_is_counted():
    order = []
    steps = {(name, 3): lambda name=name: order.append(name) for name in "abc"}
    found = time_in_turn(steps, rounds=6, seconds=0, device=CPU)
    assert "".join(order) == "a" * 10 + "b" * 10 + "c" * 10 + "abcbcacab" * 2
    for result in found.values():
        assert result.n == 6
        assert result.latency_ms.p50 <= result.latency_ms.p95
        assert result.throughput.min <= result.throughput.median <= result.throughput.max


def test_throughput_and_latency_are_correct_for_a_known_clock(monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(measurements.time, "perf_counter", lambda: next(clock) / 1000)  # each step takes 1 ms
    found = time_in_turn({("a", 8): lambda: None}, rounds=5, seconds=0.003, device=CPU)["a", 8]
    assert found.n == 5 * 3
    assert vars(found.latency_ms) == {"p50": pytest.approx(1), "p95": pytest.approx(1)}
    assert vars(found.throughput) == {key: pytest.approx(8000) for key in ("median", "min", "max")}


def test_kind_of_an_operator_is_that_of_its_outermost_caller():
    def event(*names):  # from the outside in
        found = None
        for name in names:
            found = SimpleNamespace(name=f"aten::{name}", cpu_parent=found)
        return found

    assert kind_of(event("conv2d", "convolution", "clone", "copy_")) == "convolution"
    assert kind_of(event("scaled_dot_product_attention", "matmul", "bmm")) == "attention"
    assert kind_of(event("linear", "addmm")) == "linear"
    assert kind_of(event("add")) == "other"
