"""Averages and points, from as many queries as it takes: memory does not grow with the time asked for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from fleetwatch.collector.usage import promql
from fleetwatch.collector.usage.params import Question
from fleetwatch.collector.usage.prometheus import Prometheus, RefusedError, Series, TooMuchError
from fleetwatch.collector.usage.settings import MAX_STEPS, UsageSettings

DIGITS = 4
"""Digits after the point of a percentage."""

_GUESS = 1000  # hosts that the first query expects if it cannot know


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
    sources = settings.expressions.of(question.resource)
    careful = False
    found: dict[str, HostAverage] = {}
    for at, steps, window in _windows(question, settings.query_samples, math.inf):
        query = (
            promql.sums(expression(question, settings), steps, question.step)
            if careful
            else promql.quick_sums(sources, question.names, steps, question.step)
        )
        end = at + (steps - 1) * question.step + question.step / 2
        try:
            series = _with_host(prometheus.query(query, end))
        except TooMuchError:
            if not window.shorten():
                raise
            continue
        except RefusedError:
            if careful:
                raise
            careful = True
            continue
        if not careful and not _plain(series):
            careful = True
            continue
        for one in series:
            host = found.setdefault(one.labels["host"], HostAverage())
            value = float(one.points[0][1])
            if one.labels["fleetwatch_of"] == "sum":
                host.total += value
            else:
                host.count += int(value)
                host.by_source[sources[int(one.labels[promql.SOURCE])].name] += int(value)
        window.go_on(len({one.labels["host"] for one in series}))
    return dict(sorted(found.items()))


def _plain(series: list[Series]) -> bool:
    """Tell whether each host has one sum from a source, which is a number."""
    keys = {(one.labels["host"], one.labels[promql.SOURCE], one.labels["fleetwatch_of"]) for one in series}
    return len(keys) == len(series) and all(math.isfinite(float(one.points[0][1])) for one in series)


def overall(found: dict[str, HostAverage]) -> float:
    """Return the mean over all hosts; each counts for as long as there are values of it."""
    total = math.fsum(host.total for host in found.values())
    return round(total / sum(host.count for host in found.values()), DIGITS)


def points(prometheus: Prometheus, settings: UsageSettings, question: Question) -> Iterator[list[Point]]:
    """Yield the points in parts, by time and then by host; no part is empty. Raises PrometheusError."""
    values = promql.values(settings.expressions.of(question.resource), question.names)
    for at, steps, window in _windows(question, settings.query_points, MAX_STEPS):
        try:
            last = at + (steps - 1) * question.step
            series = _with_host(prometheus.query_range(values, at, last, question.step))
        except TooMuchError:
            if not window.shorten():
                raise
            continue
        window.go_on(len({one.labels["host"] for one in series}))
        if part := _sorted(series):
            yield part


def _with_host(series: list[Series]) -> list[Series]:
    """Leave out what an expression of the site's own tells of no host."""
    return [one for one in series if one.labels.get("host")]


def _sorted(series: list[Series]) -> list[Point]:
    """Return the points by time and host: the highest of a host, and no more than numbers."""
    highest: dict[tuple[int, str], float] = {}
    for one in series:
        host = one.labels["host"]
        for at, text in one.points:
            value = float(text)
            if math.isfinite(value) and value > highest.get((int(at), host), -math.inf):
                highest[int(at), host] = value
    return [(at, host, round(value, DIGITS)) for (at, host), value in sorted(highest.items())]


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
