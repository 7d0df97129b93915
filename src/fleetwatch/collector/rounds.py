"""Rounds: all collectors run once, and what came of it, as Prometheus gets it."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from threading import Event, Lock

from prometheus_client import Metric
from prometheus_client.registry import Collector

from . import SERVICE
from .collectors import Collect
from .collectors.families import Metrics, counters, gauges
from .guard import REASONS, Guard, Outcome, Reason

log = logging.getLogger(__name__)

LATE = 3
"""Intervals after which a round that has not come is missed."""


class Rounds(Collector):
    """Runs rounds at each scrape, or on an interval, and serves the newest.

    What a collector could not tell in a round is absent: a value from before would look as if it were new.
    """

    def __init__(
        self,
        collectors: Mapping[str, Collect],
        limit: Callable[[str], float],
        total: float,
        interval: float = 0,
    ) -> None:
        """Take the collectors by name, and the times.

        Args:
            collectors: those to run.
            limit: seconds that a collector may take.
            total: seconds that all of them may take together.
            interval: seconds between two rounds; 0 for one at each scrape.

        """
        self._collectors, self._limit, self._total, self._interval = collectors, limit, total, interval
        self._guard = Guard()
        self._lock = Lock()
        self._ended = 0.0
        self._served: Metrics = []
        self._failing: dict[str, str] = {}
        self._failures: Counter[tuple[str, Reason]] = Counter()
        self._good: dict[str, float] = {}

    def describe(self) -> Iterable[Metric]:
        """Announce no names, so that registering runs nothing."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of the newest round, after a new one unless there is an interval."""
        if not self._interval:
            self.run()
        return self._served

    def run(self) -> None:
        """Run a round; when one ends that was waited for, that one counts as well."""
        came = time.monotonic()
        with self._lock:
            if self._ended >= came:
                return
            outcomes = self._guard.run(self._collectors, self._limit, self._total)
            self._keep(outcomes)
            own = self._own(outcomes)
            self._served = [
                *(metric for outcome in outcomes.values() for metric in outcome.result or ()),
                *own,
            ]
            self._ended = time.monotonic()

    def keep_running(self, stop: Event) -> None:
        """Run rounds on the interval until ``stop``."""
        due = time.monotonic() + self._interval
        while not stop.wait(max(0.0, due - time.monotonic())):
            self.run()
            due = max(due + self._interval, time.monotonic())

    def ready(self) -> str | None:
        """Return why there is nothing to serve, or None."""
        if not self._ended:
            return "no round has ended yet"
        if len(self._failing) == len(self._collectors):
            return f"no collector works: {next(iter(self._failing.values()))}"
        age = time.monotonic() - self._ended
        if self._interval and age > LATE * self._interval + self._total:
            return f"the last round ended {age:.0f} s ago"
        return None

    def _keep(self, outcomes: Mapping[str, Outcome[Metrics]]) -> None:
        """Remember who fails, and log a change."""
        now = time.time()
        for name, outcome in outcomes.items():
            if outcome.reason is None:
                self._good[name] = now
                if self._failing.pop(name, None) is not None:
                    log.info("collector works again", extra={"collector": name})
                continue
            self._failures[name, outcome.reason] += 1
            if name not in self._failing:
                details = {"collector": name, "reason": outcome.reason, "error": outcome.message}
                log.warning("collector fails", extra=details)
            self._failing[name] = f"{name}: {outcome.message}"

    def _own(self, outcomes: Mapping[str, Outcome[Metrics]]) -> Metrics:
        return [
            gauges(
                f"{SERVICE}_success",
                "Whether the collector told its metrics.",
                ["collector"],
                (([name], outcome.reason is None) for name, outcome in outcomes.items()),
            ),
            gauges(
                f"{SERVICE}_duration_seconds",
                "Time that the collector took, or was waited for.",
                ["collector"],
                (([name], outcome.seconds) for name, outcome in outcomes.items()),
            ),
            gauges(
                f"{SERVICE}_last_success_timestamp_seconds",
                "When the collector last told its metrics.",
                ["collector"],
                (([name], at) for name, at in self._good.items()),
            ),
            counters(
                f"{SERVICE}_failures",
                "Rounds in which the collector raised (error), took too long (timeout), or had not returned "
                "from a round before (busy).",
                ["collector", "reason"],
                (
                    ((name, reason), self._failures[name, reason])
                    for name in self._collectors
                    for reason in REASONS
                ),
            ),
        ]
