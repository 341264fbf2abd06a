"""Names that need escaping, and what a reader sees of them in Markdown."""

from markdown_it import MarkdownIt

from hfprobe.system.markdown import printable

# Each of them was broken, or broke its page, where names are written into Markdown as they are.
AWFUL_NAMES = [
    "a|b", "a\\|b", "back\\", "<b>bold</b>", "<!-- gone -->", "`code`", "a``b", "*star*", "_under_", "__init__",
    "[link](x)", "![x](y)", "~~gone~~", "$x^2$", "# heading", "a #", "1. list", "- list", "+", "> quote", "&amp;",
    "&#124;", "two\nlines", "tab\there", "猫|犬", "😀", "\u202eevil", "cafe\u0301", "NA", "=1+1", "---", "caf\udce9",
]  # fmt: skip
AWFUL_MODELS = ("# a|b `c` <i>_d_", "1. *e* [f](g)\\")
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


def shown(name):
    """A name as a reader sees it, without spaces."""
    return letters(printable(name))
