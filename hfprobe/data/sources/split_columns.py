"""Columns that divide the rows of one table into splits."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence

from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.split_names import SPLIT_NAMES, look_like_splits, standard_name, usual_meaning
from hfprobe.system.errors import InputError, shorten

logger = logging.getLogger(__name__)

# Without capitals, spaces and marks. Such a column divides the rows only if its values name splits.
SPLIT_COLUMNS = ("split", "set", "subset", "dataset", "datasplit", "partition", "usage", "phase", "fold")
YES, NO = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no")


def split_by_column(
    columns: Mapping[str, Sequence[str]], data: DataArguments, *, what: str, whole: bool = False
) -> tuple[str, list[str]] | None:
    """The column that divides the rows into splits, and the name of the split of each row; None: there is none.

    Without `--split_column`, it is a column whose values are all names of splits, or columns such as `is_valid` and
    `test` with yes and no. The log names it.

    Args:
        columns: name -> the cells as text; columns that hold images, classes or groups are left out.
        what: the table, for messages.
        whole: see `hfprobe.data.sources.split_names.choose_splits`.

    Raises:
        InputError: `--split_column` does not exist; two columns divide the rows differently; a column names splits in
            some rows only.
    """
    if data.split_column is not None:
        if data.split_column not in columns:
            raise InputError(
                f"{what} has no column '{shorten(data.split_column)}'; its other columns: "
                f"{shorten(', '.join(columns)) or 'none'}. Pass one of them as --split_column."
            )
        columns = {data.split_column: columns[data.split_column]}
    flags = {name: cells for name, cells in columns.items() if _is_flag(name, cells)}
    found = {", ".join(flags): _join_flags(flags)} if flags else {}
    for name, cells in columns.items():
        if name not in flags and (data.split_column or _names_splits(name, cells, data)):
            found[name] = list(cells)
    if not found:
        return None
    column, splits = next(iter(found.items()))
    standard = [standard_name(split, data) for split in splits]
    for other, names in found.items():
        if [standard_name(name, data) for name in names] != standard:
            raise InputError(
                f"Columns '{shorten(column)}' and '{shorten(other)}' of {what} divide the rows into different splits. "
                "Pass one of them as --split_column."
            )
    unknown = sorted({split for split, name in zip(splits, standard, strict=True) if name is None})
    if unknown and any(standard) and not whole:
        listed = ", ".join(f"'{split}'" for split in unknown)
        raise InputError(
            f"Column '{shorten(column)}' of {what} has values that name no split: {shorten(listed)}. Pass the names of "
            "the splits as --train_split, --validation_split and --test_split, or correct the column."
        )
    logger.info("Column '%s' of %s divides the rows into splits.", shorten(column), what)
    return column, splits


def split_of_flag(name: str) -> str | None:
    """The split of the rows with yes in a column such as `is_valid`, `test` or `is_training_image`; None: no such name.

    `valid` alone may mean that an image is usable, and `test_1` may be a test of something else.
    """
    plain = re.sub(r"^(is|in)[\W_]*", "", name.strip(), flags=re.IGNORECASE)
    if plain.casefold() == name.strip().casefold() == "valid" or re.search(r"\d", name):
        return None
    return usual_meaning(plain)


def _plain(name: str) -> str:
    """The name of a column without capitals, spaces and marks."""
    return re.sub(r"[\W_]", "", name.casefold())


def _names_splits(name: str, cells: Sequence[str], data: DataArguments) -> bool:
    """Whether the values of a column are names of splits; of a column with a usual name, some of them or similar ones.

    A column of another name that has one value, such as `valid` for every image, divides nothing.
    """
    values = set(cells)
    known = {means for value in values if (means := standard_name(value, data))}
    if _plain(name) not in SPLIT_COLUMNS:
        return all(standard_name(value, data) for value in values) and (len(values) > 1 or "train" in known)
    of_other_words = _plain(name) in ("split", "datasplit") and 1 < len(values) <= len(SPLIT_NAMES)
    return bool(known) or of_other_words or look_like_splits(values, alike=False)


def _is_flag(name: str, cells: Sequence[str]) -> bool:
    """Whether a column such as `is_valid` holds yes and no."""
    return split_of_flag(name) is not None and {cell.casefold() for cell in cells} <= {*YES, *NO}


def _join_flags(flags: Mapping[str, Sequence[str]]) -> list[str]:
    """The split of each row that columns such as `is_valid` and `is_test` say together."""
    splits = [split_of_flag(name) or "" for name in flags]
    otherwise = "train" if "train" not in splits else "test" if "test" not in splits else ""
    rows = zip(*flags.values(), strict=True)
    said = ((split for split, cell in zip(splits, row, strict=True) if cell.casefold() in YES) for row in rows)
    return [next(found, otherwise) for found in said]
