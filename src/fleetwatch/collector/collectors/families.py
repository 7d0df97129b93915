"""Short ways to make metric families."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

Metrics = list[Metric]
Rows = Iterable[tuple[Sequence[str], float]]
"""Values of the labels, and the value."""


def gauge(name: str, text: str, value: float) -> Metric:
    """Return a gauge of one series."""
    return GaugeMetricFamily(name, text, value)


def gauges(name: str, text: str, labels: Sequence[str], rows: Rows) -> Metric:
    """Return a gauge of several series."""
    return _filled(GaugeMetricFamily(name, text, labels=labels), rows)


def counter(name: str, text: str, value: float) -> Metric:
    """Return a counter of one series."""
    return CounterMetricFamily(name, text, value)


def counters(name: str, text: str, labels: Sequence[str], rows: Rows) -> Metric:
    """Return a counter of several series."""
    return _filled(CounterMetricFamily(name, text, labels=labels), rows)


def table(
    kind: type[GaugeMetricFamily | CounterMetricFamily],
    labels: Sequence[str],
    columns: Mapping[str, str],
    rows: Iterable[tuple[Sequence[str], Sequence[float | None]]],
) -> Metrics:
    """Return one family for each column of a table; a cell without a value makes no series.

    Args:
        kind: of all of them.
        labels: names of the labels.
        columns: name of the metric to its help text.
        rows: values of the labels, and a value for each column.

    """
    families = [kind(name, text, labels=labels) for name, text in columns.items()]
    for values, cells in rows:
        for family, cell in zip(families, cells, strict=True):
            if cell is not None:
                family.add_metric(values, cell)
    return list(families)


def old_gauge(what: str, kind: str, text: str, percent: float) -> Metric:
    """Return one of the three gauges of the system that this replaces."""
    return gauges(f"gauge_{what}_usage", text, ["type"], [([kind], percent)])


def label(text: str) -> str:
    """Return a name as UTF-8 can carry it: one of a file or a device may be any bytes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _filled(family: GaugeMetricFamily | CounterMetricFamily, rows: Rows) -> Metric:
    for values, value in rows:
        family.add_metric(values, value)
    return family
