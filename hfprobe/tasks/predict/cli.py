"""Classify new images with a trained model.

    hfprobe predict photos/ *.jpg                                # the only model in the hub folder
    hfprobe predict photos/ --threshold auto                     # sure only where 95 % of the answers are correct
    hfprobe predict photos/ --model simple-cnn --top 3 --output predictions.csv --html sheet.html
    find photos -name '*.jpg' -print0 | hfprobe predict - --model simple-cnn --temperature

Folders are searched with their subfolders; hidden files and folders of thumbnails or deleted files are skipped. On a
terminal a table of at most 40 images and the count of each class are printed; elsewhere one line per image, with
tabs between path, label, probability, "sure" or "not sure", and the label and probability of each further class of
--top.

Exit code: 0 if at least one image was classified, although others could not be read; 1 if none could be read; 2 for a
wrong flag, a place that does not exist or a folder without images; 3 if disk or memory ran out.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from hfprobe.cli.parser import Parser, number_in, warn_about_repeated
from hfprobe.cli.runtime_flag import add_runtime_flag
from hfprobe.system.errors import DISK_FULL, CheckFailedError, InputError, list_some, shorten
from hfprobe.system.machine import quiet_libraries
from hfprobe.system.markdown import printable
from hfprobe.system.process import command
from hfprobe.system.ranges import PIXELS, Range
from hfprobe.system.text_width import cut_text, text_width
from hfprobe.tasks.predict.threshold import threshold_flag

if TYPE_CHECKING:  # slow to import
    from hfprobe.tasks.predict.result import Predictions

logger = logging.getLogger(__name__)

TABLE_ENDINGS, PAGE_ENDINGS = (".csv", ".jsonl", ".parquet"), (".html", ".htm")
# A terminal shows so many rows and classes; so many unreadable files are named.
MOST_ROWS, MOST_CLASSES, MOST_UNREADABLE = 40, 10, 20
NOT_SURE = "not sure"
# Between the columns of a table; the least width of the column of paths; the greatest width of a label.
GAP, LEAST_PATH, LONGEST_LABEL = "  ", 16, 24


def make_parser() -> Parser:
    parser = Parser(prog=command("predict"), description=__doc__)
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="folder, file or quoted pattern such as 'photos/**/*.jpg'; - reads paths from standard input, one per "
        "line or each ended by a null byte",
    )
    parser.add_argument(
        "--model",
        help="model folder, or name in the hub folder, such as simple-cnn or simple-cnn@<revision>; default: the only "
        "model in the hub folder",
    )
    parser.add_argument("--hub_dir", default="hub", help="local hub folder; default: hub")
    add_runtime_flag(parser)
    parser.add_argument(
        "--top", type=number_in(Range(1, 1000)), default=1, help="so many of the most probable classes; default: 1"
    )
    parser.add_argument(
        "--threshold",
        type=threshold_flag,
        default=0.5,
        help="an image whose most probable class has a lower probability is 'not sure'; auto: the threshold that "
        "training chose on the validation images so that 95 %% of the other answers are correct; auto:0.9, auto:0.98 "
        "or auto:0.99: so many of them. This holds for images from the same source; images of none of the classes can "
        "have a high probability too. Default: 0.5",
    )
    parser.add_argument(
        "--temperature",
        action="store_true",
        help="calibrate the probabilities by the temperature that was fitted on the validation images",
    )
    parser.add_argument(
        "--max_pixels",
        type=number_in(PIXELS),
        help="read images of at most this many pixels, each of which takes 4 bytes of memory; default: 178,956,970, "
        "the limit of Pillow",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help=f"write all rows; the ending decides: {', '.join(TABLE_ENDINGS)}"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page of thumbnails, grouped by answer")
    return parser


def main() -> None:
    parser = make_parser()
    arguments, remaining = parser.parse_known_intermixed_args()  # images may stand on both sides of a flag
    parser.check_remaining(remaining)
    warn_about_repeated(parser, sys.argv[1:])
    check_file(arguments.output, flag="--output", endings=TABLE_ENDINGS)
    check_file(arguments.html, flag="--html", endings=PAGE_ENDINGS)
    quiet_libraries()
    from hfprobe.data.pixels.image_paths import STANDARD_INPUT, expand_places, find_images
    from hfprobe.hub.local import resolve_model

    listed = sys.stdin.buffer.read() if STANDARD_INPUT in arguments.images else None
    paths = find_images(arguments.images, read_input=listed)
    name = arguments.model or only_model(arguments.hub_dir)
    folder = resolve_model(model=name, hub_dir=arguments.hub_dir)
    from hfprobe.tasks.export.result import find_network
    from hfprobe.training.run_files import check_places

    classified = [place for place in expand_places(arguments.images, read_input=listed) if os.path.isdir(place)]
    for flag, file in (("--output", arguments.output), ("--html", arguments.html)):
        if file is not None:
            check_places(file, flag=flag, models=[folder], is_file=True, classified=classified)
            same_ending = (path for path in paths if path.lower().endswith(file.suffix.lower()))
            if os.path.realpath(file) in map(os.path.realpath, same_ending):
                raise InputError(f"{flag} '{shorten(file)}' is one of the files to classify. Pass another path.")

    exported = find_network(folder, arguments.runtime, model=name, hub_dir=arguments.hub_dir)
    from hfprobe.data.pixels.image_files import MAX_PIXELS
    from hfprobe.models.loading import load_model
    from hfprobe.models.runtimes import add_runtime, open_network
    from hfprobe.tasks.predict.measure import predict_images
    from hfprobe.tasks.predict.page import write_contact_sheet
    from hfprobe.tasks.predict.table import write_predictions

    model, processor = load_model(folder)
    max_pixels = arguments.max_pixels or MAX_PIXELS
    predictions = predict_images(
        paths,
        model=model,
        processor=processor,
        threshold=arguments.threshold,
        temperature=arguments.temperature,
        skip_unreadable=True,
        max_pixels=max_pixels,
        network=open_network(model, exported),
    )
    if predictions.accuracy is not None:
        logger.info(
            "Threshold: %.4g, chosen on the validation images of the model so that at least %.0f %% of the answers are "
            "correct for images from the same source. It does not recognise images of none of the classes.",
            predictions.threshold,
            100 * predictions.accuracy,
        )
    print_predictions(predictions, top=arguments.top)
    if arguments.output is not None:
        write_predictions(arguments.output, predictions, top=arguments.top)
        logger.info("Predictions: %s", arguments.output)
    if arguments.html is not None:
        write_contact_sheet(
            arguments.html,
            predictions,
            model=add_runtime(name, arguments.runtime),
            top=max(2, arguments.top),
            temperature=arguments.temperature,
            max_pixels=max_pixels,
        )
        logger.info("Contact sheet: %s (open it in a browser)", arguments.html)
    report_unreadable(predictions.unreadable, total=len(paths))


def check_file(file: Path | None, *, flag: str, endings: tuple[str, ...]) -> None:
    """Refuse a file that cannot be written, before anything slow happens.

    Raises:
        InputError: another ending; a folder of that name; no parent folder, or one that cannot be written to.
    """
    if file is None:
        return
    if file.suffix.lower() not in endings:
        raise InputError(f"{flag} '{shorten(file)}' has an unknown ending; allowed: {', '.join(endings)}.")
    if os.path.isdir(file):  # False for a name too long, for which Path.is_dir raises
        raise InputError(f"{flag} '{shorten(file)}' is a folder. Pass the path of a file.")
    if not os.path.isdir(file.parent):
        raise InputError(
            f"{flag} '{shorten(file)}' cannot be written: there is no folder '{shorten(file.parent)}'. Create it, or "
            "pass another path."
        )
    trial = file.with_name(f".{file.name}.part")  # as long as the name that `write_beside` uses
    try:
        trial.touch()
        trial.unlink()
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        raise InputError(f"{flag} '{shorten(file)}' cannot be written: {error.strerror}. Pass another path.") from error


def only_model(hub_dir: str) -> str:
    """The name of the only model in the hub folder.

    Raises:
        InputError: it has none, or several.
    """
    from hfprobe.hub.local import list_models

    found = list_models(hub_dir)
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"--model is missing, and the hub folder '{hub_dir}' has: {', '.join(found)}. Pass one of them."
        )
    raise InputError(
        f"--model is missing, and the hub folder '{hub_dir}' has no model. Pass a model folder, or train one: "
        f"{command('train')} --model cnn"
    )


def print_predictions(predictions: Predictions, *, top: int) -> None:
    """A table with a heading on a terminal; otherwise one line per image, with tabs between the values."""
    sure = predictions.sure
    rows = zip(predictions.names, sure, predictions.top(top), strict=True)
    if not sys.stdout.isatty():
        for path, is_sure, [first, *others] in rows:
            values = [path, first[0], f"{first[1]:.4f}", "sure" if is_sure else NOT_SURE]
            values += [value for label, share in others for value in (label, f"{share:.4f}")]
            print("\t".join(map(printable, values)))
        return
    table = [
        [
            path,
            *(cut_text(label, LONGEST_LABEL), f"{share:.1%}", "" if is_sure else NOT_SURE),
            *(f"{cut_text(label, LONGEST_LABEL)} {share:.1%}" for label, share in others),
        ]
        for path, is_sure, [(label, share), *others] in islice(rows, MOST_ROWS)
    ]
    if table:
        head = ["image", "label", "probability", "", *["next"] * (len(table[0]) - 4)]
        print(format_table([head, *table], width=shutil.get_terminal_size().columns))
    if len(predictions) > MOST_ROWS:
        print(f"These are the first {MOST_ROWS} of {len(predictions):,} images; --output FILE.csv writes all of them.")
    if len(predictions) > 1:
        answers = [label if is_sure else NOT_SURE for label, is_sure in zip(predictions.labels, sure, strict=True)]
        counts = Counter(answers).most_common()
        told = [f"{printable(answer)} {count:,}" for answer, count in counts]
        print(f"{len(predictions):,} images: {list_some(told, MOST_CLASSES, what='more classes')}.")


def format_table(rows: list[list[str]], *, width: int) -> str:
    """Aligned columns; the first one, of paths, is shortened so that a line fits into `width` columns."""
    lines = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(text_width, cells)) for cells in zip(*lines, strict=True)]
    widths[0] = max(LEAST_PATH, min(widths[0], width - sum(widths[1:]) - len(GAP) * len(widths[1:])))
    cut = [[cut_text(path, widths[0]), *others] for path, *others in lines]
    return "\n".join(
        GAP.join(cell + " " * (wide - text_width(cell)) for cell, wide in zip(row, widths, strict=True)).rstrip()
        for row in cut
    )


def report_unreadable(unreadable: dict[str, str], *, total: int) -> None:
    """Name the files that could not be read on stderr.

    Raises:
        CheckFailedError: no image was read.
    """
    for path, reason in islice(unreadable.items(), MOST_UNREADABLE):
        logger.warning("Could not be read: %s: %s", printable(path), printable(reason))
    if len(unreadable) > MOST_UNREADABLE:
        logger.warning("... and %s more. --output lists all of them.", f"{len(unreadable) - MOST_UNREADABLE:,}")
    if len(unreadable) == total:
        raise CheckFailedError(f"None of the {total:,} files could be read. Pass images such as JPEG or PNG files.")
    if unreadable:
        logger.warning("%s of %s files could not be read.", f"{len(unreadable):,}", f"{total:,}")
