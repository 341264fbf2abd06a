"""Draw the figures of README.md and docs/ from the results in docs/results/, in seconds and without a model.

python docs/make_figures.py

Results of new runs replace those in docs/results/ first:

python docs/make_figures.py --comparison reports/comparison/comparison.json --evaluation reports/cnn/metrics.json
python docs/make_figures.py --label_efficiency reports/label_efficiency/label_efficiency.json
python docs/make_figures.py --runs runs/cnn-fast-seed42 runs/cnn-best-seed42

The picture of a decision page is made by Chromium:

python docs/make_figures.py --decision reports/decision/decision.html
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.PngImagePlugin
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hfprobe.pages.figures import COLOURS, draw_confusion_matrix, draw_curves
from hfprobe.tasks.compare.result import Comparison
from hfprobe.tasks.label_efficiency.result import LabelEfficiency
from hfprobe.training.record import RunRecord

DOCS = Path(__file__).parent
RESULTS = DOCS / "results"
SCREENSHOT = DOCS / "screenshots" / "decision.png"
SOURCE = "Source"  # the entry of a PNG file that holds the checksum of what it was drawn from


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparison", type=Path, help="comparison.json of `hfprobe compare --profile`")
    parser.add_argument("--evaluation", type=Path, help="metrics.json of `hfprobe eval`")
    parser.add_argument("--label_efficiency", type=Path, help="label_efficiency.json of `hfprobe label-efficiency`")
    parser.add_argument("--runs", type=Path, nargs="+", help="output folders of `hfprobe train`")
    parser.add_argument("--decision", type=Path, help="decision.html of `hfprobe decide`")
    arguments = parser.parse_args()
    for name, (_, keep, _) in FIGURES.items():
        if (given := getattr(arguments, keep.__name__.removeprefix("keep_"))) is not None:
            write_result(name, {"origin": f"{given}"} | keep(given))
    for name in FIGURES:
        (DOCS / f"{name}.png").write_bytes(draw(name))
        print(f"Figure: {DOCS / name}.png")
    if arguments.decision is not None:
        SCREENSHOT.parent.mkdir(exist_ok=True)
        SCREENSHOT.write_bytes(photograph(arguments.decision))
        print(f"Picture: {SCREENSHOT}")


def write_result(name: str, content: dict[str, Any]) -> None:
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def draw(name: str) -> bytes:
    """A figure as the bytes of a PNG file that holds the checksum of its source."""
    draw_it, _, _ = FIGURES[name]
    image = PIL.Image.open(BytesIO(draw_it(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))))
    told = PIL.PngImagePlugin.PngInfo()
    told.add_text(SOURCE, checksum(name))
    buffer = BytesIO()
    image.convert("RGB").quantize(256).save(buffer, format="PNG", pnginfo=told, optimize=True)
    return buffer.getvalue()


def checksum(name: str) -> str:
    """SHA-256 of the result that a figure shows and of the code that draws it."""
    draw_it, _, drawn_by = FIGURES[name]
    content = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    code = [inspect.getsource(function) for function in (draw_it, *drawn_by)]
    return hashlib.sha256(json.dumps([content, *code], sort_keys=True).encode()).hexdigest()


def photograph(page: Path) -> bytes:
    """The top of a page as the bytes of a PNG file of 1,200 x 800 pixels."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("--decision needs Chromium, which is not installed. Install it, or leave the flag out.")
    if not page.is_file():
        raise SystemExit(f"--decision is '{page}', which is no file; allowed: decision.html of `hfprobe decide`.")
    with tempfile.TemporaryDirectory() as folder:
        taken = Path(folder) / "page.png"
        # The window is as wide as the text of a page, so that README.md shows letters that can be read.
        size = ["--window-size=1000,667", "--force-device-scale-factor=1.2", "--hide-scrollbars"]
        where = [f"--user-data-dir={folder}/profile", f"--screenshot={taken}", page.resolve().as_uri()]
        subprocess.run([chromium, "--headless", "--no-sandbox", *size, *where], check=True, capture_output=True)
        image = PIL.Image.open(taken).convert("RGB").crop((0, 0, 1200, 800))
    buffer = BytesIO()
    image.quantize(256).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


# From a result to its figure


