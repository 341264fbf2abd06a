import pytest

from hfprobe.statistics.intervals import Summary
from hfprobe.tasks.label_efficiency.result import say_crossings


def curve(*means):
    return {shots: Summary(mean, 0.0, 1, [mean]) for shots, mean in zip((10, 100, 1000), means, strict=False)}


@pytest.mark.parametrize(
    ("cnn", "probe", "expected"),
    [
        (
            curve(0.1, 0.5, 0.9),
            curve(0.4, 0.6, 0.7),
            "probe has the higher mean accuracy at 10 images per class, then cnn from 1,000 on (the curves cross "
            "between 100 and 1,000).",
        ),
        (
            curve(0.1, 0.5),
            curve(0.4, 0.6, 0.7),
            "probe has the higher mean accuracy at every measured number of images, 10 to 100 per class.",
        ),
        (curve(), curve(0.4), "cnn and probe have no common number of images per class."),
    ],
)
def test_where_curves_cross(cnn, probe, expected):
    assert say_crossings("cnn", "probe", {"cnn": cnn, "probe": probe}) == expected
