import logging
import re
import warnings
from io import BytesIO

import matplotlib
import numpy as np
import PIL.Image
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.font_manager import fontManager
from matplotlib.text import Text

from helpers.names import AWFUL_NAMES
from hfprobe.pages import figures, fonts
from hfprobe.pages.figures import draw_bars, draw_confusion_matrix, draw_curves, shorten_names


@pytest.fixture
def only_fonts(monkeypatch):
    """Call it with paths of fonts: as if nothing but those and matplotlib's own were installed."""

    def install(*paths):
        own = [entry for entry in fontManager.ttflist if matplotlib.get_data_path() in entry.fname]
        monkeypatch.setattr(fontManager, "ttflist", own)
        monkeypatch.setattr(fonts, "findSystemFonts", lambda: [str(path) for path in paths])

    return install


def make_font(path, *, family, characters):
    """A font in which each character is a filled square."""
    pen = TTGlyphPen(None)
    for place, point in enumerate(((50, 0), (950, 0), (950, 900), (50, 900))):
        (pen.lineTo if place else pen.moveTo)(point)
    pen.closePath()
    square = pen.glyph()
    names = {ord(character): f"glyph{ord(character)}" for character in characters}
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    builder.setupGlyf(dict.fromkeys([".notdef", *names.values()], square))
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *names.values()], (1000, 50)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=900)
    builder.setupPost()
    builder.save(path)
    return path


def drawn(monkeypatch, names, title="title"):
    """The figure of a confusion matrix of these classes, after it was drawn."""
    seen = []
    use = figures.use_fonts_with_all_characters
    monkeypatch.setattr(figures, "use_fonts_with_all_characters", lambda figure: seen.append(figure) or use(figure))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png = draw_confusion_matrix(np.eye(len(names)), class_names=names, title=title)
    assert png.startswith(b"\x89PNG")
    return seen[0]


def test_characters_of_no_installed_font_are_named_once_with_what_to_install(only_fonts, monkeypatch, caplog):
    only_fonts()
    drawn(monkeypatch, ["猫", "犬猫", "नि", "cat"], title="猫モデル")
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (
            logging.WARNING,
            "No installed font contains these characters, so the figures show boxes instead: निデモル犬猫. Install "
            "fonts that contain them, for example Noto (Debian: fonts-noto), and write the report again.",
        )
    ]


def test_many_missing_characters_are_one_short_line(only_fonts, monkeypatch, caplog):
    only_fonts()
    drawn(monkeypatch, [chr(number) for number in range(0x4E00, 0x4E30)])
    (record,) = caplog.records
    assert f": {''.join(map(chr, range(0x4E00, 0x4E14)))} ... Install" in record.getMessage()


def test_an_installed_font_is_used_for_the_characters_it_has(only_fonts, monkeypatch, caplog, tmp_path):
    one = make_font(tmp_path / "one.ttf", family="Probe One", characters="猫犬")
    more = make_font(tmp_path / "more.ttf", family="Probe More", characters="猫犬鳥")
    only_fonts(one, more)
    figure = drawn(monkeypatch, ["猫", "鳥 bird", "cat"], title="犬")
    assert not caplog.records
    own = tuple(matplotlib.rcParams["font.family"])
    for text in figure.findobj(Text):
        further = ("Probe More",) if set(text.get_text()) & set("猫犬鳥") else ()
        assert tuple(text.get_fontfamily()) == own + further


def test_the_bundled_font_draws_latin_greek_cyrillic_arabic_and_hebrew(only_fonts, monkeypatch, caplog):
    only_fonts()
    figure = drawn(monkeypatch, ["été", "γάτα", "кошка", "قطة", "חתול", "e\u0301"])
    assert not caplog.records
    assert {tuple(text.get_fontfamily()) for text in figure.findobj(Text)} == {
        tuple(matplotlib.rcParams["font.family"])
    }


def test_a_damaged_font_is_skipped(only_fonts, monkeypatch, caplog, tmp_path):
    (tmp_path / "damaged.ttf").write_bytes(b"no font")
    only_fonts(tmp_path / "damaged.ttf", tmp_path / "removed.ttf")
    drawn(monkeypatch, ["猫", "cat"])
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["cat", "x" * 24], ["cat", "x" * 24]),
        (["a very long name of the class number 1"], ["a very long...s number 1"]),
        (
            ["a very long name of class number 1", "a very long name of class number 2"],
            ["a very long...s number 1", "a very long...s number 2"],
        ),
        (
            ["photographs_of_cats_taken_indoors_2020", "photographs_of_dogs_taken_indoors_2020"],
            ["..._of_cats_taken_ind...", "..._of_dogs_taken_ind..."],
        ),
        (
            [f"{'x' * 20}{a}{'y' * 20}{b}{'z' * 20}" for a in "ab" for b in "cd"],
            [f"xxxxxxxxx...zzzzzzzz ({number})" for number in range(4)],
        ),
        (["猫" * 12, "猫" * 13], ["猫" * 12, "猫猫猫猫猫...猫猫猫猫猫"]),
        (["e\u0301", "\u00e9"], ["\u00e9 (0)", "\u00e9 (1)"]),
        (["cat", "cat ", "cat (0)"], ["cat (0)", "cat (1)", "cat (0) (2)"]),
        (["a\nb"], ["a\\nb"]),
    ],
)
def test_labels_are_short_and_keep_what_tells_names_apart(names, expected):
    assert shorten_names(names) == expected


@given(st.lists(st.text(st.sampled_from("ab 猫\u0301\n"), max_size=60), unique=True, max_size=30))
def test_different_names_have_different_labels_of_limited_width(names):
    labels = shorten_names(names)
    assert len(set(labels)) == len(names)
    assert all(figures.text_width(label) <= figures.LONGEST_NAME for label in labels)


@pytest.mark.slow
def test_a_hundred_long_names_have_a_hundred_labels_on_both_axes(monkeypatch):
    names = [f"animals/wild/photographs of {number:03d} taken in the zoo of the capital" for number in range(100)]
    (axes,) = drawn(monkeypatch, names).axes
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert len({label.get_text() for label in labels}) == 100
        assert all(re.search(r"\d{3}", label.get_text()) for label in labels)


def test_a_name_that_begins_with_an_underscore_is_in_the_legend(monkeypatch):
    legends = []
    finish = figures._finish
    monkeypatch.setattr(figures, "_finish", lambda axes, **values: legends.append(axes) or finish(axes, **values))
    draw_bars({"_one": {"a": 1.0}, "two": {"a": 2.0}}, title="bars", unit="s")
    draw_curves({"_one": [(1, 0.5, 0)], "two": [(1, 0.5, 0)]}, title="curves", across="x", unit="%")
    for axes in legends:
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["_one", "two"]


def test_names_with_special_characters_are_drawn(only_fonts):
    only_fonts()
    png = draw_confusion_matrix(np.eye(len(AWFUL_NAMES)), class_names=AWFUL_NAMES, title="awful")
    assert max(PIL.Image.open(BytesIO(png)).size) < 3500


def test_a_long_model_name_widens_the_figure_of_two_classes():
    def width(title):
        return PIL.Image.open(
            BytesIO(draw_confusion_matrix([[3, 1], [0, 4]], class_names=["a", "b"], title=title))
        ).width

    assert width("runs/" + "checkpoint" * 12) > 2 * width("cnn")
