"""Tables that name images and their classes, as spreadsheets and tools write them: CSV, TSV, JSON lines, parquet."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.columns import find_column
from hfprobe.system.errors import InputError, first_line, shorten

TEXT_ENDINGS = (".csv", ".tsv", ".jsonl")
TABLE_ENDINGS = (*TEXT_ENDINGS, ".parquet")
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
# What only a table of `hfprobe predict` has.
OWN_COLUMNS = {"path", "predicted_label", "probability"}
# By the first bytes of a file.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True)
class Table:
    """A table that names images.

    Attributes:
        file: where it was read.
        columns: name -> the cells as text without surrounding spaces, '' for an empty one.
        lines: of each row, its line in the file, counted from 1.
        unusable: name -> why the column can hold neither images nor labels, as a predicate.
        note: how the file was read, for the log; '' for UTF-8.
    """

    file: Path
    columns: dict[str, list[str]]
    lines: list[int]
    unusable: dict[str, str] = field(default_factory=dict)
    note: str = ""

    def __len__(self) -> int:
        return len(self.lines)


def read_header(file: Path) -> list[str] | None:
    """The names of the columns of a table; None for a file that cannot be read as one."""
    try:
        if file.suffix.lower() == ".parquet":
            return list(pq.read_schema(file).names)
        if file.suffix.lower() == ".jsonl":
            return list(_read_json_lines(file).columns)
        return _start_csv(file).header
    except (InputError, pa.ArrowException, OSError, csv.Error):
        return None


def holds_images(file: Path, data: DataArguments) -> bool:
    """Whether a table has the images themselves, as a parquet file may, and not their paths."""
    if file.suffix.lower() != ".parquet":
        return False
    try:
        schema = pq.read_schema(file)
    except (pa.ArrowException, OSError):
        return True
    column = find_column(schema.names, "image", data)
    kind = None if column is None else schema.field(column).type
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    return kind is None or not (pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_own_output(columns: list[str] | None) -> bool:
    """Whether the columns are those of a table of `hfprobe predict`, whose labels are answers of a model."""
    return columns is not None and {name.strip().casefold() for name in columns} >= OWN_COLUMNS


def read_table(file: Path) -> Table:
    """The cells of a table as text.

    Raises:
        InputError: the file cannot be read as a table; a row has more cells than the header; there is no row.
    """
    try:
        read = {".jsonl": _read_json_lines, ".parquet": _read_parquet}.get(file.suffix.lower(), _read_csv)
        table = read(file)
    except (OSError, pa.ArrowException) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise InputError(
            f"'{shorten(file)}' cannot be read as a table: {shorten(reason)}. Fix or remove it."
        ) from error
    if not len(table):
        raise InputError(f"'{shorten(file)}' has a header and no rows. Add one row per image.")
    return table


@dataclass(frozen=True)
class _Start:
    """The beginning of a CSV file: what separates the cells, the header and its line, and the lines after it."""

    separator: str
    header: list[str]
    line: int
    rest: io.StringIO
    note: str


def _start_csv(file: Path) -> _Start:
    text, note = _decode(file)
    rest = io.StringIO(text, newline="")
    separator = "\t" if file.suffix.lower() == ".tsv" else ""
    line = 0
    for content in rest:
        line += 1
        told = re.fullmatch(r'"?sep=(.)"?[\s,;]*', content)  # Excel's own line
        if told:
            separator = told[1]
        elif re.search(r'[^\s,;"]', content):
            break
    else:
        raise InputError(f"'{shorten(file)}' is empty. It needs a header and one row per image.")
    if separator not in content or not separator:
        separator = max(SEPARATORS, key=lambda mark: len(next(csv.reader([content], delimiter=mark))))
    header = next(csv.reader([content], delimiter=separator, skipinitialspace=True))
    return _Start(separator, [name.strip() for name in header], line, rest, note)


def _read_csv(file: Path) -> Table:
    start = _start_csv(file)
    width = len(start.header)
    rows, lines = [], []
    reader = csv.reader(start.rest, delimiter=start.separator, skipinitialspace=True, strict=True)
    line = start.line + 1  # of the row that is read next: a cell may hold line breaks
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells[width:]):
                mark = SEPARATORS.get(start.separator, repr(start.separator))
                raise InputError(
                    f"Line {line:,} of '{shorten(file)}' has {len(cells)} values, and the header has {width} columns: "
                    f"{shorten(start.separator.join(row))}. Put a value that contains a {mark} in double quotes."
                )
            if any(cells):
                rows.append(cells + [""] * (width - len(cells)))
                lines.append(line)
            line = start.line + reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"Line {line:,} of '{shorten(file)}' cannot be read: {shorten(error)}. Close each double quote that a "
            "value begins with."
        ) from error
    columns = {name: [row[start.header.index(name)] for row in rows] for name in start.header if name}
    repeated = [name for name in columns if start.header.count(name) > 1]
    return Table(file, columns, lines, dict.fromkeys(repeated, "is the name of several columns"), start.note)


def _decode(file: Path) -> tuple[str, str]:
    """The text of a file, and how it was read if it is not UTF-8: Excel writes UTF-16 and Windows-1252 too."""
    content = file.read_bytes()
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), None)
    if encoding is None and b"\0" in content[:100]:
        encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    for name in (encoding,) if encoding else ("utf-8", "cp1252"):
        try:
            text = content.decode(name)
        except UnicodeDecodeError:
            continue
        return text, "" if name.startswith("utf-8") else f"read as {'UTF-16' if 'utf' in name else 'Windows-1252'}"
    raise InputError(f"'{shorten(file)}' is no text in UTF-8, UTF-16 or Windows-1252. Save it as CSV in UTF-8.")


def _read_json_lines(file: Path) -> Table:
    text, note = _decode(file)
    rows: list[dict[str, Any]] = []
    lines = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(
                f"Line {number} of '{shorten(file)}' is not JSON: {shorten(error)}. Write one object per line, such as "
                '{"file_name": "1.jpg", "label": "cat"}.'
            ) from error
        if not isinstance(row, dict):
            raise InputError(
                f"Line {number} of '{shorten(file)}' is {shorten(line.strip())}; allowed: an object such as "
                '{"file_name": "1.jpg", "label": "cat"}.'
            )
        rows.append(row)
        lines.append(number)
    names = dict.fromkeys(name for row in rows for name in row)
    return _from_values(file, {name: [row.get(name) for row in rows] for name in names}, lines, note)


def _read_parquet(file: Path) -> Table:
    table = pq.read_table(file)
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    return _from_values(file, columns, list(range(1, len(table) + 1)))


def _from_values(file: Path, columns: dict[str, list[Any]], lines: list[int], note: str = "") -> Table:
    """The values of JSON or Arrow as the cells of a CSV file."""
    nested = [name for name, values in columns.items() if any(isinstance(value, dict | list) for value in values)]
    cells = {
        name: ["" if value is None else str(value).strip() for value in values] for name, values in columns.items()
    }
    return Table(file, cells, lines, dict.fromkeys(nested, "holds lists or objects"), note)
