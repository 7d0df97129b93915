"""Measure the dashboards of the hosts with a fleet of 500 hosts and a day in view.

A real Prometheus gets a day of what node_exporter tells, at a scrape a minute, and the recorded series by the
rules themselves. Then every query of every panel that reads such data is run as Grafana would, several times.
Goal: the 95th percentile of the panels is below 2 s. To compare, the overview's panels that read recorded
series are also computed from the raw ones. All hosts have the series that the overview and the rules read;
the first 10 (``--detailed``) also have those of the host's own dashboard, which looks at one of them.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bench import end_properly, nodes, say, verdict
from lab import panels
from lab.panels import Answer, Prometheus, Window

HOSTS = 500
MAX_P95_SECONDS = 2.0
RAW_TIMEOUT = 60.0
"""Seconds for a query without recorded series."""
OWN = {"fleetwatch-fleet", "fleetwatch-host"}


def _of_nodes(answers: Sequence[Answer], metrics: set[str]) -> list[Answer]:
    """Return those that read what the fleet has; the others have nothing to do here and would look quick.

    A dashboard of a job that is not there has no value for its variables, and would ask for everything.
    """
    elsewhere = {
        answer.dashboard
        for answer in answers
        if answer.panel.startswith(panels.VARIABLE) and not answer.series and answer.dashboard not in OWN
    }
    return [
        answer
        for answer in answers
        if answer.dashboard in OWN
        or (answer.dashboard not in elsewhere and answer.series and not panels.unknown(answer.expr, metrics))
    ]


def _rounds(prometheus: Prometheus, window: Window, rounds: int) -> list[list[Answer]]:
    return [
        [answer for dashboard in panels.dashboards() for answer in panels.ask(dashboard, prometheus, window)]
        for _ in range(rounds)
    ]


def _medians(rounds: Sequence[Sequence[Answer]]) -> Iterator[Answer]:
    for same in zip(*rounds, strict=True):
        yield replace(same[0], seconds=statistics.median(answer.seconds for answer in same))


def _raw(expr: str, expressions: dict[str, str]) -> str:
    """Return an expression that reads raw series instead of recorded ones; the same if there are none."""
    for record, computed in expressions.items():
        expr = re.sub(rf"{re.escape(record)}\{{[^}}]*\}}", f"({computed})".replace("\\", r"\\"), expr)
    return expr


def _without_rules(answers: Sequence[Answer], prometheus: Prometheus, window: Window) -> str:
    """Return what the first queries of the overview's panels take with recorded series, and without."""
    expressions = nodes.expressions()
    recorded = computed = 0.0
    queries = late = 0
    for answer in answers:
        raw = _raw(answer.expr, expressions)
        if answer.dashboard == "fleetwatch-fleet" and raw != answer.expr and answer.ref in {"", "A"}:
            again = panels.run(replace(answer, expr=raw), prometheus, window)
            if again.error and again.seconds < RAW_TIMEOUT:
                raise RuntimeError(f"{again.name}: {again.error}")
            queries += 1
            late += bool(again.error)
            recorded += answer.seconds
            computed += again.seconds
    at_least = f"at least ({late} were given up after {RAW_TIMEOUT:.0f} s) " if late else ""
    return (
        f"{queries} panels of the overview: {recorded:.2f} s; without the recording rules {at_least}"
        f"{computed:.2f} s, {computed / recorded:.0f} times as long"
    )


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", type=int, default=HOSTS)
    parser.add_argument("--detailed", type=int, default=10, help="hosts with all series of node_exporter")
    parser.add_argument("--rounds", type=int, default=3, help="the median of a query's times counts")
    options = parser.parse_args()
    end_properly()
    begin = int(time.time()) // nodes.BLOCK * nodes.BLOCK - nodes.DAY
    fleet = nodes.Fleet(options.hosts, min(options.detailed, options.hosts), begin)
    with tempfile.TemporaryDirectory(prefix="bench-dashboards-", dir="/var/tmp") as folder:  # not tmpfs
        data = Path(folder) / "data"
        data.mkdir()
        started = time.monotonic()
        samples = nodes.write(fleet, data)
        seconds = time.monotonic() - started
        say(f"{fleet.hosts} hosts, {samples / 1e6:.1f} million samples, written in {seconds:.0f} s")
        with nodes.prometheus(fleet, data) as url:
            started = time.monotonic()
            nodes.record(fleet, url, data)
            say(f"recorded series computed in {time.monotonic() - started:.0f} s")
        with nodes.prometheus(fleet, data) as url:
            return _measure(fleet, url, options.rounds)


def _measure(fleet: nodes.Fleet, url: str, rounds: int) -> int:
    prometheus = Prometheus(url)
    window = Window(float(fleet.end), float(nodes.DAY - fleet.interval), float(fleet.interval))
    metrics = set(prometheus.get("label/__name__/values"))
    answers = _of_nodes(list(_medians(_rounds(prometheus, window, rounds))), metrics)
    for line in panels.report(answers):
        say(line)
    for answer in answers:
        if answer.error or (answer.dashboard in OWN and not answer.series):
            say(f"{answer.name}: {answer.error or 'no data'}")
    p95 = panels.quantile(answers, 0.95)
    say(_without_rules(answers, Prometheus(url, RAW_TIMEOUT), window))
    return verdict(
        f"{len(answers)} queries with {fleet.hosts} hosts and 24 h: p95 of the panels {p95:.2f} s "
        f"(goal: under {MAX_P95_SECONDS:.0f} s)",
        reached=p95 < MAX_P95_SECONDS and not any(answer.error for answer in answers),
    )


if __name__ == "__main__":
    sys.exit(main())
