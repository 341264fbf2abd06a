"""Write a trained model as ONNX files that answer as the model does, with the preprocessing inside.

    hfprobe export --model simple-cnn                     # into the folder onnx of the model
    hfprobe export --model simple-cnn@0123abc --max_eval_samples 1000
    hfprobe export --model simple-cnn --quantize int8     # also in int8, if it loses at most 0.5 points
    hfprobe export --model simple-cnn --check             # is the export intact, and of this model?

Writes classifier.onnx (an image of any size -> probabilities), model.onnx (the network alone, as optimum and
transformers.js expect it) and parity.json. Before anything is written, both answer all test images, and must answer
as the model does. Needs the extra: pip install 'hfprobe[export]'

Exit code: 0; 1 if the answers differ, or int8 loses too much; 2 for a wrong flag, a model that cannot be exported, or
with --check an export that is damaged or stale; 3 if disk or memory ran out.
"""

from __future__ import annotations

from hfprobe.cli.data_flags import add_data_flags, read_data_flags
from hfprobe.cli.parser import Parser, number_in
from hfprobe.system.errors import InputError
from hfprobe.system.machine import quiet_libraries
from hfprobe.system.model_files import EXPORT_FOLDER
from hfprobe.system.process import command
from hfprobe.system.ranges import IMAGES, Range
from hfprobe.tasks.export.extra import check_extra

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
    from hfprobe.tasks.export.measure import export_model
    from hfprobe.tasks.export.result import check_export

    if arguments.check:
        print(check_export(folder).verdict)
        return

    from hfprobe.models.loading import load_model
    from hfprobe.models.own_images import load_images_of

    model, processor = load_model(folder)
    images = load_images_of(model, **read_data_flags(arguments), max_eval_samples=arguments.max_eval_samples)
    export = export_model(
        model=model,
        processor=processor,
        images=images,
        folder=folder,
        name=name_of(arguments.model),
        int8=arguments.quantize == "int8",
        max_loss=arguments.max_loss,
    )
    print(f"{export.verdict}\nFiles: {folder / EXPORT_FOLDER}")


def name_of(model: str) -> str:
    """What the record calls a model: its name in the hub folder, or the last part of a path, without those above it."""
    return model.rstrip("/").rpartition("/")[2].partition("@")[0]
