"""A comparison as Python shows it: its verdict in a console, a table in a notebook."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hfprobe.statistics.imbalance import METRIC_NAMES
from hfprobe.system.html import render_sentences, render_table
from hfprobe.tasks.evaluate.result import EvalResult


@dataclass(frozen=True, repr=False)
class Comparison:
    """What can be said of models that were evaluated on the same images.

    Attributes:
        results: name -> evaluation.
        content: what comparison.json holds, see `hfprobe.tasks.compare.measure.compare`.
    """

    results: dict[str, EvalResult]
    content: dict[str, Any]

    @property
    def verdict(self) -> str:
        """The sentences that the figures support, one per line."""
        return "\n".join(self.content["verdict"])

    def __repr__(self) -> str:
        return self.verdict

    def _repr_html_(self) -> str:
        def with_interval(found: dict[str, Any], key: str) -> str:
            low, high = found["intervals"][key]
            return f"{found[key]:.2%} ({low:.2%} to {high:.2%})"

        rows = [
            (name, *(with_interval(found, key) for key in self.content["leading"]), f"{found['parameters']:,}")
            for name, found in self.content["models"].items()
        ]
        names = [METRIC_NAMES[key] for key in self.content["leading"]]
        caption = f"{self.content['n']:,} {self.content['split']} images, 95 % intervals"
        table = render_table(["model", *names, "parameters"], rows, caption=caption)
        return table + render_sentences(self.content["verdict"])
