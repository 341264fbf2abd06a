"""Measure throughput, latency, memory, multiply-accumulates and operators of models.

    hfprobe profile simple-cnn linear-probe
    hfprobe profile simple-cnn --batch_sizes 1 512 --rounds 40

Takes about three minutes for two models on two CPU cores. Do not run other programs meanwhile. The forward pass is
measured on images that are already resized and normalised. The ONNX files of a model that was exported (hfprobe
export) are timed beside it. Writes profile.json, profile.md, bar charts, and traces for ui.perfetto.dev. hfprobe
compare --profile shows the results beside the accuracies.
"""

import shlex
from pathlib import Path

from hfprobe.cli.parser import Parser, number_in
from hfprobe.system.files import check_writable
from hfprobe.system.machine import quiet_libraries, use_every_core
from hfprobe.system.process import command
from hfprobe.system.ranges import BATCH, Range

ROUNDS = Range(5, 10_000, reason="fewer rounds do not show the spread")


def make_parser() -> Parser:
    parser = Parser(prog=command("profile"), description=__doc__)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="model folders, or names in the hub folder")
    parser.add_argument("--hub_dir", default="hub", help="local hub folder; default: hub")
    parser.add_argument(
        "--report_dir", type=Path, default=Path("reports/profile"), help="output folder; default: reports/profile"
    )
    parser.add_argument(
        "--batch_sizes",
        type=number_in(BATCH),
        nargs="+",
        default=[1, 8, 32],
        help="batch sizes to measure, in addition to the default one of each model; default: 1 8 32",
    )
    parser.add_argument("--rounds", type=number_in(ROUNDS), default=20, help="measured rounds, 5 or more; default: 20")
    return parser


def main() -> None:
    arguments = make_parser().parse_args()
    check_writable(arguments.report_dir, flag="--report_dir")

    from hfprobe.hub.local import resolve_model
    from hfprobe.training.run_files import check_places

    folders = [resolve_model(model=model, hub_dir=arguments.hub_dir) for model in arguments.models]
    check_places(arguments.report_dir, flag="--report_dir", models=folders)

    from hfprobe.system.files import replace_together
    from hfprobe.tasks.profile.measure import name_models, profile_models
    from hfprobe.tasks.profile.page import render_summary, write_profile
    from hfprobe.tasks.profile.result import Profile

    named = name_models(arguments.models, folders)
    quiet_libraries()
    use_every_core()
    with replace_together(arguments.report_dir, last=Profile.FILE) as staging:
        profile = profile_models(
            named, batch_sizes=arguments.batch_sizes, rounds=arguments.rounds, seconds=0.25, trace_dir=staging
        )
        profile.save(staging)
        write_profile(profile, staging)
    page = arguments.report_dir / "profile.md"
    print(
        f"\n{render_summary(profile)}\n"
        f"Profile: {page} (with bar charts and traces in the same folder)\n"
        f"Compare: {command('compare')} <report folders> --profile {shlex.quote(str(arguments.report_dir))}"
    )
