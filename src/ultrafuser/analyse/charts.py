"""Small inline SVG charts for the report, coloured by the page's style sheet so that they follow light and dark mode.

A plotting library's picture has its colours fixed, cannot show a sample's weights under the pointer, and is much larger.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 460.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 12.0, 10.0, 34.0
SERIES_POINTS = 400  # more points than pixels only make the file larger
LOG_FROM = 8.0  # a series that falls to less than an eighth is drawn on a logarithmic axis


@dataclass(frozen=True)
class LossCurve:
    """Training loss of one stage: ``losses[domain][i]`` was measured at ``steps[i]``; None or NaN where there was none."""

    stage: str
    steps: Sequence[int]
    losses: Mapping[str, Sequence[float | None]]
    note: str = ""


@dataclass(frozen=True)
class Axis:
    """A value axis: ``place`` maps a value to 0 (bottom) .. 1 (top); ``ticks`` are the values to label."""

    place: Callable[[float], float]
    ticks: list[float] = field(default_factory=list)


def loss_chart(curve: LossCurve, line_of: Mapping[str, int]) -> str:
    """Draw a stage's losses, a line per domain: faint as measured, strong smoothed.

    ``line_of`` gives each domain's colour number.
    """
    series = {name: _known(curve.steps, values) for name, values in curve.losses.items()}
    drawn = {name: points for name, points in series.items() if len(points)}
    if not drawn:
        return '<p class="quiet">no losses were logged</p>'
    every = np.concatenate(list(drawn.values()))
    first, last = float(every[:, 0].min()), float(every[:, 0].max())
    axis = value_axis(every[:, 1])

    def at(step: float, loss: float) -> tuple[float, float]:
        across = (step - first) / ((last - first) or 1)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - axis.place(loss) * (HEIGHT - TOP - BOTTOM)

    parts = [_grid(axis, at, first, last)]
    for name, points in drawn.items():
        smooth = smoothed(points)
        if len(points) > 40:
            parts.append(_line(points, at, line_of[name], "raw", ""))
        parts.append(_line(smooth, at, line_of[name], "series", f"{name}: {points[0, 1]:.3f} to {smooth[-1, 1]:.3f}"))
    label = html.escape(f"training loss per domain, {curve.stage}")
    box = f'viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}"'
    return f'<svg class="chart" {box} role="img" aria-label="{label}">{"".join(parts)}</svg>'


def value_axis(values: NDArray[np.float64]) -> Axis:
    """Choose an axis for losses: logarithmic when they span a wide range, else linear, with about five round ticks."""
    low, high = float(values.min()), float(values.max())
    if low > 0 and high / low > LOG_FROM:
        span = math.log(high / low)
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [mantissa * 10.0**decade for decade in decades for mantissa in ((1, 2, 5) if len(decades) < 5 else (1,))]
        return Axis(lambda value: math.log(max(value, low) / low) / span, [tick for tick in ticks if low <= tick <= high])
    step = _round_step((high - low) / 4 or 1.0)
    bottom, top = math.floor(low / step) * step, math.ceil(high / step) * step
    top = top if top > bottom else bottom + step
    count = round((top - bottom) / step)
    return Axis(lambda value: (value - bottom) / (top - bottom), [bottom + number * step for number in range(count + 1)])


def smoothed(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """A moving mean over a twentieth of the points, (P, 2) from (P, 2); at the ends over the part of the window that exists."""
    half = len(points) // 40
    sums = np.concatenate([[0.0], np.cumsum(points[:, 1])])
    places = np.arange(len(points))
    low, high = np.maximum(places - half, 0), np.minimum(places + half + 1, len(points))
    return np.stack([points[:, 0], (sums[high] - sums[low]) / (high - low)], axis=1)


def heat_map(samples: Sequence[NDArray[np.float32]], titles: Sequence[str]) -> str:
    """Samples across, specialists down: each cell is the specialist's colour, the stronger the larger its mean weight.

    ``samples`` holds one (N,) array each, ``titles`` the text shown when the pointer rests on a sample.
    """
    columns = []
    for x, (means, title) in enumerate(zip(samples, titles, strict=True)):
        cells = (
            f'<rect class="fill{y}" x="{x}" y="{y}" width="1" height="1" opacity="{mean:.2f}"/>' for y, mean in enumerate(means)
        )
        columns.append(f"<g><title>{html.escape(title)}</title>{''.join(cells)}</g>")
    down = len(samples[0])
    box = f'viewBox="0 0 {len(samples)} {down}" preserveAspectRatio="none"'
    return f'<svg class="heat" {box} style="--rows:{down}">{"".join(columns)}</svg>'


def _known(steps: Sequence[int], values: Sequence[float | None]) -> NDArray[np.float64]:
    """The finite points of a series, thinned to `SERIES_POINTS` by averaging neighbours; (P, 2)."""
    known = [(step, value) for step, value in zip(steps, values, strict=True) if value is not None and math.isfinite(value)]
    points = np.array(known, dtype=float).reshape(-1, 2)
    chunks = np.array_split(points, min(len(points), SERIES_POINTS)) if len(points) else []
    return np.array([chunk.mean(0) for chunk in chunks]).reshape(-1, 2)


def _round_step(rough: float) -> float:
    scale = 10.0 ** math.floor(math.log10(rough))
    return next(mantissa * scale for mantissa in (1, 2, 2.5, 5, 10) if mantissa * scale >= rough * 0.999)


def _line(
    points: NDArray[np.float64], at: Callable[[float, float], tuple[float, float]], number: int, kind: str, title: str
) -> str:
    placed = [at(*point) for point in points]
    if len(placed) == 1:
        placed = [(placed[0][0] - 3, placed[0][1]), (placed[0][0] + 3, placed[0][1])]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    return f'<polyline class="{kind} line{number}" points="{path}"><title>{html.escape(title)}</title></polyline>'


def _grid(axis: Axis, at: Callable[[float, float], tuple[float, float]], first: float, last: float) -> str:
    parts = []
    for tick in axis.ticks:
        _, y = at(first, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{tick:.3g}</text>')
    bottom = HEIGHT - BOTTOM
    for step in sorted({first, (first + last) / 2, last}):
        x = LEFT + (step - first) / ((last - first) or 1) * (WIDTH - LEFT - RIGHT)
        anchor = "start" if step == first else "end" if step == last else "middle"
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 15}" text-anchor="{anchor}">{step:,.0f}</text>')
    parts.append(f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">step</text>')
    return "".join(parts)
