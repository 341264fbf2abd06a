"""Plot training and validation accuracy of runs per epoch in one figure.

python benchmarks/curves.py runs/cnn-fast-seed42 runs/cnn-reference-seed42 --out docs/curves.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="output folders of scripts/train.py")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    figure = Figure(figsize=(7.2, 3.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    for folder in arguments.runs:
        run = json.loads((folder / "run.json").read_text())
        history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
        train = {entry["epoch"]: entry["accuracy"] for entry in history if "accuracy" in entry}
        validation = {entry["epoch"]: entry["eval_accuracy"] for entry in history if "eval_accuracy" in entry}
        name = f"{run['recipe']} (n = {run['images']['validation']:,}, seed {run['seed']})"
        (line,) = axes.plot(list(validation), list(validation.values()), marker="o", markersize=3, label=name)
        axes.plot(list(train), list(train.values()), color=line.get_color(), alpha=0.4, linestyle="--")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("accuracy")
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(title="validation solid, training dashed", frameon=False)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out)
    print(f"Figure: {arguments.out}")


if __name__ == "__main__":
    main()
