"""The page of the demo, and the policy that lets a browser run only what it holds. Does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hfprobe.pages.environment import make_environment
from hfprobe.pages.policy import name_parts
from hfprobe.tasks.demo.disputed import Disputed


@dataclass(frozen=True)
class Page:
    """The page in UTF-8, and the value of its header Content-Security-Policy."""

    content: bytes
    policy: str


def render_page(
    *,
    models: Sequence[str],
    labels: Sequence[str],
    max_bytes: int,
    feedback: str,
    disputed: Sequence[Disputed] = (),
) -> Page:
    """The page, which needs no other file; its script sends pictures to the server that it comes from.

    Args:
        models: their names.
        labels: the classes that a correction can name.
        max_bytes: of a picture that the server takes.
        feedback: the folder of corrections, to be named on the page.
        disputed: pictures to be tried.
    """
    text = (
        make_environment(__file__, markdown=False)
        .get_template("demo.html.j2")
        .render(models=models, labels=labels, max_bytes=max_bytes, feedback=feedback, disputed=disputed)
    )
    return Page(text.encode(), make_policy(text))


def make_policy(text: str) -> str:
    """Only the scripts and styles of the page, named by their checksums; pictures from memory; no other host."""
    scripts, styles = (name_parts(text, tag) for tag in ("script", "style"))
    return (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; img-src data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
