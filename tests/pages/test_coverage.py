import numpy as np
import pytest

from hfprobe.pages.coverage import place_curves
from hfprobe.statistics.selective import measure_selectivity


def selectivity(accuracy, n=400):
    """Of a model that is right about the most confident images."""
    return measure_selectivity(confidences=np.linspace(1, 0.3, n), correct=np.arange(n) < accuracy * n)


def test_points_lie_at_their_share_and_accuracy_inside_their_band():
    chart = place_curves({"one": selectivity(0.8)})
    assert chart.marks[0] == (0.0, "100 %")
    assert chart.marks[-1] == (100.0, "75 %")
    (line,) = chart.lines
    assert [x for x, *_ in line.points] == [5 * step for step in range(1, 21)]
    assert line.points[0][1] == 0
    assert line.points[-1][1] == pytest.approx(80)  # 80 % between 100 % at the top and 75 % at the bottom
    band = [tuple(map(float, place.split(","))) for place in line.band.split()]
    lows, highs = band[:20], band[:19:-1]
    for (x, y, _), low, high in zip(line.points, lows, highs, strict=True):
        assert low[0] == high[0] == x
        assert 0 <= high[1] <= y <= low[1] <= 100


@pytest.mark.parametrize(("accuracies", "lowest"), [((0.99, 0.62), "55 %"), ((0.3,), "20 %"), ((0.0,), "0 %")])
def test_the_axis_covers_all_models(accuracies, lowest):
    chart = place_curves({f"model {accuracy}": selectivity(accuracy) for accuracy in accuracies})
    assert len({line.colour for line in chart.lines}) == len(accuracies)
    assert len(chart.marks) <= 7
    assert all(0 <= y <= 100 for y, _ in chart.marks)
    assert all(0 <= y <= 100 for line in chart.lines for _, y, _ in line.points)
    assert int(chart.marks[-1][1][:-2]) >= int(lowest[:-2])


def test_a_single_image_has_a_curve_of_one_point():
    (line,) = place_curves({"one": selectivity(1, n=1)}).lines
    assert [(x, y) for x, y, _ in line.points] == [(100, 0)]
