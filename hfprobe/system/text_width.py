"""The width of a text in columns of a terminal or a figure, and texts shortened to a width."""

from __future__ import annotations

import unicodedata
from itertools import accumulate

from hfprobe.system.markdown import printable


def text_width(text: str) -> int:
    """The width of a text: 2 per wide Chinese, Japanese or Korean character, 0 per combining accent, 1 per other."""
    return sum(
        0
        if unicodedata.category(character) in ("Mn", "Me", "Cf")
        else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )


def cut_text(text: str, width: int, *, keep_end: bool = True) -> str:
    """A printable form of a text with at most `width` columns; "..." replaces the omitted part."""
    text = unicodedata.normalize("NFC", printable(text)).strip()  # texts that look equal are equal here
    if text_width(text) <= width:
        return text
    room = width - 3
    end = ""
    if keep_end:
        end = _first(text[::-1], room // 2)[::-1]
        while end and text_width(end[0]) == 0:  # a combining accent whose letter is omitted
            end = end[1:]
    return f"{_first(text, room - text_width(end))}...{end}"


def _first(text: str, width: int) -> str:
    widths = accumulate(map(text_width, text))
    return "".join(character for character, until in zip(text, widths, strict=True) if until <= width)
