"""Names of files as text: Linux allows any bytes in them, and Arrow, JSON, CSV and HTML hold UTF-8."""

from __future__ import annotations

import os
import re

from hfprobe.system.errors import InputError, shorten

# How `escape` writes a byte that is not UTF-8, which Python represents by one of these 128 surrogates.
_ESCAPED = re.compile(r"\\ud(c[89a-f][0-9a-f])")


def escape(name: str) -> str:
    r"""`name` as text that can be written as UTF-8: a byte that is not UTF-8 becomes an escape such as `\udce9`."""
    return name.encode(errors="backslashreplace").decode()


def path_to_text(path: str) -> str:
    """A path as `escape` writes it; `text_to_path` finds the file again.

    Raises:
        InputError: another file has this text as its name.
    """
    text = escape(path)
    if text != path and os.path.lexists(text):
        raise InputError(
            f"The names of two files are both written '{shorten(text)}': one holds bytes that are not UTF-8. Rename "
            "one of them."
        )
    return text


def text_to_path(text: str) -> str:
    """The path that `path_to_text` wrote as `text`."""
    if not _ESCAPED.search(text) or os.path.lexists(text):
        return text
    return _ESCAPED.sub(lambda found: chr(0xD000 + int(found[1], 16)), text)
