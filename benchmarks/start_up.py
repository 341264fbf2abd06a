"""How long `scripts/train.py` takes to answer `--help`, a wrong flag and a wrong value, against one import.

python benchmarks/start_up.py        # two minutes
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

from side_by_side import describe_machine, describe_ratio, make_parser, measure

TRAIN = str(Path(__file__).parent.parent / "scripts" / "train.py")
IMPORT = "import of TrainingArguments"
WAYS = {
    IMPORT: ["-c", "from transformers import TrainingArguments"],
    "--help": [TRAIN, "--help"],
    "a wrong flag": [TRAIN, "--epocs", "3"],
    "a wrong value": [TRAIN, "--epochs", "-1"],
}


def main() -> None:
    arguments = make_parser(__doc__).parse_args()
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    ways = {name: partial(subprocess.run, [sys.executable, *command], **silent) for name, command in WAYS.items()}
    seconds = measure(ways, rounds=arguments.rounds)
    print(f"\n{describe_machine()}")
    for name in WAYS:
        if name != IMPORT:
            print(f"{name} / {IMPORT}, time: {describe_ratio(seconds[name], seconds[IMPORT])}")


if __name__ == "__main__":
    main()