def draw_answer(result: dict[str, Any]) -> bytes:
    """One row per model and one column per measure; accuracy with its 95 % interval."""
    models = result["models"]
    figure = Figure(figsize=(9.6, 0.95 + 0.62 * len(models)), dpi=150, layout="constrained")
    panels = figure.subplots(1, 4, sharey=True, width_ratios=(1.5, 1, 1, 1))
    measures = {
        "training time, s": [model["training_seconds"] for model in models.values()],
        "throughput, images/s": [model["throughput"] for model in models.values()],
        "peak memory, MB": [model["peak_memory_bytes"] / 1e6 for model in models.values()],
    }
    for row, model in enumerate(models.values()):
        low, high = (100 * bound for bound in model["interval"])
        panels[0].plot([low, high], [row, row], color=COLOURS[row], linewidth=5, alpha=0.35, solid_capstyle="butt")
        panels[0].plot([100 * model["accuracy"]], [row], "o", color=COLOURS[row], markersize=7)
        label = f"{100 * model['accuracy']:.2f} %  ({low:.2f} to {high:.2f})"
        panels[0].text(50 * sum(model["interval"]), row - 0.3, label, ha="center", size=8)
    panels[0].set_title(f"{result['split']} accuracy, % (n = {result['n']:,})", fontsize=9, loc="left")
    panels[0].margins(x=0.25)
    for axes, (title, values) in zip(panels[1:], measures.items(), strict=True):
        axes.barh(range(len(values)), values, height=0.45, color=COLOURS[: len(values)])
        for row, value in enumerate(values):
            axes.text(value + 0.03 * max(values), row, f"{value:,.0f}", va="center", size=8)
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlim(0, 1.35 * max(values))
        axes.set_xticks([])
    for axes in panels:
        axes.set_yticks(range(len(models)), list(models), fontsize=9)
        axes.set_ylim(len(models) - 0.4, -0.6)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.tick_params(length=0, labelsize=8)
    figure.suptitle(result["sentences"][0].partition(" (")[0] + ".", x=0.01, ha="left", fontsize=11, weight="bold")
    return as_png(figure)


def draw_matrix(result: dict[str, Any]) -> bytes:
    title = f"{result['model']} on {result['split']}\naccuracy {result['accuracy']:.2%} (n = {result['n']:,})"
    return draw_confusion_matrix(result["confusion_matrix"], class_names=result["class_names"], title=title)


def draw_label_efficiency(result: dict[str, Any]) -> bytes:
    return draw_curves(
        {name: [tuple(point) for point in points] for name, points in result["curves"].items()},
        title="Test accuracy by training images per class (mean; band: one standard deviation over seeds)",
        across="training images per class",
        unit="test accuracy, %",
        scale=100,
    )


def draw_epochs(result: dict[str, Any]) -> bytes:
    """Validation accuracy per epoch; the best epoch of each run is marked."""
    figure = Figure(figsize=(7.2, 3.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    for number, (name, values) in enumerate(result["validation_accuracy"].items()):
        known = [(epoch, 100 * value) for epoch, value in enumerate(values, start=1)]
        axes.plot(*zip(*known, strict=True), color=COLOURS[number], linewidth=1.4, label=name)
        epoch, best = max(known, key=lambda point: point[1])
        axes.plot([epoch], [best], "o", color=COLOURS[number], markersize=6)
        axes.annotate(f"{best:.1f} %", (epoch, best), (0, 7), textcoords="offset points", ha="center", size=8)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(f"validation accuracy, % (n = {result['n']:,})")
    axes.margins(y=0.1)
    axes.grid(color="#e3e1da", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(title=f"recipe, seed {result['seed']} (dot: best epoch)", frameon=False, loc="lower right")
    return as_png(figure)


def as_png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


# From the files of a run to a result: what the figure shows, and no more


def keep_comparison(path: Path) -> dict[str, Any]:
    comparison = Comparison.load(path.parent)
    models = {
        name: {
            "accuracy": model.accuracy,
            "interval": list(model.intervals["accuracy"]),
            "training_seconds": model.training_seconds,
            "throughput": model.cost.throughput,
            "batch_size": model.cost.batch_size,
            "peak_memory_bytes": model.cost.peak_memory_bytes,
        }
        for name, model in comparison.models.items()
        if model.cost is not None
    }
    kept = {key: vars(comparison)[key] for key in ("n", "split", "class_names", "sentences")}
    return kept | {"models": models}


def keep_evaluation(path: Path) -> dict[str, Any]:
    metrics = json.loads(path.read_text())
    kept = {key: metrics[key] for key in ("n", "accuracy", "class_names", "confusion_matrix")}
    return {key: metrics["provenance"][key] for key in ("model", "split")} | kept


def keep_label_efficiency(path: Path) -> dict[str, Any]:
    curves = LabelEfficiency.load(path.parent).curves
    return {
        "curves": {
            name: [[shots, point.mean, point.std] for shots, point in curve.items()] for name, curve in curves.items()
        }
    }


def keep_runs(folders: list[Path]) -> dict[str, Any]:
    records = [RunRecord.load(folder) for folder in folders]
    curves = {}
    for folder, record in zip(folders, records, strict=True):
        history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
        curves[str(record.recipe)] = [entry["eval_accuracy"] for entry in history if "eval_accuracy" in entry]
    return {"n": records[0].images["validation"], "seed": records[0].seed, "validation_accuracy": curves}


Draw = Callable[[dict[str, Any]], bytes]
# Name -> how it is drawn, how its result is kept, and the functions of hfprobe that draw it.
FIGURES: dict[str, tuple[Draw, Callable[[Any], dict[str, Any]], tuple[Callable, ...]]] = {
    "comparison": (draw_answer, keep_comparison, ()),
    "confusion_matrix": (draw_matrix, keep_evaluation, (draw_confusion_matrix,)),
    "label_efficiency": (draw_label_efficiency, keep_label_efficiency, (draw_curves,)),
    "curves": (draw_epochs, keep_runs, ()),
}

if __name__ == "__main__":
    main()
