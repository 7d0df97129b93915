"""The dispatcher's loop: claim what is due, deliver it, record what became of it."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from threading import Event

from jinja2 import TemplateError
from prometheus_client import CollectorRegistry, Counter, Histogram
from sqlalchemy.exc import SQLAlchemyError

from fleetwatch.dispatcher.channels import Channel, DeliveryError, Message
from fleetwatch.dispatcher.render import Renderer
from fleetwatch.dispatcher.retry import RetryPolicy
from fleetwatch.dispatcher.settings import DispatcherSettings
from fleetwatch.store import Notification, Store

_STORE_PAUSE = 1.0  # seconds between attempts when the store fails
_STALLED = 60.0  # seconds without a look at the outbox after which the service is not ready
_OUTCOMES = ("sent", "retried", "parked")

log = logging.getLogger(__name__)


class Metrics:
    """What the dispatcher tells Prometheus."""

    def __init__(self, registry: CollectorRegistry, channels: Mapping[str, Channel]) -> None:
        """Register all, each series from the start."""
        self.deliveries = Counter(
            "alert_dispatcher_deliveries",
            "Delivery attempts by what became of them",
            ["channel", "outcome"],
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
            "Time from the commit of a notification to its first attempt",
            registry=registry,
            buckets=(0.05, 0.1, 0.2, 0.3, 0.5, 1, 2.5, 5, 10, 60, 600),
        )
        self.store_failures = Counter(
            "alert_dispatcher_store_failures", "Failed reads and writes of the store", registry=registry
        )
        for channel in channels:
            self.send_seconds.labels(channel)
            for outcome in _OUTCOMES:
                self.deliveries.labels(channel, outcome)


class Dispatcher:
    """Delivers notifications until it is told to stop."""

    def __init__(
        self,
        settings: DispatcherSettings,
        store: Store,
        channels: Mapping[str, Channel],
        registry: CollectorRegistry,
    ) -> None:
        """Prepare; ``run`` does the work."""
        self._settings = settings
        self._store = store
        self._channels = channels
        self._metrics = Metrics(registry, channels)
        self._renderer = Renderer(settings.links)
        self._policy = RetryPolicy(settings.retry_base, settings.retry_max, settings.retry_give_up)
        self._claimant = f"{socket.gethostname()[:32]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._stop = Event()
        self._last_look = time.monotonic()

    def stop(self) -> None:
        """Let ``run`` finish what is under way and return. Safe to call from a signal handler."""
        self._stop.set()

    def ready(self) -> str | None:
        """Return why nothing is delivered now, or ``None``."""
        age = time.monotonic() - self._last_look
        return f"the outbox was not read for {age:.0f} s" if age > _STALLED else None

    def run(self) -> None:
        """Deliver until ``stop``; then finish the attempts under way and return."""
        workers = self._settings.concurrency
        under_way: set[Future[None]] = set()
        with ThreadPoolExecutor(workers, thread_name_prefix="deliver") as pool:
            while not self._stop.is_set():
                under_way = {attempt for attempt in under_way if not attempt.done()}
                rows = self._claim(workers - len(under_way))
                under_way |= {pool.submit(self._deliver, row) for row in rows}
                if len(under_way) >= workers:
                    wait(under_way, self._settings.poll_interval, FIRST_COMPLETED)
                elif not rows:
                    self._stop.wait(self._settings.poll_interval)

    def _claim(self, limit: int) -> list[Notification]:
        """Claim no more than can begin at once, so that nothing claimed ever waits in memory."""
        if limit == 0:
            self._last_look = time.monotonic()
            return []
        try:
            rows = self._store.claim(self._claimant, limit, self._settings.lease)
        except SQLAlchemyError:
            self._metrics.store_failures.inc()
            log.exception("outbox not readable")
            self._stop.wait(_STORE_PAUSE)
            return []
        self._last_look = time.monotonic()
        return rows

    def _deliver(self, row: Notification) -> None:
        """Make one attempt and record its outcome. Never raises: nobody would see it."""
        age = (datetime.now(UTC) - row.queued_at).total_seconds()
        if row.attempts == 1:
            self._metrics.handover_seconds.observe(max(age, 0.0))
        try:
            provider_id = self._attempt(row)
        except DeliveryError as error:
            self._failed(row, error, age)
        except Exception as error:
            # A fault of ours. It may pass, and the message must not be lost for it.
            log.exception("unexpected error in delivery", extra={"notification": row.id})
            self._failed(row, DeliveryError(f"internal error ({type(error).__name__}), see the log"), age)
        else:
            self._record(
                row, "sent", lambda: self._store.mark_sent(row, provider_id), provider_id=provider_id
            )

    def _attempt(self, row: Notification) -> str | None:
        channel = self._channels.get(row.channel)
        if channel is None:
            raise DeliveryError(f'channel "{row.channel}" is not configured', permanent=True)
        message = self._render(row)
        with self._metrics.send_seconds.labels(row.channel).time():
            return channel.send(message)

    def _render(self, row: Notification) -> Message:
        try:
            return self._renderer.message(row)
        except TemplateError as error:
            raise DeliveryError(f"template: {error}", permanent=True) from error

    def _failed(self, row: Notification, error: DeliveryError, age: float) -> None:
        reason = str(error)
        if error.permanent:
            self._record(row, "parked", lambda: self._store.mark_parked(row, reason), error=reason)
        elif age > self._settings.retry_give_up:
            reason = f"given up after {row.attempts} attempts, the last: {reason}"
            self._record(row, "parked", lambda: self._store.mark_parked(row, reason), error=reason)
        else:
            delay = self._policy.delay(row.attempts, error.retry_after)
            self._record(
                row,
                "retried",
                lambda: self._store.mark_retry(row, delay, reason),
                error=reason,
                delay=round(delay, 1),
            )

    def _record(self, row: Notification, outcome: str, write: Callable[[], bool], **extra: object) -> None:
        """Write the outcome, insistently: if it is lost, the message is sent once more."""
        self._metrics.deliveries.labels(row.channel, outcome).inc()
        details = {
            "notification": row.id,
            "incident": row.incident_id,
            "transition": row.transition,
            "channel": row.channel,
            "attempt": row.attempts,
            **extra,
        }
        log.log(logging.INFO if outcome == "sent" else logging.WARNING, outcome, extra=details)
        deadline = time.monotonic() + self._settings.lease
        while True:
            try:
                if not write():
                    log.warning("claim had run out before the outcome was recorded", extra=details)
            except SQLAlchemyError:
                self._metrics.store_failures.inc()
                log.exception("outcome not recorded", extra=details)
                if time.monotonic() > deadline or self._stop.wait(_STORE_PAUSE):
                    return
            else:
                return
