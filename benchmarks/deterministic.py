"""Measure the cost of `--deterministic`: training steps of SimpleCNN with and without deterministic algorithms.

python benchmarks/deterministic.py        # two minutes on one thread of a CPU
"""

from __future__ import annotations

import tempfile

import numpy as np
import torch
from side_by_side import describe_machine, describe_ratio, draw_split, make_parser, measure
from train_step import make_trainer
from transformers import enable_full_determinism

from hfprobe.system.machine import keep_freed_memory, quiet_libraries

BATCH_SIZE = 128


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--steps", type=int, default=10, help="training steps of 128 images per round; default: 10")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch; default: 1")
    arguments = parser.parse_args()
    quiet_libraries(bars=False)
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(draw_split(arguments.steps * BATCH_SIZE, seed=0), folder=folder)
        enable_full_determinism(42)  # also sets environment variables that CUDA reads at its first operation
        ways = {"deterministic": lambda: train(trainer, True), "default": lambda: train(trainer, False)}
        seconds = measure(ways, rounds=arguments.rounds)
    print(
        f"\nSimpleCNN, {arguments.steps} steps of {BATCH_SIZE} images, {arguments.threads} thread; {describe_machine()}"
    )
    print(f"default / deterministic, speed: {describe_ratio(seconds['deterministic'], seconds['default'])}")
    for name, values in seconds.items():
        print(f"ms per step, {name}: {1000 * np.median(values) / arguments.steps:.0f}")


def train(trainer, deterministic: bool) -> None:
    """Train one epoch with the torch settings of `enable_full_determinism` turned on or off."""
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = False
    trainer.train()


if __name__ == "__main__":
    main()
