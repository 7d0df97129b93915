"""What the receiver tells Prometheus."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from fleetwatch.store import Store
from fleetwatch.store.heartbeats import source

REFUSALS = (
    "bad_alert",
    "bad_json",
    "bad_request",
    "content_type",
    "too_large",
    "too_many_alerts",
    "truncated",
)
AUTH_FAILURES = ("no_credentials", "bad_credentials", "forbidden", "cross_site", "csrf")
_USUAL_SEVERITIES = ("critical", "warning", "info")

log = logging.getLogger(__name__)


class Metrics:
    """The receiver's counters, and gauges that are read from the store at each scrape."""

    def __init__(self, registry: CollectorRegistry, store: Store, external_url: str = "") -> None:
        """Register all; each series exists from the start, so that ``rate()`` sees the first event.

        ``external_url`` is where people reach the receiver, if that is known.
        """
        self.accepted = Counter(
            "alert_receiver_alerts_accepted",
            "Alert transitions committed to disk",
            ["status"],
            registry=registry,
        )
        self.duplicates = Counter(
            "alert_receiver_alerts_duplicate", "Alerts that told nothing new", registry=registry
        )
        self.heartbeats = Counter(
            "alert_receiver_heartbeats", "Watchdogs that came, each a heartbeat", registry=registry
        )
        self.refused = Counter(
            "alert_receiver_refused",
            "Requests and single alerts that were refused and never will be good",
            ["reason"],
            registry=registry,
        )
        self.commit_failures = Counter(
            "alert_receiver_commit_failures",
            "Requests answered 503 because the store did not take them",
            registry=registry,
        )
        self.commit_seconds = Histogram(
            "alert_receiver_commit_seconds",
            "Time to commit the alerts of one request",
            registry=registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )
        self.group_requests = Histogram(
            "alert_receiver_commit_group_requests",
            "Requests committed together in one transaction",
            registry=registry,
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
        )
        self.auth_failures = Counter(
            "alert_receiver_auth_failures",
            "Requests refused because of who sent them, or from where",
            ["reason"],
            registry=registry,
        )
        for status in ("firing", "resolved"):
            self.accepted.labels(status)
        for reason in REFUSALS:
            self.refused.labels(reason)
        for reason in AUTH_FAILURES:
            self.auth_failures.labels(reason)
        if external_url:
            info = Gauge(
                "alert_receiver_info",
                "Always 1; where people reach the receiver, for links of dashboards",
                ["external_url"],
                registry=registry,
            )
            info.labels(external_url.rstrip("/")).set(1)
        registry.register(_StoreCollector(store))


class _StoreCollector(Collector):
    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self) -> Iterator[Metric]:
        """Tell the registry the names without reading the store."""
        return iter(_gauges())

    def collect(self) -> Iterator[Metric]:
        """Read the gauges; without the store they are absent, and the other metrics still served."""
        try:
            by_severity = dict.fromkeys(_USUAL_SEVERITIES, (0, 0)) | self._store.acknowledged_by_severity()
            depth = self._store.depth()
            watchdogs = self._store.watchdogs()
        except SQLAlchemyError:
            log.exception("store not readable for metrics")
            return
        open_incidents, acknowledged, queued, oldest, parked, heartbeat_age = _gauges()
        now = datetime.now(UTC)
        for severity, (count, of_these) in by_severity.items():
            open_incidents.add_metric([severity], count)
            acknowledged.add_metric([severity], of_these)
        queued.add_metric([], depth.queued)
        oldest.add_metric([], depth.oldest_age)
        parked.add_metric([], depth.parked)
        ages: dict[str, float] = {}
        for row in watchdogs:  # two may differ only in name or severity
            name = source(row.labels)
            ages[name] = max((now - row.beat_at).total_seconds(), ages.get(name, 0.0))
        for name, age in ages.items():
            heartbeat_age.add_metric([name], age)
        yield from (open_incidents, acknowledged, queued, oldest, parked, heartbeat_age)


def _gauges() -> tuple[GaugeMetricFamily, ...]:
    return (
        GaugeMetricFamily("alert_receiver_open_incidents", "Incidents that are firing", labels=["severity"]),
        GaugeMetricFamily(
            "alert_receiver_acknowledged_incidents",
            "Incidents that are firing and acknowledged",
            labels=["severity"],
        ),
        GaugeMetricFamily("alert_receiver_outbox_depth", "Notifications that wait for delivery", labels=[]),
        GaugeMetricFamily(
            "alert_receiver_outbox_oldest_age_seconds",
            "Age of the oldest notification that waits for delivery",
            labels=[],
        ),
        GaugeMetricFamily(
            "alert_receiver_parked_notifications", "Notifications given up for good", labels=[]
        ),
        GaugeMetricFamily(
            "alert_receiver_heartbeat_age_seconds",
            "Time since the last heartbeat, by the labels that tell one Prometheus from others; since it is "
            "expected, when none has ever come",
            labels=["source"],
        ),
    )
