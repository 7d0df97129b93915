"""Averages and points, from as many queries as it takes: memory does not grow with the time asked for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from fleetwatch.collector.usage import promql
from fleetwatch.collector.usage.params import Question
from fleetwatch.collector.usage.prometheus import Prometheus, Series, TooMuchError
from fleetwatch.collector.usage.settings import MAX_STEPS, UsageSettings

DIGITS = 4
"""Digits after the point of a percentage."""

_GUESS = 100  # hosts that the first query expects if it cannot know


@dataclass
class HostAverage:
    """What one host used."""

    total: float = 0.0
    count: int = 0
    by_source: Counter[str] = field(default_factory=Counter)

    @property
    def average(self) -> float:
        """Return the mean of its values, in percent."""
        return round(self.total / self.count, DIGITS)


Point = tuple[int, str, float]
"""Time in seconds, host, percent."""


def expression(question: Question, settings: UsageSettings) -> str:
    """Return the PromQL for the values of a question."""
    return promql.usage(settings.expressions.of(question.resource), question.names)


def averages(prometheus: Prometheus, settings: UsageSettings, question: Question) -> dict[str, HostAverage]:
    """Return each host's average over the time asked for; a host without any value is left out.

    Sums and numbers of values add up over the windows that the time is split into, so the result is that of
    one ``avg_over_time``, however many there are. Raises PrometheusError.
    """
    sources = [source.name for source in settings.expressions.of(question.resource)]
    values = expression(question, settings)
    found: dict[str, HostAverage] = {}
    for at, steps, window in _windows(question, settings.query_samples, math.inf):
        end = at + (steps - 1) * question.step + question.step / 2
        try:
            series = prometheus.query(promql.sums(values, steps, question.step), end)
        except TooMuchError:
            if not window.shorten():
                raise
            continue
        for one in series:
            host = found.setdefault(one.labels["host"], HostAverage())
            value = float(one.points[0][1])
            if one.labels["fleetwatch_of"] == "sum":
                host.total += value
            else:
                host.count += int(value)
                host.by_source[sources[int(one.labels[promql.SOURCE])]] += int(value)
        window.go_on(len({one.labels["host"] for one in series}))
    return dict(sorted(found.items()))


def overall(found: dict[str, HostAverage]) -> float:
    """Return the mean over all hosts; each counts for as long as there are values of it."""
    total = math.fsum(host.total for host in found.values())
    return round(total / sum(host.count for host in found.values()), DIGITS)


def points(prometheus: Prometheus, settings: UsageSettings, question: Question) -> Iterator[list[Point]]:
    """Yield the points in parts, by time and then by host; no part is empty. Raises PrometheusError."""
    values = expression(question, settings)
    for at, steps, window in _windows(question, settings.query_points, MAX_STEPS):
        try:
            series = prometheus.query_range(values, at, at + (steps - 1) * question.step, question.step)
        except TooMuchError:
            if not window.shorten():
                raise
            continue
        window.go_on(len({one.labels["host"] for one in series}))
        if part := _sorted(series):
            yield part


def _sorted(series: list[Series]) -> list[Point]:
    return sorted(
        (int(at), one.labels["host"], round(float(value), DIGITS))
        for one in series
        for at, value in one.points
    )


class _Window:
    """The part of the time that is asked for next: as long as the number of hosts allows."""

    def __init__(self, question: Question, budget: int, longest: float) -> None:
        self._question = question
        self._budget = budget
        self._longest = longest
        self.done = 0
        self._length = self._fitting(len(question.names) if question.names else _GUESS)

    def _fitting(self, hosts: int) -> int:
        return max(1, int(min(self._budget // max(1, hosts), self._longest)))

    @property
    def steps(self) -> int:
        return min(self._length, self._question.steps - self.done)

    def shorten(self) -> bool:
        """Ask for half of it; return false when it cannot be less."""
        possible = self.steps > 1
        self._length = max(1, self.steps // 2)
        return possible

    def go_on(self, hosts: int) -> None:
        """Go on after an answer with so many hosts."""
        self.done += self.steps
        # A fleet may grow all of a sudden: longer only by and by.
        self._length = min(self._fitting(hosts), 4 * self._length)


def _windows(question: Question, budget: int, longest: float) -> Iterator[tuple[int, int, _Window]]:
    """Yield begin and number of steps of each window, until the user has called ``go_on`` for the last."""
    window = _Window(question, budget, longest)
    while window.steps > 0:
        yield question.first + window.done * question.step, window.steps, window
