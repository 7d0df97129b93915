"""What the usage API tells Prometheus of itself."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

ENDPOINTS = ("avg_usage", "metrics_usage", "alert", "page", "other")
OUTCOMES = ("ok", "refused", "failed")


class Metrics:
    """All of them; each series exists from the start, so that ``rate()`` sees the first event."""

    def __init__(self, registry: CollectorRegistry, urls: Sequence[str]) -> None:
        """Register them; ``urls`` are those of Prometheus."""
        self.requests = Counter(
            "metrics_api_requests",
            "Requests: ok, refused as wrong (4xx), failed (5xx, or broken off in the middle of the answer)",
            ["endpoint", "outcome"],
            registry=registry,
        )
        self.seconds = Histogram(
            "metrics_api_request_seconds",
            "Time until the end of the answer",
            ["endpoint"],
            registry=registry,
            buckets=(0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
        )
        self.points = Counter(
            "metrics_api_points", "Points sent to callers or averaged for them", registry=registry
        )
        self.prometheus_requests = Counter(
            "metrics_api_prometheus_requests",
            "Requests to each Prometheus: ok, away, slow or refused by it",
            ["prometheus", "outcome"],
            registry=registry,
        )
        self.prometheus_up = Gauge(
            "metrics_api_prometheus_up",
            "1 while this Prometheus answers the usage API",
            ["prometheus"],
            registry=registry,
        )
        for endpoint in ENDPOINTS:
            self.seconds.labels(endpoint)
            for outcome in OUTCOMES:
                self.requests.labels(endpoint, outcome)
        for url in urls:
            for outcome in ("ok", "away", "slow", "refused"):
                self.prometheus_requests.labels(url, outcome)
