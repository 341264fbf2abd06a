"""Measure seconds per epoch and peak memory of `scripts/train.py --model cnn` for four sizes of the training set.

    python benchmarks/scaling.py        # a quarter of an hour on two CPU cores

Each size runs in its own process; each round runs all sizes once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from side_by_side import describe_machine, make_parser

SIZES = (2500, 5000, 10_000, 20_000)
TRAIN = Path(__file__).parent.parent / "scripts" / "train.py"


def main() -> None:
    arguments = make_parser(__doc__).parse_args()
    measured: dict[int, list[tuple[float, float]]] = {size: [] for size in SIZES}
    for number in range(arguments.rounds):
        for size in SIZES:
            measured[size].append(one_epoch(size))
            print(f"round {number + 1}/{arguments.rounds}, {size:,} images: {measured[size][-1][0]:.1f} s")
    print(f"\nSimpleCNN, one epoch; {describe_machine()}")
    for size, pairs in measured.items():
        seconds, megabytes = np.median(np.array(pairs), axis=0)
        print(f"{size:>6,} images: {seconds:6.1f} s, {size / seconds:4.0f} images/s, peak {megabytes:,.0f} MB")


def one_epoch(size: int) -> tuple[float, float]:
    """Return the training time in seconds and the peak resident set of the process in MB."""
    with tempfile.TemporaryDirectory() as folder:
        flags = [
            "--max_train_samples",
            str(size),
            "--max_eval_samples",
            "100",
            "--epochs",
            "1",
            "--disable_tqdm",
            "true",
        ]
        flags += ["--output_dir", f"{folder}/run", "--hub_dir", f"{folder}/hub"]
        process = subprocess.Popen(
            [sys.executable, TRAIN, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            raise SystemExit(f"{TRAIN.name} {' '.join(flags)} failed; run it to see why.")
        results = json.loads(Path(folder, "run", "train_results.json").read_text())
    return results["train_runtime"], usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
