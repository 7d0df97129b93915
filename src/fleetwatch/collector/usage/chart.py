"""The page's chart: points become lines, ticks and labels of an SVG, which the template draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

WIDTH, HEIGHT = 960, 320
"""Size of the whole picture, in its own units."""
LEFT, RIGHT, TOP, BOTTOM = 72, 14, 14, 32
"""Room around the lines."""

_TICKS = 8
_TICK_STEPS = (
    60,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    10800,
    21600,
    43200,
    86400,
    172800,
    604800,
    1209600,
    2592000,
)
_DAY = 86400
_SCALES = (1, 2, 5, 10, 20, 25, 50, 100)

Values = Mapping[int, float]
"""Time in seconds to percent."""


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """The line of one host."""

    name: str
    number: int
    """Which colour it has."""
    path: str
    """As the attribute ``d`` of an SVG path."""
    points: list[list[float]] = field(default_factory=list)
    """Time and percent, for the script."""


@dataclass(frozen=True)
class Chart:
    """All that is drawn."""

    lines: Sequence[Line]
    times: Sequence[Tick]
    scale: Sequence[Tick]
    start: float
    end: float
    top: float
    """Percent at the upper edge."""


def draw(series: Sequence[tuple[str, Values]], start: float, end: float, step: int) -> Chart:
    """Return the chart of some hosts' values; a gap of more than a step is not drawn over."""
    highest = max((value for _, values in series for value in values.values()), default=0.0)
    top = _scale(highest)
    plot_width, plot_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(at: float) -> float:
        return round(LEFT + (at - start) / (end - start) * plot_width, 1)

    def y(value: float) -> float:
        return round(TOP + (1 - min(max(value, 0.0), top) / top) * plot_height, 1)

    lines = []
    for number, (name, values) in enumerate(series):
        path = []
        before = None
        for at, value in sorted(values.items()):
            joined = before is not None and at - before <= step
            # A lone value is a dot: a line of no length with round ends.
            path.append(f"L{x(at)} {y(value)}" if joined else f"M{x(at)} {y(value)}h0")
            before = at
        points = [[at, round(value, 2)] for at, value in sorted(values.items())]
        lines.append(Line(name, number, "".join(path), points))
    scale = [Tick(y(top * part / 5), f"{top * part / 5:g} %") for part in range(6)]
    times = [Tick(x(at), _say(at, end - start)) for at in _times(start, end)]
    return Chart(lines, times, scale, start, end, top)


def _scale(highest: float) -> float:
    """Return a round number that is not below the highest value."""
    if highest > _SCALES[-1]:
        return math.ceil(highest / 100) * 100.0
    return float(next(scale for scale in _SCALES if scale >= highest))


def _times(start: float, end: float) -> Sequence[int]:
    step = next((step for step in _TICK_STEPS if (end - start) / step <= _TICKS), None)
    if step is None:
        step = math.ceil((end - start) / _TICKS / _DAY) * _DAY
    return range(math.ceil(start / step) * step, math.floor(end) + 1, step)


def _say(at: int, length: float) -> str:
    time = datetime.fromtimestamp(at, UTC)
    if length > 2 * _DAY or (time.hour, time.minute) == (0, 0):
        return f"{time:%d %b}" if length <= 365 * _DAY or time.hour else f"{time:%b %Y}"
    return f"{time:%H:%M}"
