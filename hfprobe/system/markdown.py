"""Markdown with values as plain text: names of classes, models and datasets may contain any character."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from jinja2 import BaseLoader, Environment, StrictUndefined
from markupsafe import Markup

# Characters that change the writing direction of the text that follows them, even in other values.
BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

# Characters that are markup in CommonMark, or in GitHub's tables and formulas, and where: an underscore inside a word
# is not markup.
_INLINE = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|(?:(?<=\s)|^)#|^[-+=>](?=\s|$)|^>")
_NUMBER_OF_A_LIST = re.compile(r"^(\d{1,9})([.)])(?=\s|$)")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_ENTITY = re.compile(r"&(?=#?\w+;)")


def printable(text: str) -> str:
    r"""`text` on one line: control characters, lone surrogates and direction controls become escapes (such as `\n`)."""
    return "".join(
        character.encode("unicode_escape").decode()
        if character in BIDI_CONTROLS or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        else character
        for character in text
    )


def escape_markdown(text: str) -> Markup:
    """Escape `text` so that a paragraph, heading or table cell shows it unchanged.

    The rules are those of CommonMark 0.31 and of GitHub's tables. Characters that are not markup in their place are not
    escaped, so that the source stays readable too.
    """
    text = printable(text)  # may add backslashes, which are escaped with the others
    words = text.lstrip(" ")
    space = " " if words != text else ""  # four or more would start a code block
    words = _TAG.sub("&lt;", _INLINE.sub(r"\\\g<0>", _ENTITY.sub("&amp;", words)))
    return Markup(space + _NUMBER_OF_A_LIST.sub(r"\1\\\2", words))


def code_span(text: str, *, table: bool = False) -> Markup:
    """`text` as inline code, between as many backticks as necessary.

    Args:
        table: whether the code is in a table cell, where a pipe must be escaped in code too.
    """
    text = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    if text.strip(" ") and ("`" in text or text != text.strip(" ")):
        text = f" {text} "  # Markdown removes one space on each side
    return Markup(f"{fence}{text.replace('|', chr(92) + '|') if table else text}{fence}")


def make_markdown_environment(loader: BaseLoader) -> Environment:
    """A Jinja environment for Markdown, which escapes values except the results of the filters `safe` and `code`."""

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
