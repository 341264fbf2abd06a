"""Compare two or more models on the same images and write one page with the results.

    hfprobe compare reports/cnn reports/probe
    hfprobe compare reports/cnn reports/probe --profile reports/profile   # with speed and memory
    hfprobe compare reports/cnn-seeds reports/probe      # all runs of `hfprobe eval --seeds`

The inputs are report folders of hfprobe eval and, optionally, a profile of hfprobe profile. The models and
the images are not needed. Takes a few seconds.
"""

from pathlib import Path

from hfprobe.cli.parser import Parser
from hfprobe.system.files import check_writable
from hfprobe.system.markdown import printable
from hfprobe.system.process import command


def make_parser() -> Parser:
    parser = Parser(prog=command("compare"), description=__doc__)
    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="REPORT",
        help="two or more report folders of hfprobe eval; with --seeds, all runs count",
    )
    parser.add_argument(
        "--report_dir",
        type=Path,
        default=Path("reports/comparison"),
        help="output folder; default: reports/comparison",
    )
    parser.add_argument("--profile", type=Path, help="folder of a profile from hfprobe profile; default: none")
    return parser


def main() -> None:
    arguments = make_parser().parse_args()
    check_writable(arguments.report_dir, flag="--report_dir")

    from hfprobe.tasks.compare.comparable import load_comparable
    from hfprobe.tasks.compare.measure import compare
    from hfprobe.tasks.compare.page import save_comparison
    from hfprobe.tasks.profile.result import Profile
    from hfprobe.training.run_files import check_places

    results = load_comparable(arguments.folders)
    for dataset in [dataset for runs in results.values() for run in runs for dataset in run.datasets]:
        check_places(arguments.report_dir, flag="--report_dir", dataset=dataset)
    profile = None if arguments.profile is None else Profile.load(arguments.profile)
    comparison = compare(results, profile=profile)
    page = save_comparison(comparison, arguments.report_dir)
    print("", *map(printable, comparison.sentences), sep="\n")
    print(f"Page: {page} (open it in a browser)")
    if profile is None:
        print(f"Speed and memory: {command('profile')} <model> ..., then this command with --profile")
