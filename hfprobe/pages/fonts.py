"""Fonts for names in any script: matplotlib draws a box for each character that the fonts of a text lack."""

from __future__ import annotations

import logging
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager, get_font
from matplotlib.text import Text

logger = logging.getLogger(__name__)

# Last-resort fonts contain only boxes; colour emoji fonts contain bitmaps, which matplotlib cannot draw.
NO_OUTLINES = ("last resort", "lastresort", "color emoji")
MOST_CHARACTERS_NAMED = 20
CJK, SYMBOLS = "Chinese, Japanese, Korean", "symbols, emoji"
REMEDIES = {CJK: "Noto Sans CJK (Debian: fonts-noto-cjk)", SYMBOLS: "Symbola (Debian: fonts-symbola)"}
OTHER_REMEDY = "Noto Sans (Debian: fonts-noto-core)"


def use_fonts_with_all_characters(figure: Figure) -> None:
    """Add fallback fonts to the texts of a figure for characters that the configured fonts lack.

    The fallback fonts are fonts installed on this machine, chosen by the characters they contain. Characters that no
    font contains are drawn as boxes; one warning names them and says which fonts to install.
    """
    texts = figure.findobj(Text)
    characters = {character for text in texts for character in text.get_text() if _is_drawn(character)}
    families = list(matplotlib.rcParams["font.family"])
    missing = wanted = _lacking(families, characters)
    if not missing:
        return
    candidates = _families_with_any(missing)
    while missing and candidates:
        best = min(candidates, key=lambda family: (len(_lacking([family], missing)), "Sans" not in family, family))
        left = _lacking([best], missing)
        if left == missing:
            break
        families.append(best)
        missing = left
    for text in texts:
        # Other texts may be bold, a weight that a fallback font may lack.
        if wanted & set(text.get_text()):
            text.set_fontfamily(families)
    if missing:
        logger.warning("%s", _describe_missing(missing))


@contextmanager
def quiet_about_missing_glyphs() -> Iterator[None]:
    """Suppress matplotlib's warning per missing character: `use_fonts_with_all_characters` names all of them once."""
    with warnings.catch_warnings():
        # Early versions also warn about scripts whose letters they do not join.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing from|Matplotlib currently does not support")
        yield


def _is_drawn(character: str) -> bool:
    return not (character.isspace() or unicodedata.category(character) in ("Cc", "Cf", "Mn"))


def _lacking(families: list[str], characters: set[str]) -> set[str]:
    """The characters that none of the fonts which matplotlib selects for the families contains."""
    for family in families:
        characters = _not_in(findfont(FontProperties(family=[family])), characters)
    return characters


def _not_in(path: str, characters: set[str]) -> set[str]:
    try:
        font = get_font(path)
    except (OSError, RuntimeError):  # removed since matplotlib listed its fonts, or damaged
        return characters
    return {character for character in characters if not font.get_char_index(ord(character))}


def _families_with_any(characters: set[str]) -> list[str]:
    """Installed font families of upright style and regular weight that contain at least one of the characters."""
    known = {entry.fname for entry in fontManager.ttflist}
    for path in set(findSystemFonts()) - known:  # installed since matplotlib listed its fonts
        with suppress(Exception):  # skips a font that cannot be read
            fontManager.addfont(path)
    return sorted(
        {
            entry.name
            for entry in fontManager.ttflist
            if (entry.style, entry.weight, entry.stretch) == ("normal", 400, "normal")
            if not any(name in entry.name.lower() for name in NO_OUTLINES)
            if _not_in(entry.fname, characters) != characters
        }
    )


def _describe_missing(characters: set[str]) -> str:
    kinds: dict[str, list[str]] = {}
    for character in sorted(characters):
        kinds.setdefault(_kind(character), []).append(character)
    named = "; ".join(
        f"{''.join(found[:MOST_CHARACTERS_NAMED])}{' ...' if len(found) > MOST_CHARACTERS_NAMED else ''} ({kind})"
        for kind, found in kinds.items()
    )
    remedies = " and ".join(dict.fromkeys(REMEDIES.get(kind, OTHER_REMEDY) for kind in kinds))
    return (
        f"No installed font contains these characters, so the figures show boxes instead: {named}. "
        f"Install a font that contains them, for example {remedies}, and write the report again."
    )


def _kind(character: str) -> str:
    """The group of characters that one font usually covers: a script (`Devanagari`), CJK or SYMBOLS."""
    if unicodedata.category(character).startswith("S"):
        return SYMBOLS
    if unicodedata.east_asian_width(character) in "WFH":
        return CJK
    return unicodedata.name(character, "unknown").split()[0].capitalize()
