"""Measure models: throughput, latency, memory, multiply-accumulates, operators.

    python scripts/profile_models.py simple-cnn linear-probe
    python scripts/profile_models.py simple-cnn --batch_sizes 1 512 --rounds 40

Some three minutes for two models on two CPU cores; leave the machine alone meanwhile. The forward pass is measured, on
images that are already resized and normalised. Writes profile.json, profile.md, bar charts and traces for
ui.perfetto.dev; scripts/compare.py shows the figures beside the accuracies.
"""

import argparse
import shlex
from pathlib import Path

from hfprobe.cli import Parser, positive_int, quiet_libraries, require_writable, run_command, use_every_core


def make_parser() -> Parser:
    parser = Parser(prog="scripts/profile_models.py", description=__doc__)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="model folders, or names in the hub folder")
    parser.add_argument("--hub_dir", default="hub", help="default: hub")
    parser.add_argument("--report_dir", type=Path, default=Path("reports/profile"), help="default: reports/profile")
    parser.add_argument(
        "--batch_sizes", type=positive_int, nargs="+", default=[1, 8, 32], help="beside each model's own: 1 8 32"
    )
    parser.add_argument("--rounds", type=at_least_five, default=20, help="5 or more, default: 20")
    return parser


def at_least_five(text: str) -> int:
    value = positive_int(text)
    if value < 5:
        raise argparse.ArgumentTypeError(f"{value} rounds say nothing about the spread; allowed: 5 or more")
    return value


def main() -> None:
    arguments = make_parser().parse_args()
    require_writable(arguments.report_dir, flag="--report_dir")

    from hfprobe.hub import resolve_model
    from hfprobe.output_folder import check_places

    folders = [resolve_model(model=model, hub_dir=arguments.hub_dir) for model in arguments.models]
    check_places(arguments.report_dir, flag="--report_dir", models=folders)

    from hfprobe.profiling import name_models, profile_models, save_profile
    from hfprobe.reporting import write_profile

    named = name_models(arguments.models, folders)
    quiet_libraries()
    use_every_core()
    arguments.report_dir.mkdir(parents=True, exist_ok=True)
    profile = profile_models(
        named,
        batch_sizes=arguments.batch_sizes,
        rounds=arguments.rounds,
        seconds=0.25,
        trace_dir=arguments.report_dir,
    )
    save_profile(profile, arguments.report_dir)
    page = write_profile(arguments.report_dir)
    print("\n" + page.read_text(encoding="utf-8").split("\n\n![")[0])
    print(
        f"\nProfile: {page}, bar charts and traces beside it\n"
        f"Compare: python scripts/compare.py <report folders> --profile {shlex.quote(str(arguments.report_dir))}"
    )


if __name__ == "__main__":
    run_command(main)
