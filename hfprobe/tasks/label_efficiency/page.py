"""Write the table and the curves of accuracy against the number of labelled images."""

from __future__ import annotations

from pathlib import Path

from hfprobe.pages.environment import make_environment
from hfprobe.pages.figures import draw_curves
from hfprobe.system.files import replace_together
from hfprobe.tasks.label_efficiency.result import LabelEfficiency


def write_label_efficiency(result: LabelEfficiency, folder: Path) -> Path:
    """Write label_efficiency.png and label_efficiency.md; return the path of the latter."""
    figure = draw_curves(
        {
            name: [(shots, found.mean, found.std) for shots, found in curve.items()]
            for name, curve in result.curves.items()
        },
        title="Test accuracy by training images per class (mean; band: one standard deviation over seeds)",
        across="training images per class",
        unit="test accuracy, %",
        scale=100,
    )
    text = make_environment(__file__, markdown=True).get_template("label_efficiency.md.j2").render(result=result)
    with replace_together(folder, last="label_efficiency.md") as staging:
        (staging / "label_efficiency.png").write_bytes(figure)
        (staging / "label_efficiency.md").write_text(text, encoding="utf-8")
    return folder / "label_efficiency.md"
