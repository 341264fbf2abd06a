"""Evaluate a model and write a report.

    hfprobe eval --model hfprobe/simple-cnn --report_dir reports/cnn
    hfprobe eval --model runs/cnn-fast-seed42/checkpoint-2340 --split validation
    hfprobe eval --seeds runs/cnn-fast-seeds.json --report_dir reports/seeds   # mean over seeds
    hfprobe eval --model simple-cnn --runtime int8           # a file of hfprobe export, in reports/simple-cnn-int8
    hfprobe eval --report_only --report_dir reports/cnn      # write the page again, without the model

Takes about 15 seconds for SimpleCNN and 5,000 images on two CPU cores. By default, the dataset, the classes and the
seed are those of the training run.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from hfprobe.cli.data_flags import NAMES, add_data_flags, read_data_flags
from hfprobe.cli.parser import Parser, number_in
from hfprobe.cli.runtime_flag import add_runtime_flag
from hfprobe.system.errors import InputError
from hfprobe.system.files import check_writable
from hfprobe.system.machine import quiet_libraries
from hfprobe.system.process import command
from hfprobe.system.ranges import IMAGES

if TYPE_CHECKING:
    from hfprobe.tasks.evaluate.result import EvalResult


def make_parser() -> Parser:
    parser = Parser(prog=command("eval"), description=__doc__)
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
        "--split",
        default="test",
        choices=["test", "validation", "all"],
        help="split to evaluate; all: every image of --dataset, which the model must not have seen; default: test",
    )
    parser.add_argument(
        "--max_eval_samples",
        type=number_in(IMAGES),
        help="evaluate at most this many images, stratified by class; default: all",
    )
    parser.add_argument(
        "--report_dir",
        type=Path,
        help="output folder; default: reports/<name of the model>, followed by that of another --dataset and by "
        "another --runtime than torch",
    )
    parser.add_argument("--hub_dir", help="local hub folder; default: hub, or with --seeds that of the runs")
    add_runtime_flag(parser)
    add_data_flags(parser, default="the dataset of the training run")
    parser.add_argument(
        "--audit",
        dest="audited",
        metavar="FOLDER",
        help="audit of the images of the training run: the report says the accuracy with and without images that "
        "have a duplicate in training; default: the audit of the run, as long as it exists",
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
    arguments.hub_dir = arguments.hub_dir or "hub"
    if arguments.report_only:
        if arguments.report_dir is None:
            raise InputError("--report_only needs --report_dir. Pass the folder of an evaluation.")
        runtime = arguments.runtime if arguments.runtime != "torch" else None
        passed = vars(arguments) | {"audit": arguments.audited, "runtime": runtime}
        for flag in ("model", "max_eval_samples", *NAMES, "tta", "temperature", "runtime"):
            if passed.get(flag):
                raise InputError(
                    f"--report_only does not evaluate the model, so --{flag} has no effect. Leave one of them out."
                )
    elif arguments.model is None:
        raise InputError("--model is missing. Pass a model folder or a name in the hub folder, such as simple-cnn.")
    result = (rewrite_report if arguments.report_only else evaluate)(arguments)
    page = arguments.report_dir / "report.html"
    told = result.provenance
    answered = [] if told.runtime == "torch" else [f"{told.title} answered, in onnxruntime on the CPU."]
    print("", *answered, *result.summary, sep="\n")
    print(
        f"Report:  {page} (open it in a browser)\n"
        f"Compare: {command('compare')} {shlex.quote(str(arguments.report_dir))} <another report folder>"
    )
    if not arguments.report_only:
        hub = "" if arguments.hub_dir == "hub" else f" --hub_dir {shlex.quote(arguments.hub_dir)}"
        runtime = "" if arguments.runtime == "torch" else f" --runtime {arguments.runtime}"
        print(f"Predict: {command('predict')} <folder or files> --model {shlex.quote(arguments.model)}{hub}{runtime}")


def evaluate_seeds(arguments: argparse.Namespace) -> None:
    """Evaluate the model that each run pushed, write a report for each, and print the mean and deviation over all."""
    if arguments.model is not None or arguments.report_only:
        raise InputError("--seeds cannot be combined with --model or --report_only. Leave them out.")
    from hfprobe.hub.local import resolve_model
    from hfprobe.settings.names import add_runtime_to
    from hfprobe.statistics.imbalance import METRIC_NAMES, upper_first
    from hfprobe.tasks.evaluate.result import EvaluatedSeeds
    from hfprobe.tasks.export.result import find_network
    from hfprobe.training.run_files import check_places
    from hfprobe.training.seeds import pushed_models

    hub = arguments.hub_dir
    runs = {seed: (model, hub or own) for seed, (model, own) in pushed_models(arguments.seeds).items()}
    folder = arguments.report_dir or Path("reports") / add_runtime_to(arguments.seeds.stem, arguments.runtime)
    models = [resolve_model(model=model, hub_dir=hub_dir) for model, hub_dir in runs.values()]  # before the first
    for (model, hub_dir), place in zip(runs.values(), models, strict=True):
        find_network(place, arguments.runtime, model=model, hub_dir=hub_dir)
    check_places(folder, flag="--report_dir", dataset=arguments.dataset, models=models)
    found: dict[str, EvalResult] = {}
    for seed, (model, hub_dir) in runs.items():
        name = f"seed{seed}"
        own = {"model": model, "hub_dir": hub_dir, "report_dir": folder / name}
        found[name] = evaluate(argparse.Namespace(**vars(arguments) | own))
    summary, first = EvaluatedSeeds.of(found), next(iter(found.values()))
    summary.save(folder)
    values = {key: getattr(summary, key) for key in first.leading}
    scores = [f"{METRIC_NAMES[key]} {value.mean:.2%} +/- {value.std:.2%}" for key, value in values.items()]
    print(
        f"\n{upper_first(', '.join(scores))} (n = {len(runs)} seeds, {first.metrics.n:,} images each).\n"
        f"All values: {folder}/{EvaluatedSeeds.FILE} (with a report of each seed in the same folder)\n"
        f"Compare: {command('compare')} {shlex.quote(str(folder))} <another report folder>"
    )


def rewrite_report(arguments: argparse.Namespace) -> EvalResult:
    """Write the report in `report_dir` again, from the results that were saved there."""
    from hfprobe.tasks.evaluate.page import write_report
    from hfprobe.tasks.evaluate.result import EvalResult
    from hfprobe.training.run_files import check_places

    result = EvalResult.load(arguments.report_dir)
    for dataset in result.datasets:
        check_places(arguments.report_dir, flag="--report_dir", dataset=dataset)
    write_report(arguments.report_dir)
    return result


def evaluate(arguments: argparse.Namespace) -> EvalResult:
    """Evaluate the model on the split and save the results and the report in `report_dir`."""
    from hfprobe.hub.local import resolve_model
    from hfprobe.settings.names import name_report
    from hfprobe.tasks.export.result import find_network
    from hfprobe.training.run_files import check_places

    folder = resolve_model(model=arguments.model, hub_dir=arguments.hub_dir)
    if arguments.report_dir is None:
        name = name_report(arguments.model, dataset=arguments.dataset, runtime=arguments.runtime)
        arguments.report_dir = Path("reports") / name
    check_writable(arguments.report_dir, flag="--report_dir")
    check_places(arguments.report_dir, flag="--report_dir", dataset=arguments.dataset, models=[folder])
    exported = find_network(folder, arguments.runtime, model=arguments.model, hub_dir=arguments.hub_dir)

    from hfprobe.models.loading import load_model
    from hfprobe.models.own_images import load_images_of
    from hfprobe.models.runtimes import open_network
    from hfprobe.tasks.evaluate.measure import evaluate_images
    from hfprobe.tasks.evaluate.page import save_evaluation

    quiet_libraries()
    model, processor = load_model(folder)
    images = load_images_of(
        model,
        **read_data_flags(arguments),
        max_eval_samples=arguments.max_eval_samples,
        whole=arguments.split == "all",
        split=arguments.split,
    )
    result = evaluate_images(
        model=model,
        processor=processor,
        images=images,
        split=arguments.split,
        name=arguments.model,
        revision=folder.name,
        temperature=arguments.temperature,
        tta=arguments.tta,
        audit=arguments.audited,
        network=open_network(model, exported),
    )
    save_evaluation(result, arguments.report_dir)
    return result
