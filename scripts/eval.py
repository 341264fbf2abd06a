"""Evaluate a model and write a report.

    python scripts/eval.py --model hfprobe/simple-cnn --report_dir reports/cnn
    python scripts/eval.py --model runs/cnn-fast-seed42/checkpoint-2340 --split validation
    python scripts/eval.py --seeds runs/cnn-fast-seeds.json --report_dir reports/seeds   # mean over seeds
    python scripts/eval.py --report_only --report_dir reports/cnn      # write the page again, without the model

Takes about 15 seconds for SimpleCNN and 5,000 images on two CPU cores. By default, the dataset, the classes and the
seed are those of the training run.
"""

import argparse
import json
import shlex
from pathlib import Path

import hfprobe.cli.interruptible  # noqa: F401
from hfprobe.cli.command import run_command
from hfprobe.cli.parser import Parser, number_in
from hfprobe.system.errors import InputError, shorten
from hfprobe.system.files import require_writable
from hfprobe.system.machine import quiet_libraries
from hfprobe.system.process import script
from hfprobe.system.ranges import IMAGES
from hfprobe.training.checkpoints import STATE_FILE
from hfprobe.training.output_folder import MODEL_FOLDER


def make_parser() -> Parser:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--model", help="model folder, or name in the hub folder, such as simple-cnn or simple-cnn@<revision>"
    )
    parser.add_argument(
        "--seeds",
        type=Path,
        metavar="FILE",
        help="evaluate all runs of a summary that train.py --seeds wrote, instead of --model",
    )
    parser.add_argument(
        "--split", default="test", choices=["test", "validation"], help="split to evaluate; default: test"
    )
    parser.add_argument(
        "--max_eval_samples",
        type=number_in(IMAGES),
        help="evaluate at most this many images, stratified by class; default: all",
    )
    parser.add_argument(
        "--report_dir",
        type=Path,
        help="output folder; default: reports/<name of the model>, followed by that of another --dataset",
    )
    parser.add_argument("--hub_dir", default="hub", help="local hub folder; default: hub")
    parser.add_argument("--dataset", help="hub id or local folder; default: the dataset of the training run")
    parser.add_argument(
        "--classes", nargs="+", help="classes to evaluate, in the order of the model; default: the labels of the model"
    )
    parser.add_argument(
        "--tta", action="store_true", help="average the probabilities of each image and its mirror image"
    )
    parser.add_argument(
        "--temperature",
        action="store_true",
        help="divide the logits by the temperature that was fitted on the validation images",
    )
    parser.add_argument(
        "--report_only",
        action="store_true",
        help="write the report again from the files in --report_dir, without the model",
    )
    return parser


def main() -> None:
    arguments = make_parser().parse_args()
    if arguments.seeds is not None:
        evaluate_seeds(arguments)
        return
    if arguments.report_only:
        if arguments.report_dir is None:
            raise InputError("--report_only needs --report_dir. Pass the folder of an evaluation.")
        for flag in ("model", "max_eval_samples", "dataset", "classes", "tta", "temperature"):
            if getattr(arguments, flag):
                raise InputError(
                    f"--report_only does not evaluate the model, so --{flag} has no effect. Leave one of them out."
                )
    else:
        if arguments.model is None:
            raise InputError("--model is missing. Pass a model folder or a name in the hub folder, such as simple-cnn.")
        evaluate(arguments)
    from hfprobe.evaluation.imbalance import summarize_scores
    from hfprobe.evaluation.results import EvalResult
    from hfprobe.reporting import write_report

    page = arguments.report_dir / "report.html"
    if arguments.report_only:
        write_report(arguments.report_dir)
    result = EvalResult.load(arguments.report_dir)
    print("", *summarize_scores(result.metrics, images_per_class=result.images_per_class), sep="\n")
    print(
        f"Report:  {page} (open it in a browser)\n"
        f"Compare: python {script('compare')} {shlex.quote(str(arguments.report_dir))} <another report folder>"
    )


