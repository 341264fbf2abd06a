"""Tables for notebooks, as the `_repr_html_` of results shows them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape


def render_table(head: Sequence[object], rows: Iterable[Sequence[object]], *, caption: object = "") -> Markup:
    """An HTML table. Every value is escaped, because names of classes and files are the user's.

    Args:
        head: the column names.
        rows: one sequence of cells per row; None becomes an empty cell.
        caption: a sentence above the table.
    """

    def cells(values: Iterable[object], tag: str) -> Markup:
        return Markup("").join(
            Markup(f"<{tag}>{{}}</{tag}>").format("" if value is None else value) for value in values
        )

    body = Markup("").join(Markup("<tr>{}</tr>").format(cells(row, "td")) for row in rows)
    above = Markup("<caption style='text-align:left'>{}</caption>").format(caption) if caption else ""
    return Markup("<table>{}<thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(above, cells(head, "th"), body)


def render_sentences(sentences: Iterable[object]) -> Markup:
    """One paragraph per sentence."""
    return Markup("").join(Markup("<p>{}</p>").format(escape(sentence)) for sentence in sentences)
