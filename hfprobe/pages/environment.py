"""The environment of all templates: it escapes every value for HTML or for Markdown."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hfprobe.statistics.imbalance import upper_first
from hfprobe.system.markdown import make_markdown_environment, printable
from hfprobe.system.provenance import describe_hardware
from hfprobe.system.text_width import cut_text

SHARED = Path(__file__).parent / "templates"


def make_environment(page: str, *, markdown: bool) -> Environment:
    """A Jinja environment; it escapes every value for Markdown or for HTML.

    Args:
        page: `__file__` of the page: the templates are those in the folder `templates` beside it, and the shared ones.
    """
    loader = FileSystemLoader([Path(page).parent / "templates", SHARED])
    if markdown:
        environment = make_markdown_environment(loader)
    else:
        environment = Environment(
            loader=loader,
            autoescape=True,
            finalize=lambda value: printable(value) if type(value) is str else value,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=StrictUndefined,
        )
    environment.filters["percent"] = lambda share, digits=2: (
        "\u2013" if share is None else f"{100 * share:.{digits}f}\u00a0%"
    )
    environment.filters["points"] = lambda difference: "\u2013" if difference is None else f"{100 * difference:+.2f}"
    environment.filters["cut"] = cut_text
    environment.filters["upper_first"] = upper_first
    environment.filters["machine"] = describe_hardware
    return environment
