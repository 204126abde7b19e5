"""Line charts as SVG."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from liteseg.report.charts import line_chart


def points_of(svg):
    lines = ElementTree.fromstring(svg).findall("polyline")
    return [np.array([p.split(",") for p in line.get("points").split()], float) for line in lines]


def labels_of(svg, css):
    return [
        float(text.text)
        for text in ElementTree.fromstring(svg).findall("text")
        if text.get("class") == css
    ]


def test_points_lie_where_the_axes_say():
    """A straight line through two ticks must cross the heights of those ticks."""
    (drawn,) = points_of(svg := line_chart("t", {"a": [(0, 0.0), (5, 0.5), (10, 1.0)]}))
    assert np.allclose(drawn[1], (drawn[0] + drawn[2]) / 2, atol=0.1)
    ticks = labels_of(svg, "end")
    assert (min(ticks), max(ticks)) == (0.0, 1.0)
    grid = [float(y) for y in re.findall(r'class="grid" d="M\d+ ([\d.]+)H', svg)]
    assert drawn[0, 1] == pytest.approx(max(grid), abs=0.1)
    assert drawn[2, 1] == pytest.approx(min(grid), abs=0.1)


@pytest.mark.parametrize("values", [[3.0], [2.0, 2.0], [1e-7, 3e-7], [-5.0, 7e4], [0.0, 0.37]])
def test_any_values_stay_inside(values):
    svg = line_chart("t", {"a": list(enumerate(values))})
    (drawn,) = points_of(svg)
    assert ((drawn >= 0) & (drawn <= [400, 250])).all()
    ticks = labels_of(svg, "end")
    assert min(ticks) <= min(values) * 1.0001
    assert max(ticks) >= max(values) * 0.9999
    assert 2 <= len(ticks) <= 8


def test_long_curves_are_means():
    (drawn,) = points_of(line_chart("t", {"a": [(x, x % 2) for x in range(100_000)]}))
    assert len(drawn) == 400
    assert np.ptp(drawn[:, 1]) < 1


def test_gaps_and_names():
    svg = line_chart(
        "a < b", {"x": [(0, 1.0), (1, math.nan), (2, 2.0)], "y & z": [(0, 3.0)], "": []}
    )
    assert [len(drawn) for drawn in points_of(svg)] == [2, 1]
    texts = [text.text for text in ElementTree.fromstring(svg).findall("text")]
    assert {"a < b", "x", "y & z"} <= set(texts)


def test_nothing_to_draw():
    assert line_chart("t", {}) == line_chart("t", {"a": [], "b": [(0, math.inf)]}) == ""


def test_one_point_has_an_axis_of_its_size():
    for value in (0.85, 0.02, 1234.0):
        svg = line_chart("mIoU", {"mIoU": [(300, value)]})
        numbers = [float(text) for text in re.findall(r'class="end">([-\d.e]+)<', svg)]
        assert 0 < numbers[0] <= value <= numbers[-1] <= 1.5 * value
