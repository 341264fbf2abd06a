import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.names import PARSER, letters, rows, texts
from hfprobe.system.markdown import code_span, escape_markdown, printable


@given(st.text(st.sampled_from("|`*_[]()<>&;#!~$\\-+=1.:\"' a猫\n\t"), min_size=1, max_size=9).filter(str.split))
def test_any_text_is_shown_as_it_is_in_paragraph_heading_and_cell(text):
    shown, escaped = letters(printable(text)), str(escape_markdown(text))
    for markdown, expected in (
        (f"{escaped} is it.", [f"{shown}isit."]),
        (f"# {escaped}", [shown]),
        (f"## one against {escaped}", [f"oneagainst{shown}"]),
        (f"| {escaped} | 1 |\n|---|---|\n| 2 | {escaped} |", [shown, "1", "2", shown]),
    ):
        assert [letters(found) for found in texts(markdown)] == expected


def test_harmless_text_stays_readable_in_the_source():
    for text in (
        "learning_rate",
        "two & co",
        "p < 0.0001",
        "-0.14 to +0.74",
        "95 % (n = 5)",
        "torch 2.14.1",
        "runs/a-b",
    ):
        assert escape_markdown(text) == text


@given(st.text(st.sampled_from("`|\\ a*<"), min_size=1, max_size=6))
@example("a`b")
@example(" ")
def test_inline_code_holds_backticks_and_pipes(text):
    (inline,) = [token for token in PARSER.parse(f"x {code_span(text)} y") if token.type == "inline"]
    assert [child.content for child in inline.children if child.type == "code_inline"] == [text]
    assert rows(f"| x |\n|---|\n| {code_span(text, table=True)} |") == [["x"], [text]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("two\nlines", "two\\nlines"), ("\x00", "\\x00"), ("caf\udce9", "caf\\udce9"), ("\u202ea", "\\u202ea")],
)
def test_control_characters_are_visible(text, expected):
    assert printable(text) == expected


def test_letters_of_all_scripts_and_joiners_are_printable():
    for text in ("猫 犬", "عربي", "नमस्ते", "👨\u200d👩\u200d👧", "می\u200cرم", "cafe\u0301", "a\u00a0b"):
        assert printable(text) == text
