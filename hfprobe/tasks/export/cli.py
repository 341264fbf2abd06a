"""Write a trained model as ONNX files that answer as the model does, with the preprocessing inside.

    hfprobe export --model simple-cnn                     # into the folder onnx of the model
    hfprobe export --model simple-cnn@0123abc --max_eval_samples 1000
    hfprobe export --model simple-cnn --quantize int8     # also in int8, if it loses at most 0.5 points
    hfprobe export --model simple-cnn --web page/         # and a page that classifies pictures in a browser
    hfprobe export --model simple-cnn --check             # is the export intact, and of this model?

Writes classifier.onnx (an image of any size -> probabilities), model.onnx (the network alone, as optimum and
transformers.js expect it) and parity.json. Before anything is written, both answer all test images, and must answer
as the model does. Needs the extra: pip install 'hfprobe[export]'

--web writes static files that need no server: an intact export is used as it is, otherwise it is made first.

Exit code: 0; 1 if the answers differ, or int8 loses too much; 2 for a wrong flag, a model that cannot be exported, or
with --check an export that is damaged or stale; 3 if disk or memory ran out.
"""

from __future__ import annotations

import logging
import shlex
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from hfprobe.cli.data_flags import add_data_flags, read_data_flags
from hfprobe.cli.parser import Parser, number_in
from hfprobe.system.errors import InputError
from hfprobe.system.machine import quiet_libraries
from hfprobe.system.model_files import EXPORT_FOLDER
from hfprobe.system.process import command
from hfprobe.system.ranges import IMAGES, Range
from hfprobe.tasks.export.extra import check_extra

if TYPE_CHECKING:  # needs the extra
    from hfprobe.tasks.export.result import Export

logger = logging.getLogger(__name__)

POINTS = Range(0, 100)


def make_parser() -> Parser:
    parser = Parser(prog=command("export"), description=__doc__)
    parser.add_argument(
        "--model", help="model folder, or name in the hub folder, such as simple-cnn or simple-cnn@<revision>"
    )
    parser.add_argument("--hub_dir", default="hub", help="local hub folder; default: hub")
    parser.add_argument(
        "--quantize",
        choices=["none", "int8"],
        default="none",
        help="int8: also write classifier_quantized.onnx and model_quantized.onnx, by static or dynamic quantization, "
        "whichever is better on validation images; default: none",
    )
    parser.add_argument(
        "--max_loss",
        type=number_in(POINTS, kind=float),
        default=0.5,
        help="percentage points of accuracy that int8 may lose; more, as the 95 %% interval on test shows, is refused; "
        "default: 0.5",
    )
    parser.add_argument(
        "--max_eval_samples",
        type=number_in(IMAGES),
        help="compare the answers on at most this many test images, stratified by class; default: all",
    )
    parser.add_argument(
        "--web",
        type=Path,
        metavar="FOLDER",
        help="also write a page that classifies pictures in a browser, without a server: a new folder, or that of an "
        "earlier page, which is replaced. Needs npm the first time (33 MB). The page runs classifier.onnx, or "
        "classifier_quantized.onnx with --quantize int8",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="only check that the export of the model is intact and was made from this revision; nothing is written",
    )
    add_data_flags(parser, default="the dataset of the training run")
    return parser


def main() -> None:
    parser = make_parser()
    arguments = parser.parse_args()
    others = vars(arguments).keys() - {"model", "hub_dir", "check"}
    changed = sorted(name for name in others if getattr(arguments, name) != parser.get_default(name))
    if arguments.check and changed:
        raise InputError(f"--check writes nothing, so --{changed[0]} has no effect. Leave one of them out.")
    if arguments.model is None:
        raise InputError("--model is missing. Pass a model folder or a name in the hub folder, such as simple-cnn.")
    check_extra()
    quiet_libraries()
    from hfprobe.hub.local import resolve_model

    folder = resolve_model(model=arguments.model, hub_dir=arguments.hub_dir)
    if arguments.check:
        from hfprobe.tasks.export.result import check_export

        print(check_export(folder).verdict)
    elif arguments.web is not None:
        export_page(arguments, folder, again=bool(set(changed) - {"web", "quantize"}))
    else:
        print(f"{export_files(arguments, folder).verdict}\nFiles: {folder / EXPORT_FOLDER}")


def export_files(arguments: Namespace, folder: Path) -> Export:
    """Export the model in a folder."""
    from hfprobe.models.loading import load_model
    from hfprobe.models.own_images import load_images_of
    from hfprobe.tasks.export.measure import export_model

    model, processor = load_model(folder)
    images = load_images_of(model, **read_data_flags(arguments), max_eval_samples=arguments.max_eval_samples)
    return export_model(
        model=model,
        processor=processor,
        images=images,
        folder=folder,
        name=name_of(arguments.model),
        int8=arguments.quantize == "int8",
        max_loss=arguments.max_loss,
    )


def export_page(arguments: Namespace, folder: Path, *, again: bool) -> None:
    """Write a page for a browser; the export of the model is made if there is none that is intact.

    Args:
        again: whether flags say how to export, so that an earlier export is not used.
    """
    from hfprobe.tasks.export.result import CLASSIFIER, INT8_CLASSIFIER, find_export
    from hfprobe.tasks.export.runtime import load_runtime
    from hfprobe.tasks.export.web import check_target, write_web
    from hfprobe.training.run_files import check_places

    check_target(arguments.web)
    check_places(arguments.web, flag="--web", models=[folder], hub_dir=arguments.hub_dir)
    runtime = load_runtime()  # first, because an export takes minutes
    exported = INT8_CLASSIFIER if arguments.quantize == "int8" else CLASSIFIER
    export = None if again else find_export(folder, exported)
    if export is None:
        export = export_files(arguments, folder)
        print(export.verdict)
    else:
        logger.info("The export in '%s' is intact and is used.", folder / EXPORT_FOLDER)
    write_web(arguments.web, export=export, model=folder, exported=exported, runtime=runtime)
    place = shlex.quote(str(arguments.web))
    print(f"Open {arguments.web / 'index.html'} in a browser, or serve it: python -m http.server --directory {place}")


def name_of(model: str) -> str:
    """What the record calls a model: its name in the hub folder, or the last part of a path, without those above it."""
    return model.rstrip("/").rpartition("/")[2].partition("@")[0]
