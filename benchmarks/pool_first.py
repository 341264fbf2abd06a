"""Compare training steps of SimpleCNN, which pools before ReLU, with those of ReLU before pooling.

python benchmarks/pool_first.py        # a minute on two CPU cores

Both orders give the same outputs and gradients to the bit (tests/models/test_simple_cnn.py).
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from side_by_side import describe_machine, describe_ratio, make_parser, measure
from torch import nn

from hfprobe.models import build_model, find_family
from hfprobe.system.machine import keep_freed_memory, use_every_core

STEPS, BATCH_SIZE = 4, 128


def relu_first(model: nn.Module) -> nn.Module:
    """A copy of SimpleCNN in which each ReLU stands before its pooling."""
    other = copy.deepcopy(model)
    modules = list(other.features)
    for at in [at for at, module in enumerate(modules) if isinstance(module, nn.MaxPool2d)]:
        modules[at : at + 2] = reversed(modules[at : at + 2])
    other.features = nn.Sequential(*modules)
    return other


def main() -> None:
    arguments = make_parser(__doc__).parse_args()
    use_every_core()
    keep_freed_memory()
    model = (
        build_model("cnn", labels=list("abcde"), options=find_family("cnn").recipe_options())[0]
        .to(memory_format=torch.channels_last)
        .train()
    )
    images = torch.randn(BATCH_SIZE, 3, 32, 32).to(memory_format=torch.channels_last)
    labels = torch.arange(BATCH_SIZE) % 5

    def steps(network: nn.Module, *, bf16: bool) -> Callable[[], None]:
        def work() -> None:
            for _ in range(STEPS):
                network.zero_grad()
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                    logits = network(images).logits
                nn.functional.cross_entropy(logits.float(), labels).backward()

        return work

    other = relu_first(model)
    for bf16 in (False, True):
        work = {"ReLU first": steps(other, bf16=bf16), "pooling first": steps(model, bf16=bf16)}
        seconds = measure(work, rounds=arguments.rounds)
        precision = "bfloat16 autocast" if bf16 else "float32"
        print(f"\nSimpleCNN, {STEPS} steps of {BATCH_SIZE} in {precision}; {describe_machine()}")
        print(f"pooling first / ReLU first, speed: {describe_ratio(seconds['ReLU first'], seconds['pooling first'])}")


if __name__ == "__main__":
    main()
