"""Line charts as SVG text for an HTML page: no scripts, fonts or requests."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 400, 250  # units; the text is 12 of them high, readable on a phone
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 30, 28
_MOST_POINTS = 400  # per curve: more can't be distinguished
_COLORS = ("#1f6fb4", "#d1592c", "#2f8f5b", "#7b57a8")


def line_chart(title: str, curves: Mapping[str, Points]) -> str:
    """An `<svg>` with one line for each curve; "" if there is no point.

    Args:
        title: text above the chart.
        curves: name -> (x, y) by ascending x. Values that are not finite are left out. A long
            curve is drawn by the means of neighboring points.
    """
    finite = {name: [p for p in points if math.isfinite(p[1])] for name, points in curves.items()}
    kept = {name: _thin(points) for name, points in finite.items() if points}
    if not kept:
        return ""
    points = np.concatenate(list(kept.values()))
    xs, ys = _ticks(*_range(points[:, 0])), _ticks(*_range(points[:, 1]))
    (left, right), (low, high) = _range(points[:, 0]), (ys[0], ys[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)
        up = (y - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)
        return _LEFT + across, _HEIGHT - _BOTTOM - up

    parts = [f'<text x="{_LEFT}" y="16" class="title">{escape(title)}</text>']
    for y in ys:
        _, at = place(left, y)
        parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" class="end">{y:.4g}</text>')
    for x in (x for x in xs if left <= x <= right):
        at, _ = place(x, low)
        parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - 8}" class="middle">{x:.6g}</text>')
    parts += _lines(kept, place)
    box = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}"'
    return f"<svg {box}>{''.join(parts)}</svg>"


def _lines(
    curves: Mapping[str, np.ndarray], place: Callable[[float, float], tuple[float, float]]
) -> list[str]:
    """The curves, and their names at the top right if there are several."""
    parts, at = [], _WIDTH - _RIGHT
    for color, (name, points) in zip(_COLORS, curves.items()):
        drawn = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in points)
        parts.append(f'<polyline points="{drawn}" stroke="{color}"/>')
        if len(points) <= 40:
            dots = (place(*point) for point in points)
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>' for x, y in dots
            ]
        if len(curves) > 1:
            parts.append(
                f'<text x="{at}" y="16" class="end" style="fill:{color}">{escape(name)}</text>'
            )
            at -= 8 * len(name) + 12
    return parts


def _thin(points: Points) -> np.ndarray:
    """(at most _MOST_POINTS, 2): means of consecutive points where there are more."""
    array = np.array(points, np.float64).reshape(-1, 2)
    if len(array) <= _MOST_POINTS:
        return array
    return np.array([part.mean(axis=0) for part in np.array_split(array, _MOST_POINTS)])


def _range(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if high > low:
        return low, high
    half = max(abs(low) / 10, 1e-3)  # one value: an axis of its own order of magnitude
    return low - half, high + half


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers that enclose `low` to `high`."""
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, last + 1)]
