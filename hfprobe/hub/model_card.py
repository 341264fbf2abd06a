"""The model card: README.md of a revision, Markdown with a YAML header that the Hugging Face hub reads."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import FileSystemLoader

from hfprobe.system.markdown import make_markdown_environment

if TYPE_CHECKING:  # slow to import
    from huggingface_hub import ModelCardData

WORD = re.compile("[a-z][a-z_-]*")


def render_card(*, name: str, card: dict[str, Any]) -> str:
    """The text of a model card.

    Args:
        name: hub name of the model: `hfprobe/simple-cnn`.
        card: the other values of the template `model_card.md.j2`.
    """
    environment = make_markdown_environment(FileSystemLoader(Path(__file__).parent))
    return render_header(_metadata(name, card)) + environment.get_template("model_card.md.j2").render(name=name, **card)


def render_header(data: ModelCardData) -> str:
    """The YAML header of a card.

    Not `ModelCardData.to_yaml`, which writes `1e3` without quotes: YAML 1.1 reads a string there, YAML 1.2 a number.
    """
    return f"---\n{yaml.dump(data.to_dict(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf)}---\n"


def _metadata(name: str, card: dict[str, Any]) -> ModelCardData:
    from huggingface_hub import EvalResult, ModelCardData

    dataset, scores = card["dataset"], card["result"].metrics
    metrics = {"accuracy": ("accuracy", scores["accuracy"]), "f1": ("macro-F1", scores["macro_f1"])}
    return ModelCardData(
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=["hfprobe", "image-classification"],
        base_model=card.get("base_model"),
        datasets=None if card.get("local_dataset") else [dataset],
        metrics=list(metrics),
        model_name=name,
        eval_results=[
            EvalResult(
                task_type="image-classification",
                dataset_type=dataset,
                dataset_name=dataset,
                dataset_split="validation",
                metric_type=metric,
                metric_name=words,
                metric_value=round(value, 4),
            )
            for metric, (words, value) in metrics.items()
        ],
    )


class _Dumper(yaml.SafeDumper):
    """Writes strings other than plain words in double quotes."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    text = text.encode("utf-8", "backslashreplace").decode()  # not every reader accepts an escaped lone surrogate
    style = None if WORD.fullmatch(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent)
