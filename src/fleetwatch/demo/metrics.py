"""The metrics of API and worker; series exist from the start, so that ``rate()`` sees the first event."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from sqlalchemy.pool import QueuePool

from fleetwatch.demo.models import CURRENCIES

ROUTES = (
    ("/transactions", "GET", "200"),
    ("/transactions/<id>", "GET", "200"),
    ("/transactions/create", "POST", "201"),
)
"""What the service is for: route, method, and status when all went well."""
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
"""Those that are label values; any other is "other"."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2.5, 5, 10)
_WAIT_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_DELAY_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)


class PoolMetrics:
    """The pool of connections to PostgreSQL, of API and worker alike."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register them."""
        prefix = "transactions_db_pool"
        self._in_use = Gauge(f"{prefix}_in_use", "Connections in use", registry=registry)
        self._size = Gauge(f"{prefix}_size", "Connections that are kept open", registry=registry)
        self._max_overflow = Gauge(
            f"{prefix}_max_overflow", "Most connections beyond those that are kept", registry=registry
        )
        self._overflow = Gauge(
            f"{prefix}_overflow", "Open connections beyond those that are kept", registry=registry
        )
        self.waits = Counter(
            f"{prefix}_waits", "Times that no connection was free and somebody had to wait", registry=registry
        )
        self.wait_seconds = Histogram(
            f"{prefix}_wait_seconds",
            "Time until there was a connection, opened if need be",
            registry=registry,
            buckets=_WAIT_SECONDS,
        )
        self.timeouts = Counter(
            f"{prefix}_timeouts", "Times that no connection became free in time", registry=registry
        )

    def watch(self, pool: Callable[[], QueuePool], max_overflow: int) -> None:
        """Take the gauges' values from a pool, which is asked for at each scrape."""
        self._in_use.set_function(lambda: pool().checkedout())
        self._size.set_function(lambda: pool().size())
        self._max_overflow.set(max_overflow)
        self._overflow.set_function(lambda: max(pool().overflow(), 0))  # negative while some were not needed


class ApiMetrics:
    """The API's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register them."""
        self.requests = Counter(
            "transactions_http_requests", "Requests", ["route", "method", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "transactions_http_request_duration_seconds",
            "Time to answer a request",
            ["route", "method"],
            registry=registry,
            buckets=_SECONDS,
        )
        self.in_progress = Gauge(
            "transactions_http_requests_in_progress", "Requests that are worked on", registry=registry
        )
        self.exceptions = Counter(
            "transactions_http_exceptions",
            "Exceptions that a request ended with",
            ["route", "exception"],
            registry=registry,
        )
        self.cache_requests = Counter(
            "transactions_cache_requests", "Looks into the cache", ["result"], registry=registry
        )
        self.payments = Counter(
            "transactions_payments", "Payments asked of the gateway", ["outcome"], registry=registry
        )
        self.payment_seconds = Histogram(
            "transactions_payment_duration_seconds",
            "Time that the gateway takes",
            registry=registry,
            buckets=_SECONDS,
        )
        self.created = Counter("transactions_created", "Transactions made", ["currency"], registry=registry)
        self.created_amount = Counter(
            "transactions_created_amount", "Their amounts, in the currency", ["currency"], registry=registry
        )
        self.published = Counter(
            "transactions_queue_published", "Messages to the workers' queue", ["outcome"], registry=registry
        )
        self.behaviour_error_rate = Gauge(
            "transactions_behaviour_error_rate",
            "Share of the requests that fail on purpose now",
            registry=registry,
        )
        self.behaviour_latency = Gauge(
            "transactions_behaviour_latency_seconds",
            "Latency added to requests on purpose now, as median",
            registry=registry,
        )
        for route, method, status in ROUTES:
            self.request_seconds.labels(route, method)
            for answer in (status, "500", "503"):
                self.requests.labels(route, method, answer)
        _series(self.cache_requests, ("hit", "miss", "error"))
        _series(self.payments, ("authorised", "declined", "error"))
        _series(self.published, ("sent", "failed"))
        _series(self.created, CURRENCIES)
        _series(self.created_amount, CURRENCIES)
        _build_info(registry)


class WorkerMetrics:
    """The worker's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register them."""
        self.processed = Counter(
            "transactions_processed", "Transactions completed or failed", ["status"], registry=registry
        )
        self.processed_amount = Counter(
            "transactions_processed_amount",
            "Their amounts, in the currency",
            ["status", "currency"],
            registry=registry,
        )
        self.processing_seconds = Histogram(
            "transactions_processing_duration_seconds",
            "Time that a worker takes for a transaction",
            registry=registry,
            buckets=_SECONDS,
        )
        self.settle_delay = Histogram(
            "transactions_settle_delay_seconds",
            "Time from a transaction's creation to its end",
            registry=registry,
            buckets=_DELAY_SECONDS,
        )
        self.pending = Gauge(
            "transactions_pending", "Transactions that wait, in the whole database", registry=registry
        )
        self.pending_oldest_age = Gauge(
            "transactions_pending_oldest_age_seconds", "Age of the oldest that waits", registry=registry
        )
        self.errors = Counter("transactions_worker_errors", "Rounds that failed", registry=registry)
        self.last_cycle = Gauge(
            "transactions_worker_last_cycle_timestamp_seconds",
            "When a round last ended well, as Unix time",
            registry=registry,
        )
        _series(self.processed, ("completed", "failed"))
        for status in ("completed", "failed"):
            for currency in CURRENCIES:
                self.processed_amount.labels(status, currency)
        _build_info(registry)


def _series(metric: Counter, values: tuple[str, ...]) -> None:
    for value in values:
        metric.labels(value)


def _build_info(registry: CollectorRegistry) -> None:
    Gauge(
        "transactions_build_info", "1, with the version of the program", ["version"], registry=registry
    ).labels(version("fleetwatch")).set(1)
