"""Measure the start-up time of training and of `hfprobe`: `--help`, an unknown flag, an invalid value, the first step.

All but the last are compared with the import of `TrainingArguments`. The time to the end of the first step on cached
CIFAR-10 is measured from the end of the imports.

python benchmarks/start_up.py        # three minutes
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

from side_by_side import describe_machine, describe_ratio, make_parser, measure

TRAIN = str(Path(__file__).parent.parent / "scripts" / "train.py")
IMPORT = "import of TrainingArguments"
WAYS = {
    IMPORT: ["-c", "from transformers import TrainingArguments"],
    "--help": [TRAIN, "--help"],
    "an unknown flag": [TRAIN, "--epocs", "3"],
    "an invalid value": [TRAIN, "--epochs", "-1"],
    "hfprobe train --help": ["-m", "hfprobe", "train", "--help"],
    "hfprobe eval --help": ["-m", "hfprobe", "eval", "--help"],
    "hfprobe --help": ["-m", "hfprobe", "--help"],
}
# Prints the seconds and ends the run.
FIRST_STEP = """
import os, runpy, sys, time
import hfprobe.data.splits.images, hfprobe.models.simple_cnn.modeling
from hfprobe.training.trainer import ProbeTrainer

step = ProbeTrainer.training_step
def first(*arguments):
    step(*arguments)
    print(time.perf_counter() - start, flush=True)
    os._exit(0)
ProbeTrainer.training_step = first
script, folder = sys.argv[1:]
sys.argv = [script, "--disable_tqdm", "true", "--output_dir", f"{folder}/run", "--hub_dir", f"{folder}/hub"]
start = time.perf_counter()
runpy.run_path(script, run_name="__main__")
"""


def seconds_to_first_step() -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", FIRST_STEP, TRAIN, folder]
        return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])


def main() -> None:
    arguments = make_parser(__doc__).parse_args()
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    ways = {name: partial(subprocess.run, [sys.executable, *command], **silent) for name, command in WAYS.items()}
    seconds = measure(ways, rounds=arguments.rounds)
    print(f"\n{describe_machine()}")
    for name in WAYS:
        if name != IMPORT:
            print(f"{name} / {IMPORT}, time: {describe_ratio(seconds[name], seconds[IMPORT])}")
    first = [seconds_to_first_step() for _ in range(arguments.rounds)]
    print(f"imports to first step: {median(first):.2f} s ({min(first):.2f} to {max(first):.2f}, n = {len(first)})")


if __name__ == "__main__":
    main()
