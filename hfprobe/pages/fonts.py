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


def use_fonts_with_all_characters(figure: Figure) -> None:
    """Add installed fonts to the fallback list of each text with characters that the configured fonts lack.

    Characters that no font contains are drawn as boxes; one warning names them and says which fonts to install.
    """
    texts = figure.findobj(Text)
    lacking = {character for text in texts for character in text.get_text() if _is_drawn(character)}
    families = list(matplotlib.rcParams["font.family"])
    for family in families:
        lacking -= _contained(findfont(FontProperties(family=[family])), lacking)
    if not lacking:
        return
    missing = set(lacking)
    for family, contained in _find_families(lacking):
        if missing & contained:
            families.append(family)
            missing -= contained
    for text in texts:
        # Other texts may be bold, a weight that a fallback font may lack.
        if lacking & set(text.get_text()):
            text.set_fontfamily(families)
    if missing:
        logger.warning(
            "No installed font contains these characters, so the figures show boxes instead: %s%s. Install fonts that "
            "contain them, for example Noto (Debian: fonts-noto), and write the report again.",
            "".join(sorted(missing)[:MOST_CHARACTERS_NAMED]),
            " .." if len(missing) > MOST_CHARACTERS_NAMED else "",
        )


@contextmanager
def quiet_about_missing_glyphs() -> Iterator[None]:
    """Suppress matplotlib's warning per missing character: `use_fonts_with_all_characters` names all of them once."""
    with warnings.catch_warnings():
        # Early versions also warn about scripts whose letters they do not join.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing from|Matplotlib currently does not support")
        yield


def _is_drawn(character: str) -> bool:
    return not (character.isspace() or unicodedata.category(character) in ("Cc", "Cf", "Mn"))


def _contained(path: str, characters: set[str]) -> set[str]:
    """The characters that a font contains."""
    try:
        font = get_font(path)
    except (OSError, RuntimeError):  # removed since matplotlib listed its fonts, or damaged
        return set()
    return {character for character in characters if font.get_char_index(ord(character))}


def _find_families(characters: set[str]) -> list[tuple[str, set[str]]]:
    """Installed families of upright style and regular weight, each with the characters that it contains: most first."""
    known = {entry.fname for entry in fontManager.ttflist}
    for path in set(findSystemFonts()) - known:  # installed since matplotlib listed its fonts
        with suppress(Exception):  # skips a font that cannot be read
            fontManager.addfont(path)
    found = [
        (entry.name, _contained(entry.fname, characters))
        for entry in fontManager.ttflist
        if (entry.style, entry.weight, entry.stretch) == ("normal", 400, "normal")
        if not any(name in entry.name.lower() for name in NO_OUTLINES)
    ]
    return sorted(found, key=lambda font: (-len(font[1]), "Sans" not in font[0], font[0]))
