"""Pictures with a corrected label: kept in a folder, with a table in the form that `--labels` reads."""

from __future__ import annotations

import csv
import hashlib
import threading
from io import BytesIO
from pathlib import Path

import PIL.Image

from hfprobe.system.files import write_beside
from hfprobe.system.formulas import guard

TABLE = "labels.csv"
COLUMNS = ("file", "label")
# Endings of the formats that browsers and telephones send; Pillow reads a file of any ending by its content.
ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif", "HEIF": "heic"}


class Feedback:
    """A folder of pictures and `labels.csv`, with the columns `file` and `label`; made when the first one is kept.

    A picture is named by its content: no name that a browser sends becomes a path.
    """

    def __init__(self, folder: Path):
        self.folder, self._lock = folder, threading.Lock()

    def keep(self, content: bytes, *, label: str) -> str:
        """Keep a picture and its label, which replaces an earlier label of the same picture; the name of its file.

        Args:
            content: the bytes of a file that `read_image` can read.

        Raises:
            OSError: the folder cannot be written; the table is intact.
        """
        with PIL.Image.open(BytesIO(content)) as image:
            ending = ENDINGS.get(image.format or "", "img.png")
        name = f"{hashlib.sha256(content).hexdigest()[:16]}.{ending}"
        with self._lock:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_beside(self.folder / name, lambda beside: beside.write_bytes(content))
            table = self.folder / TABLE
            rows = [row for row in self._read(table) if row and row[0] != name] + [[name, guard(label)]]
            write_beside(table, lambda beside: self._write(beside, rows))
        return name

    @staticmethod
    def _read(table: Path) -> list[list[str]]:
        if not table.exists():
            return []
        with table.open(newline="", encoding="utf-8") as stream:
            return list(csv.reader(stream))[1:]

    @staticmethod
    def _write(table: Path, rows: list[list[str]]) -> None:
        with table.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([COLUMNS, *rows])
