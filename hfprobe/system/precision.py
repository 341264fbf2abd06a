"""float32 or bfloat16: which of both this machine computes faster.

The imports at the top are the fast ones: the settings of a run are checked with this before the slow imports.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # slow to import
    import torch

Precision = Literal["auto", "fp32", "bf16"]
# Of training and of a frozen backbone, where nothing is passed: what the device computes faster.
DEFAULT_PRECISION: Precision = "auto"
# accelerate's mixed_precision -> its name in the settings, in run.json and on the card.
PRECISIONS = {"no": "fp32", "bf16": "bf16", "fp16": "fp16"}
NATIVE_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}  # in /proc/cpuinfo, of x86 and of Arm
# Training steps of SimpleCNN; on a processor with AVX-512 and without native support, 2.4 times. See
# benchmarks/precision.py.
EMULATION = "about 2.5 times as long as in float32"
LEAST_CAPABILITY = (8, 0)  # of NVIDIA's Ampere generation


def has_native_bfloat16() -> bool | None:
    """Whether this machine's CPU computes in bfloat16 without emulation; None where it does not say."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return None
    return not NATIVE_BFLOAT16.isdisjoint(flags)


def torch_uses_native_bfloat16() -> bool:
    """Whether torch would compute in bfloat16 with the native instructions of this CPU, if it has them.

    ATEN_CPU_CAPABILITY or ONEDNN_MAX_CPU_ISA may keep torch from using them. On a processor with AVX-512 and without
    native support, this is true as well.
    """
    import torch

    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() not in ("NO AVX", "AVX2")
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def preferred_precision(device: torch.device) -> tuple[Precision | None, str]:
    """The precision that a device computes faster, fp32 or bf16, and the reason, for a log line.

    The precision is None where neither the device nor torch tells.
    """
    import torch

    if device.type == "cuda" and torch.version.hip is None:
        capability = torch.cuda.get_device_capability(device)
        found, least = (".".join(map(str, version)) for version in (capability, LEAST_CAPABILITY))
        is_fast = capability >= LEAST_CAPABILITY
        return "bf16" if is_fast else "fp32", f"the GPU has compute capability {found}, and {least} is needed for bf16"
    if device.type == "cuda":
        return None, "this GPU does not tell whether it computes faster in bf16"
    if device.type != "cpu":
        return "fp32", f"bf16 is used on a GPU of NVIDIA or AMD and on a CPU, and the device is {device.type}"
    native = has_native_bfloat16()
    if native is None:
        return None, "this CPU does not say whether it has native bfloat16 support"
    if not native:
        return "fp32", "this CPU has no native bfloat16 support"
    if torch_uses_native_bfloat16():
        return "bf16", "this CPU has native bfloat16 support, and torch uses it"
    return None, "this CPU has native bfloat16 support, and torch does not use it"
