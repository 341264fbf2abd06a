"""Compare two or more models on the same images and write one page with the results.

    python scripts/compare.py reports/cnn reports/probe
    python scripts/compare.py reports/cnn reports/probe --profile reports/profile   # with speed and memory

The inputs are report folders of scripts/eval.py and, optionally, a profile of scripts/profile_models.py. The models and
the images are not needed. Takes a few seconds.
"""

from pathlib import Path

import hfprobe.cli.interruptible  # noqa: F401
from hfprobe.cli.command import run_command
from hfprobe.cli.parser import Parser
from hfprobe.system.files import require_writable
from hfprobe.system.process import script


def make_parser() -> Parser:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="REPORT", help="two or more report folders of scripts/eval.py"
    )
    parser.add_argument(
        "--report_dir",
        type=Path,
        default=Path("reports/comparison"),
        help="output folder; default: reports/comparison",
    )
    parser.add_argument(
        "--profile", type=Path, help="folder of a profile from scripts/profile_models.py; default: none"
    )
    return parser


def main() -> None:
    arguments = make_parser().parse_args()
    require_writable(arguments.report_dir, flag="--report_dir")

    from hfprobe.evaluation.comparable import load_comparable
    from hfprobe.evaluation.comparison import compare, load_profile, save_comparison
    from hfprobe.reporting import write_comparison
    from hfprobe.system.files import replace_together

    results = load_comparable(arguments.folders)
    profile = None if arguments.profile is None else load_profile(arguments.profile)
    with replace_together(arguments.report_dir, last="comparison.html") as staging:
        save_comparison(compare(results, profile=profile), staging)
        write_comparison(staging, results)
    page = arguments.report_dir / "comparison.html"
    print("\n" + page.with_suffix(".md").read_text(encoding="utf-8").split("\n\n")[1])
    print(f"Page: {page} (open it in a browser)")
    if profile is None:
        print(f"Speed and memory: python {script('profile_models')} <model> ..., then this command with --profile")


if __name__ == "__main__":
    run_command(main)
