"""Texts in tables that a spreadsheet would run as formulas (OWASP, "CSV Injection")."""

from __future__ import annotations

# The signs before the last are the full-width forms that Chinese, Japanese and Korean keyboards produce.
FORMULA_STARTS = (*"=+-@\t\r\n", *"\uff1d\uff0b\uff0d\uff20", "'")


def guard(text: str) -> str:
    """`text` with an apostrophe in front of it where it begins with one of FORMULA_STARTS."""
    return "'" * text.startswith(FORMULA_STARTS) + text


def unguard(text: str) -> str:
    """What `guard` was called with; any other text is returned as it is."""
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA_STARTS) else text
