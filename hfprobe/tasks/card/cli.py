"""Write the folder of a model for the Hugging Face hub: its files, and a card with the results on test.

    hfprobe card --model simple-cnn --report reports/simple-cnn --output_dir cards/simple-cnn
    hfprobe card --model simple-cnn --report reports/simple-cnn --output_dir cards/simple-cnn --hub_model_id me/cats

The report is the folder of an evaluation of this revision on its test images (hfprobe eval). The command works without
a network and uploads nothing; it prints the command that does. An export (hfprobe export) goes with the model.

Exit code: 0; 2 for a wrong flag, or a report of another revision or split, or one that was edited; 3 if the disk is
full.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from hfprobe.cli.parser import Parser
from hfprobe.system.errors import InputError
from hfprobe.system.files import check_writable
from hfprobe.system.process import command


def make_parser() -> Parser:
    parser = Parser(prog=command("card"), description=__doc__)
    parser.add_argument(
        "--model", required=True, help="name in the hub folder, such as simple-cnn or simple-cnn@<revision>"
    )
    parser.add_argument("--hub_dir", default="hub", help="local hub folder; default: hub")
    parser.add_argument(
        "--report",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="evaluation of this revision on its test images, written by hfprobe eval",
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="new folder for the files")
    parser.add_argument(
        "--hub_model_id",
        metavar="OWNER/NAME",
        help="where the folder will be uploaded: the snippets of the card name it; default: they run in the folder",
    )
    return parser


def main() -> None:
    arguments = make_parser().parse_args()
    from hfprobe.hub.local import resolve_model
    from hfprobe.tasks.card.page import write_folder
    from hfprobe.tasks.evaluate.result import EvalResult
    from hfprobe.training.run_files import check_places

    folder: Path = arguments.output_dir
    check_repository(arguments.hub_model_id)
    if os.path.isdir(arguments.model):
        raise InputError(
            f"--model '{arguments.model}' is a folder, whose files may have changed since it was evaluated. Pass a "
            "name in the hub folder, such as simple-cnn@<revision>."
        )
    model = resolve_model(model=arguments.model, hub_dir=arguments.hub_dir)
    if os.path.lexists(folder):
        raise InputError(f"--output_dir '{folder}' exists already. Pass a new folder, or remove it.")
    check_writable(folder, flag="--output_dir")
    check_places(folder, flag="--output_dir", models=[model], hub_dir=arguments.hub_dir)
    result = EvalResult.load(arguments.report)
    write_folder(folder, model=model, result=result, report=arguments.report, repository=arguments.hub_model_id)
    repository = arguments.hub_model_id or "<owner>/<name>"
    print(f"Card:   {folder / 'README.md'}\nUpload: hf upload {repository} {shlex.quote(str(folder))} .")


def check_repository(repository: str | None) -> None:
    """Raise InputError if a hub id is not owner/name, in characters that the hub allows."""
    if repository is None:
        return
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
        valid = "/" in repository
    except HFValidationError:
        valid = False
    if not valid:
        raise InputError(
            f"--hub_model_id '{repository}' is not a model id. Allowed: owner/name, of letters, digits, '.', '_' and "
            "'-'."
        )
