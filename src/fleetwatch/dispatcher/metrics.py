"""What the dispatcher tells Prometheus. Each series exists from the start, so that ``rate()`` sees all."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

OUTCOMES = ("sent", "retried", "parked")


class DeliveryMetrics:
    """Of the deliveries."""

    def __init__(self, registry: CollectorRegistry, channels: Iterable[str]) -> None:
        """Register all."""
        self.deliveries = Counter(
            "alert_dispatcher_deliveries",
            "Delivery attempts by what became of them; a digest counts once for each of its notifications",
            ["channel", "outcome"],
            registry=registry,
        )
        self.messages = Counter(
            "alert_dispatcher_messages",
            "Messages that providers took; a digest counts once",
            ["channel"],
            registry=registry,
        )
        self.send_seconds = Histogram(
            "alert_dispatcher_send_seconds",
            "Time the provider took for one attempt",
            ["channel"],
            registry=registry,
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
        )
        self.handover_seconds = Histogram(
            "alert_dispatcher_handover_seconds",
            "Time from when a notification was to go out to its first attempt",
            registry=registry,
            buckets=(0.05, 0.1, 0.2, 0.3, 0.5, 1, 2.5, 5, 10, 60, 600),
        )
        self.store_failures = Counter(
            "alert_dispatcher_store_failures", "Failed reads and writes of the store", registry=registry
        )
        self.paused = Gauge(
            "alert_dispatcher_channel_paused",
            "Whether a channel is left alone now, by its circuit breaker or as its provider asks",
            ["channel"],
            registry=registry,
        )
        self.breaker_open = Gauge(
            "alert_dispatcher_breaker_open",
            "Whether a channel's circuit breaker is open or half-open",
            ["channel"],
            registry=registry,
        )
        self.breaker_trips = Counter(
            "alert_dispatcher_breaker_trips",
            "How often a channel's circuit breaker opened",
            ["channel"],
            registry=registry,
        )
        for channel in channels:
            for metric in (self.messages, self.send_seconds, self.breaker_trips):
                metric.labels(channel)
            for outcome in OUTCOMES:
                self.deliveries.labels(channel, outcome)


class ReconciliationMetrics:
    """Of the reconciliation with Alertmanager."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register all."""
        self.last_success = Gauge(
            "alert_dispatcher_reconciliation_last_success_timestamp_seconds",
            "When the incidents were last compared with all Alertmanagers; 0 before the first time",
            registry=registry,
        )
        self.failures = Counter(
            "alert_dispatcher_reconciliation_failures",
            "Comparisons that were given up, mostly because an Alertmanager did not answer",
            registry=registry,
        )
        self.opened = Counter(
            "alert_dispatcher_reconciliation_opened",
            "Incidents found to have begun, of which Alertmanager did not tell",
            registry=registry,
        )
        self.closed = Counter(
            "alert_dispatcher_reconciliation_closed", "Incidents found to be over", registry=registry
        )
        self.reopened = Counter(
            "alert_dispatcher_reconciliation_reopened", "Incidents found to fire again", registry=registry
        )


class HeartbeatMetrics:
    """Of the heartbeats to dead man's switches outside."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register all."""
        self.sent = Counter(
            "alert_dispatcher_heartbeats_sent", "Heartbeats that were taken outside", registry=registry
        )
        self.failures = Counter(
            "alert_dispatcher_heartbeat_failures", "Heartbeats that were not taken outside", registry=registry
        )
        self.withheld = Counter(
            "alert_dispatcher_heartbeats_withheld",
            "Times that no heartbeat was sent, since something is not well",
            registry=registry,
        )


class HousekeepingMetrics:
    """Of the housekeeping."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register all."""
        self.last_success = Gauge(
            "alert_dispatcher_housekeeping_last_success_timestamp_seconds",
            "When old incidents were last deleted; 0 before the first time",
            registry=registry,
        )
        self.failures = Counter(
            "alert_dispatcher_housekeeping_failures", "Failed attempts at it", registry=registry
        )
        self.pruned = Counter(
            "alert_dispatcher_housekeeping_pruned", "Incidents deleted for their age", registry=registry
        )
