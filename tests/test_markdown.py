import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hfprobe.system.markdown import code_span, escape_markdown, printable

# Each of them was broken, or broke its page, where names are written into Markdown as they are.
AWFUL_NAMES = [
    "a|b", "a\\|b", "back\\", "<b>bold</b>", "<!-- gone -->", "`code`", "a``b", "*star*", "_under_", "__init__",
    "[link](x)", "![x](y)", "~~gone~~", "$x^2$", "# heading", "a #", "1. list", "- list", "+", "> quote", "&amp;",
    "&#124;", "two\nlines", "tab\there", "猫|犬", "😀", "\u202eevil", "cafe\u0301", "NA", "=1+1", "---", "caf\udce9",
]  # fmt: skip
# GitHub's tables and strikethrough on top of CommonMark.
PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def texts(markdown):
    """What a reader sees of each paragraph, heading and cell; fails where one holds more than text."""
    inlines = [token for token in PARSER.parse(markdown) if token.type == "inline"]
    assert {child.type for token in inlines for child in token.children} <= {"text", "softbreak"}
    return ["".join(child.content for child in token.children) for token in inlines]


def rows(markdown):
    """The cells of all tables of a page, row by row, as a reader sees them."""
    found = []
    for token in PARSER.parse(markdown):
        if token.type == "tr_open":
            found.append([])
        elif token.type == "inline" and token.level > 3:  # table, head or body, row, cell
            found[-1].append("".join(child.content for child in token.children))
    return found


def letters(text):
    """Without spaces, which Markdown collapses and trims."""
    return text.replace(" ", "")


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
