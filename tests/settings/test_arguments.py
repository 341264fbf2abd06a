import re

import pytest
import torch

from hfprobe.cli.run_flags import parse_run
from hfprobe.system.errors import InputError


def test_bfloat16_needs_hardware_support(monkeypatch):
    monkeypatch.setattr("hfprobe.settings.arguments.has_accelerator", lambda: False)
    monkeypatch.setattr("hfprobe.settings.arguments.preferred_precision", lambda device: ("fp32", ""))
    message = (
        "needs a GPU, or a CPU with native bfloat16 support; this one has none and takes about 2.5 times as long as in "
        "float32. Pass --"
    )
    insist = "precision fp32, or add --bf16 to train so anyway."
    with pytest.raises(InputError, match=f"^{re.escape(f'--precision bf16 {message}{insist}')}$"):
        parse_run(["--precision", "bf16"])
    features = f"--feature_precision bf16 {message}feature_precision fp32."
    with pytest.raises(InputError, match=f"^{re.escape(features)}$"):
        parse_run(["--model", "vit", "--feature_precision", "bf16"])
    for flags in (["--bf16"], ["--bf16", "--precision", "bf16"], ["--bf16", "--use_cpu"]):  # insisted on
        assert parse_run(flags).training.recorded_precision == "bf16"
    monkeypatch.setattr("hfprobe.settings.arguments.preferred_precision", lambda device: ("bf16", ""))
    for flags in (["--bf16"], ["--precision", "bf16"], ["--bf16", "--precision", "auto"]):
        arguments = parse_run(flags).training
        assert arguments.bf16 is ("--bf16" in flags)
        assert arguments.mixed_precision == arguments.recorded_precision == "bf16"
    with pytest.raises(InputError, match=r"^--bf16_full_eval rounds the weights after training"):
        parse_run(["--bf16_full_eval", "--use_cpu"])


def test_bfloat16_is_refused_on_a_gpu_that_emulates_it(monkeypatch):
    monkeypatch.setattr("hfprobe.settings.arguments.has_accelerator", lambda: True)
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (7, 5))
    message = (
        "--precision bf16 would be slower than float32: the GPU has compute capability 7.5, and 8.0 is needed for "
        "bf16. Pass --precision fp32, or add --bf16 to train so anyway."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        parse_run(["--precision", "bf16"])


def test_precision_that_is_passed_wins_over_the_accelerate_configuration(monkeypatch):
    monkeypatch.setattr("hfprobe.settings.arguments.preferred_precision", lambda device: ("bf16", ""))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert parse_run(["--precision", "fp32"]).training.mixed_precision == "no"
    for flags in ([], ["--precision", "auto"], ["--precision", "bf16"]):
        assert parse_run(flags).training.mixed_precision == "bf16"


def test_float16_needs_a_gpu(monkeypatch):
    monkeypatch.setattr("hfprobe.settings.arguments.has_accelerator", lambda: False)
    with pytest.raises(InputError, match=re.escape("--fp16 needs a GPU, and none is here. Leave it out.")):
        parse_run(["--fp16"])


@pytest.mark.parametrize(
    ("configured", "message"),
    [
        (
            "bf16",
            "mixed_precision: bf16 in accelerate's configuration needs a GPU, or a CPU with native bfloat16 support; "
            "this one has none and takes about 2.5 times as long as in float32. Set it to 'no'.",
        ),
        (
            "fp16",
            "mixed_precision: fp16 in accelerate's configuration needs a GPU, and none is here. Set it to 'no'.",
        ),
        ("fp8", "mixed_precision is fp8 in accelerate's configuration. Allowed: no, bf16, fp16."),
    ],
)
@pytest.mark.parametrize("gpu", [False, True])
def test_a_precision_of_the_accelerate_configuration_that_this_run_cannot_use(monkeypatch, configured, message, gpu):
    monkeypatch.setattr("hfprobe.settings.arguments.preferred_precision", lambda device: ("fp32", ""))
    monkeypatch.setattr("hfprobe.settings.arguments.has_accelerator", lambda: gpu)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", configured)
    for on_cpu in ({"--use_cpu"}, {"ACCELERATE_USE_CPU"}) if gpu else (set(),):
        monkeypatch.setenv("ACCELERATE_USE_CPU", str("ACCELERATE_USE_CPU" in on_cpu))
        with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
            parse_run([flag for flag in on_cpu if flag.startswith("--")])