def evaluate_seeds(arguments) -> None:
    """Evaluate the best epoch of each run, write a report for each, then print the mean and deviation over all runs."""
    if arguments.model is not None or arguments.report_only:
        raise InputError("--seeds cannot be combined with --model or --report_only. Leave them out.")
    runs = best_epochs(arguments.seeds)
    folder = arguments.report_dir or Path("reports") / arguments.seeds.stem
    from hfprobe.evaluation.imbalance import METRIC_NAMES, upper_first
    from hfprobe.evaluation.results import EvalResult
    from hfprobe.evaluation.statistics import summarize_values
    from hfprobe.system.files import write_json

    found, leading = [], []
    for seed, model in runs.items():
        one = argparse.Namespace(**vars(arguments) | {"model": str(model), "report_dir": folder / f"seed{seed}"})
        evaluate(one)
        result = EvalResult.load(one.report_dir)
        found.append(result.metrics)
        leading = result.leading
    summary = {key: summarize_values([metrics[key] for metrics in found]) for key in METRIC_NAMES}
    write_json(folder / "seeds.json", {"split": arguments.split, "seeds": list(runs)} | summary)
    scores = [f"{METRIC_NAMES[key]} {summary[key]['mean']:.2%} +/- {summary[key]['std']:.2%}" for key in leading]
    print(
        f"\n{upper_first(', '.join(scores))} (n = {len(runs)} seeds, {found[0]['n']:,} images each).\n"
        f"All values: {folder}/seeds.json (with a report of each seed in the same folder)"
    )


def best_epochs(file: Path) -> dict[int, Path]:
    """Seed -> folder of the weights with the best validation result.

    Raises:
        InputError: the file was not written by `train.py --seeds`, or it names a run that does not exist.
    """
    found = {}
    try:
        summary = json.loads(file.read_text())
        for seed, run in zip(summary["seeds"], summary["folders"], strict=True):
            state = Path(run) / STATE_FILE
            if state.is_file():
                found[seed] = Path(run) / Path(json.loads(state.read_text())["best_model_checkpoint"]).name
            else:
                found[seed] = Path(run) / MODEL_FOLDER  # an exact head has no checkpoints
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"'{shorten(file)}' is not a summary of {script('train')} --seeds: {shorten(repr(error))}. "
            "Pass the file that this command wrote."
        ) from error
    return found


def evaluate(arguments) -> None:
    """Evaluate the model on the split and save the results and the report in `report_dir`."""
    from hfprobe.config.names import name_report
    from hfprobe.hub.local import resolve_model
    from hfprobe.training.output_folder import check_places

    folder = resolve_model(model=arguments.model, hub_dir=arguments.hub_dir)
    if arguments.report_dir is None:
        arguments.report_dir = Path("reports") / name_report(arguments.model, dataset=arguments.dataset)
    require_writable(arguments.report_dir, flag="--report_dir")
    check_places(arguments.report_dir, flag="--report_dir", models=[folder])

    from hfprobe.evaluation.evaluate import evaluate_model, load_images_of
    from hfprobe.evaluation.results import METRICS_FILE
    from hfprobe.models.loading import load_model
    from hfprobe.reporting import write_report
    from hfprobe.system.files import replace_together

    quiet_libraries()
    model, processor = load_model(folder)
    images = load_images_of(
        model, dataset=arguments.dataset, classes=arguments.classes, max_eval_samples=arguments.max_eval_samples
    )
    check_places(arguments.report_dir, flag="--report_dir", dataset=images.arguments.dataset)
    splits = images.decode(arguments.split, processor=processor)
    run = getattr(model.config, "run", {})
    identity = {"model": arguments.model, "model_revision": folder.name} | {f"run_{key}": run[key] for key in run}
    result = evaluate_model(
        model=model,
        processor=processor,
        splits=splits,
        split=arguments.split,
        identity=identity,
        temperature=arguments.temperature,
        tta=arguments.tta,
    )
    with replace_together(arguments.report_dir, last=METRICS_FILE) as staging:
        result.save(staging)
        write_report(staging)


if __name__ == "__main__":
    run_command(main)
