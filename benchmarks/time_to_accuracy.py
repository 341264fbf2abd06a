"""Print the seconds and epochs that runs took to reach given validation accuracies, from their TensorBoard events.

    python benchmarks/time_to_accuracy.py runs/cnn-fast-seed42 runs/cnn-reference-seed42

Seconds are counted from the start of training to the evaluation that reached the accuracy, including evaluations.
The speed of a machine varies between runs, so compare epochs first.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ACCURACIES = (0.85, 0.88, 0.9102)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="output folders of scripts/train.py")
    arguments = parser.parse_args()
    for folder in arguments.runs:
        run = json.loads((folder / "run.json").read_text())
        events = EventAccumulator(str(folder / "tensorboard"))
        events.Reload()
        start = events.Tensors("args/text_summary")[0].wall_time  # written when training begins
        accuracies = events.Scalars("eval/accuracy")
        print(f"{run['recipe']}, seed {run['seed']}, {len(accuracies)} epochs; {run['hardware']}")
        for wanted in ACCURACIES:
            reached = [(epoch, event) for epoch, event in enumerate(accuracies, start=1) if event.value >= wanted]
            if reached:
                epoch, event = reached[0]
                print(f"  {wanted:.2%}: epoch {epoch}, {event.wall_time - start:.0f} s")
            else:
                print(f"  {wanted:.2%}: not reached; best {max(event.value for event in accuracies):.2%}")


if __name__ == "__main__":
    main()
