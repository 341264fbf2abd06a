"""Compare training steps of SimpleCNN with and without `hfprobe.system.machine.keep_freed_memory`.

python benchmarks/freed_memory.py        # a minute on two CPU cores
"""

from __future__ import annotations

import torch
from side_by_side import default_memory, describe_machine, describe_ratio, make_parser, measure

from hfprobe.models import build_model, find_family
from hfprobe.system.machine import keep_freed_memory, use_every_core

STEPS, BATCH_SIZE = 12, 128


def main() -> None:
    arguments = make_parser(__doc__).parse_args()
    use_every_core()
    model = (
        build_model("cnn", labels=list("abcde"), options=find_family("cnn").recipe_options())[0]
        .to(memory_format=torch.channels_last)
        .train()
    )
    optimizer = torch.optim.AdamW(model.parameters())
    images = torch.randn(BATCH_SIZE, 3, 32, 32).to(memory_format=torch.channels_last)
    labels = torch.arange(BATCH_SIZE) % 5

    def steps() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            model(pixel_values=images, labels=labels).loss.backward()
            optimizer.step()

    def glibc_default() -> None:
        default_memory()
        steps()

    def kept() -> None:
        keep_freed_memory()
        steps()

    seconds = measure({"default": glibc_default, "kept": kept}, rounds=arguments.rounds)
    print(f"\nSimpleCNN, {STEPS} steps of {BATCH_SIZE}; {describe_machine()}")
    print(f"kept / default, speed: {describe_ratio(seconds['default'], seconds['kept'])}")


if __name__ == "__main__":
    main()
