"""The tables at the top of a dataset and of its split folders, and which of them count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.columns import WITHOUT_LABELS, find_column, no_column
from hfprobe.data.sources.file_kinds import walk_files, why_left_out
from hfprobe.data.sources.named_images import one_column_per_class
from hfprobe.data.sources.split_names import split_of_file, standard_name
from hfprobe.data.sources.tables import TABLE_ENDINGS, holds_images, is_own_output, read_header, read_table
from hfprobe.system.errors import InputError, shorten

OWN_OUTPUT = "table of hfprobe predict, whose labels are answers of a model"
NO_TABLE = "table without images and labels"
NOT_USED = "table that is not used"
SHEET_ENDINGS = (".xlsx", ".xls", ".ods", ".numbers")


@dataclass
class Tables:
    """The tables at the top of a dataset and of its split folders.

    Attributes:
        folder: the dataset.
        images: those that hold the images.
        paths: those that name them.
        left_out: reason -> names of the others.
        lacking: those of the others that have no columns of images and classes, with their headers.
    """

    folder: Path
    images: list[Path] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    lacking: list[tuple[Path, list[str] | None]] = field(default_factory=list)

    def leave_out(self, reason: str, files: Sequence[Path]) -> None:
        self.left_out.setdefault(reason, []).extend(str(file.relative_to(self.folder)) for file in files)


def find_tables(folder: Path, split_folders: Sequence[Path], data: DataArguments, *, classes: Sequence[str]) -> Tables:
    """The tables of a folder, by what they are.

    Args:
        classes: names of class folders. Without them, parquet files may lie at any depth.

    Raises:
        InputError: images lie in no class folder, and the only tables beside them lack columns.
    """
    places = [folder, *split_folders]
    files = [file for place in places for file in sorted(place.iterdir()) if file.is_file()]
    if not classes:
        files += [file for file in walk_files(folder) if file.suffix.lower() == ".parquet" and file not in files]
    tables = Tables(folder)
    for file in files:
        if file.suffix.lower() not in TABLE_ENDINGS or file.name.startswith("."):
            continue
        header = read_header(file)
        if is_own_output(header):
            tables.leave_out(OWN_OUTPUT, [file])
        elif header is None and file.suffix.lower() == ".parquet" and not classes:
            tables.images.append(file)  # which read_parquet refuses
        elif header is None or not _has_columns(file, header, data):
            split = split_of_file(file, folder, data)
            unlabelled = split and standard_name(split, data) != "train" and find_column(header or (), "image", data)
            tables.leave_out(WITHOUT_LABELS if unlabelled else NO_TABLE, [file])
            tables.lacking.append((file, header))
        else:
            (tables.images if holds_images(file, data) else tables.paths).append(file)
    metadata = [file for file in tables.paths if file.stem.lower() == "metadata"]
    used = [] if tables.images else metadata or tables.paths
    if unused := [file for file in tables.paths if file not in used]:
        tables.leave_out(NOT_USED, unused)
    tables.paths = used
    if tables.images or tables.paths or classes:
        return tables
    loose = any(why_left_out(file.name) is None for file in files)
    if tables.lacking and (loose or not any(why_left_out(file.name) is None for file in walk_files(folder))):
        raise InputError(describe_lacking(*tables.lacking[0], data))
    if loose:
        sheets = [file for file in files if file.suffix.lower() in SHEET_ENDINGS]
        if sheets:
            raise InputError(
                f"'{shorten(folder)}' has images in no class folder and the spreadsheet {sheets[0].name}. If it names "
                "their classes, save it as CSV."
            )
    return tables


def _has_columns(file: Path, header: list[str], data: DataArguments) -> bool:
    """Whether a table has images and classes, in columns with the usual names or those that flags name."""
    try:
        if find_column(header, "image", data) is None:
            return False
        return find_column(header, "label", data) is not None or bool(one_column_per_class(file, data))
    except InputError:  # a column that a flag names is missing
        return False


def describe_lacking(file: Path, header: list[str] | None, data: DataArguments) -> str:
    """Why a table cannot be used, in sentences."""
    try:
        if header is None:
            read_table(file)  # raises the error of the file
        for kind in ("image", "label"):
            if find_column(header or [], kind, data) is None:
                raise no_column(kind, header or [], data, where=f"Table '{shorten(file)}'")
    except InputError as error:
        return str(error)
    return f"'{shorten(file)}' cannot be read as a table of images and classes."
