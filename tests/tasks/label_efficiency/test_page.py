import json

import pytest

from helpers.names import AWFUL_MODELS, AWFUL_NAMES, letters, rows, shown
from hfprobe.tasks.label_efficiency.page import say_crossings, write_label_efficiency


def curve(*means):
    return {shots: {"mean": mean, "std": 0.0, "n": 1} for shots, mean in zip((10, 100, 1000), means, strict=False)}


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


def test_names_with_markup_are_text_in_the_table_of_label_efficiency(tmp_path):
    points = [{"model": name, "shots": 1, "seed": 1, "accuracy": 0.5, "n": 4} for name in AWFUL_MODELS]
    setting = {"class_names": AWFUL_NAMES, "options": {}}
    content = {"points": points, "setting": setting, "hardware": {"cores": 2, "processor": "x"}}
    (tmp_path / "label_efficiency.json").write_text(json.dumps(content))
    table = rows(write_label_efficiency(tmp_path).read_text())
    assert [letters(cell) for cell in table[0]] == ["imagesperclass", *map(shown, AWFUL_MODELS)]
