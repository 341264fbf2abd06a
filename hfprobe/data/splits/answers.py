"""Corrected labels: a table in which a person has answered the questions of an audit."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset, Value

from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.columns import image_paths, label_numbers, paths_below, with_labels
from hfprobe.data.sources.labels import MISSING_TEXTS, NO_LABEL, WHOLE_NUMBER, normalize_name
from hfprobe.data.sources.selected_rows import add_column
from hfprobe.data.sources.tables import Table, read_table
from hfprobe.system.errors import InputError, shorten, suggest
from hfprobe.system.formulas import unguard

COLUMNS = ("split", "row", "file", "label")


def read_answers(file: str, splits: Mapping[str, Dataset], data: DataArguments) -> dict[str, dict[int, str]]:
    """Split -> row -> class that a table gives an image in place of its label; "" for an image that is left out.

    The table has the columns `label` and `file`, the path of the image below the dataset, or `split` and `row` instead
    of the file, as labels.csv of an audit has them. Rows that repeat the label of the dataset say nothing, and other
    columns are ignored. A label is missing if it is one of MISSING_TEXTS and no class.

    Args:
        splits: of the source, with the columns `image` (undecoded) and `label`.

    Raises:
        InputError: the file cannot be read as a table; a column is missing; a row names no image, or no class, or an
            image that has another answer. The message names the line.
    """
    if not os.path.isfile(file):  # Path.is_file raises for long names
        raise InputError(
            f"--labels '{shorten(file)}' is not a file. Pass a table with the columns file and label, such as the "
            "labels.csv of hfprobe audit."
        )
    table = read_table(Path(file))
    cells = {name.casefold(): [unguard(cell) for cell in table.columns[name]] for name in reversed(table.columns)}
    _check_columns(table, cells)
    nothing = [""] * len(table)
    found, names = _Images(splits, data, file=file), _class_names(splits)
    answers: dict[tuple[str, int], tuple[str, int]] = {}
    for line, label, split, row, name in zip(
        table.lines, cells["label"], *(cells.get(name, nothing) for name in COLUMNS[:3]), strict=True
    ):
        key = found.find(split, row, name, line=line)
        answer = _read_label(label, names, f"Line {line:,} of '{shorten(file)}'")
        earlier, before = answers.setdefault(key, (answer, line))
        if earlier != answer:
            raise InputError(
                f"Lines {before:,} and {line:,} of '{shorten(file)}' give one image two labels, '{shorten(earlier)}' "
                f"and '{shorten(answer)}'. Remove one of them."
            )
    changes: dict[str, dict[int, str]] = {}
    for split, rows in splits.items():
        own, numbers = rows.features["label"].names, label_numbers(rows)
        for (of, row), (answer, _) in answers.items():
            if of == split and answer != ("" if numbers[row] == NO_LABEL else own[numbers[row]]):
                changes.setdefault(split, {})[row] = answer
    return changes


def add_answers(rows: Dataset, answers: Mapping[int, str], classes: Sequence[str] | None) -> Dataset:
    """The rows of a split with the column `answer`: the class that a table gives an image, "" to leave it out, or null.

    An image that would be in no part, because it has no label or one of another class than `classes`, gets its answer
    as its label at once. All other images are divided by the labels of the dataset, so that a corrected label does not
    move other images.

    Args:
        classes: to keep; None: all.
    """
    names, numbers = rows.features["label"].names, label_numbers(rows)
    entering = {
        row: answer
        for row, answer in answers.items()
        if answer and (numbers[row] == NO_LABEL or (classes is not None and names[numbers[row]] not in classes))
    }
    if entering:
        names = list(dict.fromkeys([*names, *entering.values()]))
        numbers = numbers.copy()
        numbers[list(entering)] = [names.index(answer) for answer in entering.values()]
        rows = with_labels(rows, names, numbers)
    column = np.full(len(rows), None, dtype=object)
    column[list(answers)] = list(answers.values())
    return add_column(rows, "answer", column.tolist(), feature=Value("string"))


def _class_names(splits: Mapping[str, Dataset]) -> dict[str, str]:
    """Name as a cell has it, without spaces around it -> class."""
    return {name.strip(): name for rows in splits.values() for name in rows.features["label"].names}


def _check_columns(table: Table, cells: Mapping[str, list[str]]) -> None:
    for name in table.columns:
        if name.casefold() in COLUMNS and name in table.unusable:
            raise InputError(
                f"'{name}' {table.unusable[name]} in '{shorten(table.file)}'; allowed: one column with one value per "
                "image. Correct the table."
            )
    lacking = "" if "label" in cells else "label"
    if not lacking and "file" not in cells and not {"split", "row"} <= cells.keys():
        lacking = "file"
    if lacking:
        raise InputError(
            f"'{shorten(table.file)}' has no column '{lacking}'; its columns: {shorten(', '.join(table.columns))}. "
            "Allowed: label and file, or label, split and row."
        )


def _read_label(cell: str, names: Mapping[str, str], where: str) -> str:
    """A class; "" for a label that is missing."""
    text = normalize_name(cell)
    if text not in names and re.fullmatch(WHOLE_NUMBER, text):
        text = str(int(float(text)))  # spreadsheets and pandas write 3.0 for 3
    if text in names:
        return names[text]
    if cell in MISSING_TEXTS:
        return ""
    listed = f"Allowed: {shorten(', '.join(names))}; an empty cell or ? leaves the image out."
    remedy = suggest(cell, names, otherwise="")
    raise InputError(f"{where} has the label '{shorten(cell)}', which is no class of the dataset. {remedy} {listed}")


@dataclass
class _Images:
    """The images of a source by their names."""

    splits: Mapping[str, Dataset]
    data: DataArguments
    file: str

    def __post_init__(self) -> None:
        self.paths = {split: paths_below(rows, self.data) for split, rows in self.splits.items()}
        self.by_name: dict[str, list[tuple[str, int]]] = {}
        for split, rows in self.splits.items():
            for row, (below, path) in enumerate(zip(self.paths[split], image_paths(rows), strict=True)):
                for name in {below, path} - {None, ""}:
                    self.by_name.setdefault(str(name), []).append((split, row))

    def find(self, split: str, row: str, file: str, *, line: int) -> tuple[str, int]:
        """The split and the row of an image that a line of the table names.

        Raises:
            InputError: there is none, or there are several.
        """
        where, file = f"Line {line:,} of '{shorten(self.file)}'", normalize_name(file.replace("\\", "/"))
        if split and row:
            return self._find_row(split, row, file, where)
        if not file:
            raise InputError(f"{where} names no image. Write its file, or its split and its row.")
        found = self.by_name.get(file, [])
        if len(found) == 1:
            return found[0]
        dataset = shorten(self.data.dataset)
        if found:
            raise InputError(
                f"{where} names '{shorten(file)}', and {len(found):,} images of '{dataset}' have this name. Write the "
                "split and the row too."
            )
        raise InputError(
            f"{where} names the file '{shorten(file)}', which '{dataset}' does not have. Write the path below the "
            "dataset, or remove the line."
        )

    def _find_row(self, split: str, row: str, file: str, where: str) -> tuple[str, int]:
        if split not in self.splits:
            raise InputError(
                f"{where} names the split '{shorten(split)}'; '{shorten(self.data.dataset)}' has "
                f"{shorten(', '.join(self.splits))}. Correct or remove the line."
            )
        rows = len(self.paths[split])
        number = int(float(row)) if re.fullmatch(WHOLE_NUMBER, row) else -1
        if not 0 <= number < rows:
            raise InputError(
                f"{where} names row {shorten(row)} of '{split}'; allowed: 0 to {rows - 1:,}. Correct or remove "
                "the line."
            )
        own = self.paths[split][number]
        if file and own and own != file:
            raise InputError(
                f"{where} names '{shorten(file)}', and row {number:,} of '{split}' is '{shorten(own)}': the table is "
                "of other images, or the images have changed. Correct or remove the line."
            )
        return split, number
