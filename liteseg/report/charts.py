"""Line charts as SVG text, to be put into an HTML page: no script, no font, no request."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 400, 250  # units; the text is 12 of them, readable on a phone
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 30, 28
_MOST_POINTS = 400  # of a curve: more can't be told apart
COLOURS = ("#1f6fb4", "#d1592c", "#2f8f5b", "#7b57a8")


def line_chart(title: str, curves: Mapping[str, Points]) -> str:
    """An `<svg>` with one line for each curve; "" if there is no point.

    Args:
        title: above the chart.
        curves: name -> (x, y) by ascending x. What is not finite is left out. A long curve is
            drawn by the means of neighbouring points.
    """
    kept = {
        name: _thin([p for p in points if math.isfinite(p[1])]) for name, points in curves.items()
    }
    kept = {name: points for name, points in kept.items() if len(points)}
    if not kept:
        return ""
    every = np.concatenate(list(kept.values()))
    xs, ys = _ticks(*_range(every[:, 0])), _ticks(*_range(every[:, 1]))
    (left, right), (low, high) = _range(every[:, 0]), (ys[0], ys[-1])

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


def _lines(curves: Mapping[str, np.ndarray], place) -> list[str]:
    """The curves, and their names at the top from the right if there are several."""
    parts, at = [], _WIDTH - _RIGHT
    for colour, (name, points) in zip(COLOURS, curves.items()):
        drawn = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in points)
        parts.append(f'<polyline points="{drawn}" stroke="{colour}"/>')
        if len(points) <= 40:
            dots = (place(*point) for point in points)
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in dots
            ]
        if len(curves) > 1:
            parts.append(f'<text x="{at}" y="16" class="end" fill="{colour}">{escape(name)}</text>')
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
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers that enclose `low` to `high`."""
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, last + 1)]
