"""The model card: README.md of a revision, Markdown with a YAML header that the Hugging Face hub reads."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml
from jinja2 import FileSystemLoader
from markupsafe import Markup

from hfprobe.system.markdown import make_markdown_environment


def render_card(*, name: str, card: dict[str, Any]) -> str:
    """The text of a model card.

    Args:
        name: hub name of the model: `hfprobe/simple-cnn`.
        card: the other values of the template `model_card.md.j2`.
    """
    environment = make_markdown_environment(FileSystemLoader(Path(__file__).parent))
    environment.filters["yaml"] = _yaml_string
    return environment.get_template("model_card.md.j2").render(name=name, **card)


def _yaml_string(text: str) -> Markup:
    """`text` in double quotes: without them, readers of YAML 1.1 and 1.2 disagree on what is a number or null."""
    text = text.encode("utf-8", "backslashreplace").decode()  # not every reader accepts an escaped lone surrogate
    return Markup(yaml.safe_dump(text, default_style='"', allow_unicode=True, width=math.inf).strip())
