"""Decide between models: train, evaluate, profile and compare them, and write one page with the answer.

    hfprobe decide photos                      # a folder with one folder of images per class
    hfprobe decide photos --backbones resnet18.a1_in1k --seeds 3
    hfprobe decide photos --unlabelled more/   # and a CNN that the probe teaches on images without labels
    hfprobe decide photos --budget 15m         # gives up epochs and, if needed, training images
    hfprobe decide                             # the default dataset, five classes of CIFAR-10

By default, a small CNN that is trained from scratch is compared with a linear probe on the best frozen backbone whose
weights can be had. The images are looked at first, for duplicates and suspect labels. The folder of the report holds
the page, the audit, the training runs, and the report of each model. After an interruption, run the same command again:
finished stages are kept.
"""

from __future__ import annotations

import argparse
import re
import shlex
import time
from pathlib import Path
from typing import Any

from hfprobe.cli.data_flags import add_data_flags, read_data_flags
from hfprobe.cli.parser import Parser, number_in
from hfprobe.models import find_family
from hfprobe.settings.names import name_model
from hfprobe.system.errors import InputError, shorten
from hfprobe.system.files import check_writable
from hfprobe.system.machine import quiet_libraries, use_every_core
from hfprobe.system.markdown import printable
from hfprobe.system.process import command
from hfprobe.system.ranges import IMAGES, SEED, SEEDS, Range

EPOCHS = Range(0, 10_000, without=(0,))
MARGINS = Range(0, 100, reason="points of accuracy")


def make_parser() -> Parser:
    parser = Parser(prog=command("decide"), description=__doc__)
    add_data_flags(parser, default="CIFAR-10", positional=True, trains=True)
    for name, part in (("train", "training"), ("eval", "validation and of test")):
        parser.add_argument(
            f"--max_{name}_samples",
            type=number_in(IMAGES),
            help=f"at most this many images for {part}, stratified by class; default: all",
        )
    parser.add_argument("--models", nargs="+", default=["probe", "cnn"], help="models to compare; default: probe cnn")
    parser.add_argument(
        "--backbones",
        nargs="+",
        default=["auto"],
        metavar="NAME[=WEIGHTS]",
        help="of the probe; the best on validation is taken. NAME and WEIGHTS are those of --backbone and "
        "--backbone_weights of hfprobe train; without WEIGHTS, those of an installed package or of the hub. auto: all "
        "that can be had on this machine: ViT-Tiny, installed packages, and the cache of the hub; default: auto",
    )
    parser.add_argument(
        "--epochs",
        type=number_in(EPOCHS, kind=float),
        help="of models that are trained by gradient steps; default: those of the recipe",
    )
    parser.add_argument(
        "--seed", type=number_in(SEED), default=42, help="first seed, and seed of the split; default: 42"
    )
    parser.add_argument(
        "--seeds",
        type=number_in(SEEDS),
        default=1,
        help="training runs of each model that is trained by gradient steps: --seed, --seed + 1, ...; default: 1",
    )
    parser.add_argument(
        "--label_efficiency",
        action="store_true",
        help="train the models that are trained by gradient steps with few images too, for the curve over labels",
    )
    parser.add_argument(
        "--unlabelled",
        metavar="PLACE",
        help="images without labels: a folder, a table, an archive, a hub id or a split. The probe labels them for a "
        "third model, a CNN that learns from its answers; default: none",
    )
    parser.add_argument(
        "--margin",
        type=number_in(MARGINS, kind=float),
        default=0.5,
        help="a difference of fewer points does not matter; default: 0.5",
    )
    parser.add_argument(
        "--budget",
        type=read_duration,
        help="time limit such as 90s, 15m or 2h, which chooses the epochs and, if needed, the training images; "
        "default: none",
    )
    parser.add_argument("--hub_dir", default="hub", help="local hub folder; default: hub")
    parser.add_argument(
        "--report_dir", type=Path, help="output folder; default: reports/decision, followed by the name of the dataset"
    )
    return parser


def read_duration(text: str) -> float:
    """An argparse type: seconds of a time such as 90s, 15m or 2h."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)", text.strip())
    seconds = float(found[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600}[found[2]] if found else 0.0
    if not 0 < seconds < 10**8:
        raise argparse.ArgumentTypeError(f"'{shorten(text)}' is invalid; allowed: a time such as 90s, 15m or 2h")
    return seconds


def main() -> None:
    started = time.perf_counter()
    arguments = make_parser().parse_args()
    data, drop_leaks = check_flags(arguments)

    from hfprobe.data.arguments import DataArguments
    from hfprobe.data.splits.images import load_images
    from hfprobe.tasks.decide.measure import decide_images
    from hfprobe.tasks.decide.page import save_decision
    from hfprobe.tasks.decide.wishes import Wishes
    from hfprobe.training.run_files import check_places

    quiet_libraries()
    use_every_core()
    described = DataArguments(**data)
    folder = arguments.report_dir or Path("reports") / name_model("decision", dataset=described.dataset)
    check_writable(folder, flag="--report_dir")
    check_places(folder, flag="--report_dir", dataset=described.dataset, hub_dir=arguments.hub_dir)
    images = load_images(described, seed=arguments.seed)
    wishes = Wishes(
        folder=folder,
        models=tuple(arguments.models),
        backbones=tuple(arguments.backbones),
        epochs=arguments.epochs,
        drop_leaks=drop_leaks,
        label_efficiency=arguments.label_efficiency,
        unlabelled=arguments.unlabelled,
        seed=arguments.seed,
        seeds=arguments.seeds,
        margin=arguments.margin / 100,
        budget=arguments.budget,
        hub_dir=arguments.hub_dir,
        started=started,
    )
    decision = decide_images(images, wishes)
    page = save_decision(decision, folder)
    best = decision.candidates[decision.judgement.best]
    hub = "" if arguments.hub_dir == "hub" else f" --hub_dir {shlex.quote(arguments.hub_dir)}"
    print("", *map(printable, decision.sentences), sep="\n")
    print(
        f"Page:    {page} (open it in a browser)\n"
        f"Predict: {command('predict')} <folder or files> --model {best.name}@{best.revision[:12]}{hub}"
    )


def check_flags(arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """The settings of the images, and whether leaks are dropped, which needs no other audit than that of the decision.

    Raises:
        InputError: flags that contradict each other; an unknown model.
    """
    if arguments.seed + arguments.seeds - 1 not in SEED:
        raise InputError(
            f"The last seed is {arguments.seed + arguments.seeds - 1}; allowed: {SEED}. Pass a smaller --seed."
        )
    families = [find_family(name) for name in arguments.models]
    if len({family.name for family in families}) < len(families):
        raise InputError("A model is named twice in --models. Pass each model once.")
    if arguments.backbones != ["auto"] and all(family.chosen_option is None for family in families):
        raise InputError(
            f"--backbones is not a flag of {' or '.join(arguments.models)}. Leave it out, or add probe to --models."
        )
    limits = {name: getattr(arguments, name) for name in ("max_train_samples", "max_eval_samples")}
    data = read_data_flags(arguments) | {name: value for name, value in limits.items() if value is not None}
    return data, data.pop("drop_leaks", False)
