import pytest
import torch

from hfprobe.system import precision
from hfprobe.system.precision import has_native_bfloat16, preferred_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("units", "used", "found", "reason"),
    [
        (True, True, "bf16", "this CPU has native bfloat16 support, and torch uses it"),
        (False, False, "fp32", "this CPU has no native bfloat16 support"),
        (
            True,
            False,
            None,
            "this CPU has native bfloat16 support, and torch does not use it",
        ),
        (False, True, "fp32", "this CPU has no native bfloat16 support"),
        (None, True, None, "this CPU does not say whether it has native bfloat16 support"),
        (None, False, None, "this CPU does not say whether it has native bfloat16 support"),
    ],
)
def test_a_cpu_is_asked_and_so_is_torch(monkeypatch, units, used, found, reason):
    monkeypatch.setattr(precision, "has_native_bfloat16", lambda: units)
    monkeypatch.setattr(precision, "torch_uses_native_bfloat16", lambda: used)
    assert preferred_precision(CPU) == (found, reason)


@pytest.mark.parametrize(("capability", "found"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_a_gpu_computes_in_bfloat16_from_compute_capability_8_on(monkeypatch, capability, found):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    named = ".".join(map(str, capability))
    assert preferred_precision(GPU) == (found, f"the GPU has compute capability {named}, and 8.0 is needed for bf16")
    monkeypatch.setattr(torch.version, "hip", "6.4")  # it numbers its GPUs in another way
    assert preferred_precision(GPU)[0] is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags : fpu avx2 avx512f avx512_bf16", True),
        ("flags : fpu amx_bf16", True),
        ("Features : fp asimd i8mm bf16", True),
        ("flags : fpu avx2 avx512f", False),
        (None, None),
    ],
)
def test_units_of_a_processor(monkeypatch, tmp_path, text, expected):
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(f"processor : 0\n{text}\n")
    monkeypatch.setattr(precision, "Path", lambda path: file)
    assert has_native_bfloat16() is expected


def test_torch_that_is_kept_to_older_instructions_does_not_use_units(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert precision.torch_uses_native_bfloat16() is False
