"""Markdown in which every value is plain text: names of classes, models and data sets may hold any character."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from jinja2 import BaseLoader, Environment, StrictUndefined
from markupsafe import Markup

# Characters that would turn the text after them around: the names around an unclosed one are then read backwards.
BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

# What CommonMark and GitHub's tables and formulas read as markup, and where: an underscore inside a word is none.
_INLINE = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|(?:(?<=\s)|^)#|^[-+=>](?=\s|$)|^>")
_NUMBER_OF_A_LIST = re.compile(r"^(\d{1,9})([.)])(?=\s|$)")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_ENTITY = re.compile(r"&(?=#?\w+;)")


def printable(text: str) -> str:
    r"""`text` on one line: control characters, lone surrogates and turns of the writing direction as escapes (`\n`)."""
    return "".join(
        character.encode("unicode_escape").decode()
        if character in BIDI_CONTROLS or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        else character
        for character in text
    )


def escape_markdown(text: str) -> Markup:
    """`text` for a paragraph, heading or table cell, which then shows it as it is.

    The rules are those of CommonMark 0.31 and of GitHub's tables; harmless characters stay as they are, so that the
    source is readable too.
    """
    text = printable(text)  # may add backslashes, which are escaped with the others
    words = text.lstrip(" ")
    space = " " if words != text else ""  # four or more would begin a block of code
    words = _TAG.sub("&lt;", _INLINE.sub(r"\\\g<0>", _ENTITY.sub("&amp;", words)))
    return Markup(space + _NUMBER_OF_A_LIST.sub(r"\1\\\2", words))


def code_span(text: str, *, table: bool = False) -> Markup:
    """`text` as inline code, between as many backticks as it needs.

    Args:
        table: in a cell of a table, where a pipe is escaped in code too.
    """
    text = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    if text.strip(" ") and ("`" in text or text != text.strip(" ")):
        text = f" {text} "  # one space on either side is not part of the code
    return Markup(f"{fence}{text.replace('|', chr(92) + '|') if table else text}{fence}")


def make_markdown_environment(loader: BaseLoader) -> Environment:
    """Jinja for Markdown templates: each value is escaped, except what the filters `safe` and `code` return."""

    def escape(value: Any) -> Markup:
        return value if isinstance(value, Markup) else escape_markdown(str(value))

    environment = Environment(
        loader=loader,
        finalize=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters["code"] = code_span
    return environment
