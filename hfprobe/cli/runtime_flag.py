"""The flag of the commands that let a model answer in torch, or by a file of its export."""

from __future__ import annotations

from hfprobe.cli.parser import Parser
from hfprobe.models.runtimes import RUNTIMES


def add_runtime_flag(parser: Parser) -> None:
    """Add --runtime."""
    parser.add_argument(
        "--runtime",
        default="torch",
        choices=RUNTIMES,
        help="what computes the answers. onnx: onnxruntime with the file in float32 that hfprobe export wrote; int8: "
        "with that in int8, both on the CPU; default: torch",
    )
