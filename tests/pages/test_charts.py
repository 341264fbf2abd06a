"""Places of the lines of a chart."""

import math
from itertools import pairwise

import pytest

from hfprobe.pages.charts import HEIGHT, ROOM, place_lines


def points(text):
    return [tuple(map(float, point.split(","))) for point in text.split()]


def test_lines_fill_the_chart_and_higher_values_are_higher():
    chart = place_lines("", {"one": [(1, 0.0), (2, 5.0), (3, 10.0)]}, across="epoch")
    assert points(chart.lines[0].points) == [(0, HEIGHT), (50, HEIGHT / 2), (100, 0)]
    assert chart.x_marks == [(0, "1"), (50, "2"), (100, "3")]
    assert chart.y_marks == [(HEIGHT, "0"), (HEIGHT / 2, "5"), (0, "10")]


def test_a_logarithmic_axis_gives_each_factor_the_same_room_and_no_two_labels_overlap():
    curve = [(x, 50 + x / 100) for x in (5, 10, 20, 50, 100, 200, 500, 1000, 1100)]
    chart = place_lines("", {"one": curve}, across="images", log=True)
    found = points(chart.lines[0].points)
    assert found[1][0] - found[0][0] == pytest.approx(found[2][0] - found[1][0], abs=0.02)
    assert found[1][0] == pytest.approx(100 * math.log(2) / math.log(220), abs=0.01)
    places = [place for place, _ in chart.x_marks]
    assert all(after - before >= ROOM for before, after in pairwise(places))
    assert chart.x_marks[-1] == (100, "1,100")
    assert "1,000" not in dict(chart.x_marks).values()


def test_a_level_reaches_from_end_to_end_and_names_of_equal_levels_are_apart():
    chart = place_lines("", {"one": [(1, 0), (9, 10)]}, across="", levels={"a": 4.0, "b": 4.0})
    _, one, other = chart.lines
    assert (
        points(one.points)
        == points(other.points)
        == [(0, pytest.approx(0.6 * HEIGHT)), (100, pytest.approx(0.6 * HEIGHT))]
    )
    assert abs(one.name_y - other.name_y) >= 5
    assert one.dashed
    assert not chart.lines[0].dashed
    assert chart.lines[0].name_y is None


def test_a_band_surrounds_its_line_and_is_cut_at_the_edges():
    chart = place_lines("", {"one": [(1, 0.0), (2, 10.0)]}, across="", spread={"one": [2.0, 2.0]})
    assert points(chart.lines[0].band) == [(0, 0.8 * HEIGHT), (100, 0), (100, 0.2 * HEIGHT), (0, HEIGHT)]
    assert [text for *_, text in chart.lines[0].dots] == ["1: 0.0", "2: 10.0"]


@pytest.mark.parametrize("values", [[3.0, 3.0], [math.nan, math.nan], [math.inf, 1.0]])
def test_constant_and_infinite_values_leave_a_chart(values):
    chart = place_lines("", {"one": list(enumerate(values))}, across="")
    assert len(chart.y_marks) >= 2
    assert all(0 <= y <= HEIGHT for _, y in points(chart.lines[0].points))


def test_an_axis_of_many_epochs_has_round_marks():
    chart = place_lines("", {"one": [(epoch, 1 / epoch) for epoch in range(1, 61)]}, across="epoch")
    assert [label for _, label in chart.x_marks] == ["10", "20", "30", "40", "50", "60"]
