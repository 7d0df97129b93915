"""The simulated hosts as Prometheus metrics, and the simulator's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from . import SERVICE
from .fleet import Fleet, Snapshot
from .model import DISK_SIZE, Reading

Family = GaugeMetricFamily | CounterMetricFamily
_NONE: dict[str, str] = {}
_DISK = {"device": "/dev/vda1", "fstype": "ext4", "mountpoint": "/"}
_NETWORK = {"device": "eth0"}

_Row = tuple[type[Family], str, str, dict[str, str], Callable[[Reading], float]]
_METRICS: tuple[_Row, ...] = (
    (GaugeMetricFamily, "custom_cpu_usage", "CPU in use, percent of all cores.", _NONE, lambda r: r.cpu),
    (GaugeMetricFamily, "custom_memory_usage", "Memory in use, percent.", _NONE, lambda r: r.memory),
    (
        GaugeMetricFamily,
        "node_filesystem_size_bytes",
        "Filesystem size in bytes.",
        _DISK,
        lambda _: DISK_SIZE,
    ),
    (
        GaugeMetricFamily,
        "node_filesystem_avail_bytes",
        "Filesystem space available to non-root users in bytes.",
        _DISK,
        lambda r: round(DISK_SIZE * (1 - r.disk / 100)),
    ),
    (GaugeMetricFamily, "node_load1", "1m load average.", _NONE, lambda r: r.load),
    (
        CounterMetricFamily,
        "node_network_receive_bytes_total",
        "Network device statistic receive_bytes.",
        _NETWORK,
        lambda r: int(r.received),
    ),
)


class HostCollector(Collector):
    """The metrics of a snapshot's hosts; silent hosts have none.

    Each series carries ``host`` and ``instance`` = the simulated host. In the Pushgateway these come from the
    group, so one host is collected with ``labelled=False``; where Prometheus scrapes the simulator itself
    they stand on the series. Either way the scrape job needs ``honor_labels: true`` to keep them.
    """

    def __init__(self, snapshot: Callable[[], Snapshot], *, labelled: bool) -> None:
        """Collect what a call of ``snapshot`` returns."""
        self._snapshot, self._labelled = snapshot, labelled

    def describe(self) -> Iterable[Metric]:
        """Announce the names, so that registering takes no snapshot."""
        return _families({}, labelled=self._labelled)

    def collect(self) -> Iterable[Metric]:
        """Return one family per metric."""
        readings = {host: reading for host, reading in self._snapshot().items() if reading is not None}
        return _families(readings, labelled=self._labelled)


def _families(readings: dict[str, Reading], *, labelled: bool) -> list[Metric]:
    families: list[Metric] = []
    for kind, name, help_text, labels, value in _METRICS:
        family = kind(name, help_text)
        for host, reading in readings.items():
            identity = {"host": host, "instance": host} if labelled else {}
            family.add_sample(name, identity | labels, value(reading))
        families.append(family)
    return families


class OwnMetrics:
    """What the simulator says about itself."""

    def __init__(self, registry: CollectorRegistry, fleet: Fleet) -> None:
        """Register the metrics."""
        prefix = SERVICE
        self.pushes = Counter(
            f"{prefix}_pushes", "Requests to the Pushgateway.", ["result"], registry=registry
        )
        for result in ("ok", "error"):
            self.pushes.labels(result)
        self.round_seconds = Histogram(
            f"{prefix}_round_seconds", "Time taken to push the whole fleet once.", registry=registry
        )
        self.last_success = Gauge(
            f"{prefix}_last_success_timestamp_seconds",
            "When the whole fleet was last pushed.",
            registry=registry,
        )
        Gauge(f"{prefix}_hosts", "Simulated hosts.", registry=registry).set(len(fleet.names))
        Gauge(f"{prefix}_incidents", "Incidents that run or wait.", registry=registry).set_function(
            lambda: len(fleet.incidents())
        )
