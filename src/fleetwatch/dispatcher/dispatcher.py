"""The dispatcher's loop: claim what is due on each channel, deliver it, record what became of it.

Each channel has its own slots, rate limit and circuit breaker, so one whose provider is slow or dead does
not hold up the others. Nothing is claimed that cannot begin at once: what waits does so in the outbox.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Event, Lock, Thread

from prometheus_client import CollectorRegistry
from sqlalchemy.exc import SQLAlchemyError

from fleetwatch.alerting.channels import ChannelSettings
from fleetwatch.common import tracing
from fleetwatch.common.systemd import ServiceWatchdog
from fleetwatch.common.wakeups import Wakeups
from fleetwatch.dispatcher.channels import Channel, DeliveryError
from fleetwatch.dispatcher.heartbeats import Heart
from fleetwatch.dispatcher.housekeeping import PRUNE_INTERVAL, SOON, Housekeeper, Periodic
from fleetwatch.dispatcher.limits import CircuitBreaker, RateLimit
from fleetwatch.dispatcher.metrics import (
    DeliveryMetrics,
    HeartbeatMetrics,
    HousekeepingMetrics,
    ReconciliationMetrics,
)
from fleetwatch.dispatcher.reconcile import Reconciler
from fleetwatch.dispatcher.render import Renderer
from fleetwatch.dispatcher.retry import RetryPolicy
from fleetwatch.dispatcher.settings import DispatcherSettings
from fleetwatch.dispatcher.watchdog import Watcher
from fleetwatch.store import Notification, Store

_STORE_PAUSE = 1.0  # seconds between attempts when the store fails
_STALLED = 60.0  # seconds without a look at the outbox after which the service is not ready
_STOP_GRACE = 30.0  # seconds that attempts under way may take to finish when the service stops
_MAX_LINKS = 100  # of a digest's span

Rows = Sequence[Notification]
"""Notifications that go out as one message."""

log = logging.getLogger(__name__)


class Lane:
    """What one dispatcher keeps of a channel: its slots and its limits."""

    def __init__(self, settings: ChannelSettings, channel: Channel) -> None:
        """Start with all slots free."""
        self.name = settings.name
        self.settings = settings
        self.channel = channel
        self.rate = RateLimit(settings.rate_limit, settings.rate_burst)
        self.breaker = CircuitBreaker(settings.breaker_failures, settings.breaker_pause)
        self._lock = Lock()
        self._under_way = 0

    @property
    def under_way(self) -> int:
        """How many messages are being sent."""
        return self._under_way

    def room(self) -> int:
        """Return how many messages may begin now."""
        free = self.settings.concurrency - self._under_way
        return self.rate.room(self.breaker.room(free, self._under_way)) if free else 0

    def begin(self) -> None:
        """Take a slot."""
        self.rate.take(1)
        with self._lock:
            self._under_way += 1

    def end(self) -> None:
        """Free a slot."""
        with self._lock:
            self._under_way -= 1


class Dispatcher:
    """Delivers notifications until it is told to stop."""

    def __init__(
        self,
        settings: DispatcherSettings,
        store: Store,
        channels: Mapping[str, Channel],
        registry: CollectorRegistry,
    ) -> None:
        """Prepare; ``run`` does the work.

        channels: all of the settings, by name.
        Raises BrokenTemplateError when a template of the site cannot work.
        """
        self._settings = settings
        self._store = store
        self._registry = registry
        self._lanes = {each.name: Lane(each, channels[each.name]) for each in settings.channels}
        self._metrics = DeliveryMetrics(registry, self._lanes)
        for name, lane in self._lanes.items():
            self._metrics.paused.labels(name).set_function(lane.breaker.paused)
            self._metrics.breaker_open.labels(name).set_function(lane.breaker.tripped)
        self._renderer = Renderer(settings)
        self._renderer.check()
        self._router = settings.router
        self._policy = RetryPolicy(settings.retry_base, settings.retry_max, settings.retry_give_up)
        self._claimant = f"{socket.gethostname()[:32]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._stop = Event()
        self._wake: Wakeups[Lane | None] = Wakeups()
        self._last_look = time.monotonic()

    def stop(self) -> None:
        """Let ``run`` finish what is under way and return. Safe to call from a signal handler."""
        self._stop.set()
        self._wake.put(None)

    def ready(self) -> str | None:
        """Return why nothing is delivered now, or ``None``."""
        age = time.monotonic() - self._last_look
        return f"the outbox was not read for {age:.0f} s" if age > _STALLED else None

    def run(self) -> None:
        """Deliver until ``stop``; then let the attempts under way finish, within 30 s, and return."""
        tasks = list(self._tasks())
        watchdog = ServiceWatchdog()
        try:
            next_look = 0.0
            while not self._stop.is_set():
                watchdog.alive()
                # All channels from time to time, and in between those where a slot became free.
                woken = self._woken(next_look - time.monotonic())
                if woken is None:
                    next_look = time.monotonic() + self._settings.poll_interval
                    woken = set(self._lanes.values())
                if not self._fill(woken):
                    next_look = time.monotonic() + _STORE_PAUSE
        finally:
            if not self._stop.is_set():
                self._stop.set()
            deadline = time.monotonic() + _STOP_GRACE
            while self._under_way() and (left := deadline - time.monotonic()) > 0:
                self._woken(left)
            if left_over := self._under_way():
                # Their claims run out, and then they are sent again.
                log.warning("stopped with attempts under way", extra={"messages": left_over})
            for task in tasks:
                task.stop(max(deadline - time.monotonic(), 1.0))

    def _tasks(self) -> Iterator[Periodic]:
        """Start what is done from time to time."""
        settings, store = self._settings, self._store
        keeper = Housekeeper(settings, store, HousekeepingMetrics(self._registry))
        yield Periodic("prune", keeper.prune, interval=PRUNE_INTERVAL, first=SOON)
        yield Periodic("park-strays", keeper.park_strays, interval=SOON, first=1.0)
        if settings.alertmanagers:
            reconciler = Reconciler(settings, store, ReconciliationMetrics(self._registry))
            interval = settings.reconcile_interval
            yield Periodic("reconcile", reconciler.run_once, interval=interval, first=min(interval, 5.0))
        if settings.watchdog_timeout:
            watcher = Watcher(settings, store, self._metrics.store_failures)
            yield Periodic("watchdog", watcher.run_once, interval=watcher.interval, first=watcher.interval)
        if settings.heartbeat_urls:
            heart = Heart(settings, store, HeartbeatMetrics(self._registry))
            interval = settings.heartbeat_interval
            yield Periodic("heartbeat", heart.run_once, interval=interval, first=min(interval, 5.0))

    def _woken(self, timeout: float) -> set[Lane] | None:
        """Wait for a free slot; return the lanes that have one, or ``None`` when the time is over."""
        woken = self._wake.get(timeout)
        return {lane for lane in woken if lane} if woken else None

    def _under_way(self) -> int:
        return sum(lane.under_way for lane in self._lanes.values())

    def _fill(self, lanes: Iterable[Lane]) -> bool:
        """Begin what is due and has room; False when the store cannot be read."""
        try:
            for lane in lanes:
                self._begin(lane)
        except SQLAlchemyError:
            self._metrics.store_failures.inc()
            log.exception("outbox not readable")
            return False
        self._last_look = time.monotonic()
        return True

    def _begin(self, lane: Lane) -> None:
        room = lane.room()
        if not room:
            return
        messages = self._store.claim(
            self._claimant,
            lane.name,
            room,
            lease=self._settings.lease,
            group_above=lane.settings.group_above,
            group_wait=lane.settings.group_wait,
        )
        for rows in messages:
            lane.begin()
            # A thread for each message and no pool: an idle dispatcher has none, and one that hangs in a
            # provider does not keep the process from ending.
            Thread(target=self._work, args=(lane, rows), name=f"deliver-{lane.name}", daemon=True).start()

    def _work(self, lane: Lane, rows: Rows) -> None:
        try:
            if self._stop.is_set():
                self._insist(lambda: self._store.give_back(rows), _details(rows))
            else:
                self._deliver(lane, rows)
        except Exception:
            log.exception("unexpected error after delivery", extra=_details(rows))
        finally:
            lane.end()
            self._wake.put(lane)

    def _deliver(self, lane: Lane, rows: Rows) -> None:
        """Make one attempt and record its outcome."""
        now = datetime.now(UTC)
        for row in rows:
            if row.attempts == 1:
                self._metrics.handover_seconds.observe(max((now - row.wanted_at).total_seconds(), 0.0))
        with tracing.span(
            "deliver",
            rows[0].traceparent,
            links=[row.traceparent for row in rows[1:_MAX_LINKS]],
            channel=lane.name,
            attempt=rows[0].attempts,
            notifications=len(rows),
        ) as span:
            try:
                provider_id = self._send(lane, rows)
            except DeliveryError as error:
                self._answered(lane, error)
                outcome = self._failed(rows, error, now)
            except Exception as error:
                # A fault of ours. It may pass, and the message must not be lost for it.
                log.exception("unexpected error in delivery", extra=_details(rows))
                reason = f"internal error ({type(error).__name__}), see the log"
                outcome = self._failed(rows, DeliveryError(reason), now)
            else:
                lane.breaker.succeeded()
                self._metrics.messages.labels(lane.name).inc()
                outcome = self._record(
                    rows,
                    "sent",
                    lambda: self._store.mark_sent(rows, provider_id, self._next_reminder),
                    provider_id=provider_id,
                )
            span.set_attribute("outcome", outcome)

    def _send(self, lane: Lane, rows: Rows) -> str | None:
        message = replace(
            self._renderer.message(rows, lane.channel.templates),
            traceparent=tracing.current_traceparent() or rows[0].traceparent,
        )
        with self._metrics.send_seconds.labels(lane.name).time():
            return lane.channel.send(message)

    def _answered(self, lane: Lane, error: DeliveryError) -> None:
        """Let the circuit breaker know of a failure."""
        if error.permanent:  # of this message; the provider is well
            lane.breaker.succeeded()
        elif lane.breaker.failed(min(error.retry_after or 0.0, self._settings.retry_max)):
            self._metrics.breaker_trips.labels(lane.name).inc()
            log.warning("channel left alone after failures in a row", extra={"channel": lane.name})

    def _next_reminder(self, row: Notification) -> timedelta | None:
        route = self._router.route(row.route)
        if route is None or route.reminder_interval is None:
            return None
        now = datetime.now(UTC)
        later = now + timedelta(seconds=route.reminder_interval)
        return route.due(row.incident.severity, later) - now

    def _failed(self, rows: Rows, error: DeliveryError, now: datetime) -> str:
        reason = str(error)
        if error.permanent:
            return self._record(rows, "parked", lambda: self._store.mark_parked(rows, reason), error=reason)
        give_up = now - timedelta(seconds=self._settings.retry_give_up)
        old = [row for row in rows if row.wanted_at < give_up]
        young = [row for row in rows if row.wanted_at >= give_up]
        outcome = ""
        if old:
            last = f"given up after {old[0].attempts} attempts, the last: {reason}"
            outcome = self._record(old, "parked", lambda: self._store.mark_parked(old, last), error=last)
        if young:
            delay = self._policy.delay(max(row.attempts for row in young), error.retry_after)
            outcome = self._record(
                young,
                "retried",
                lambda: self._store.mark_retry(young, delay, reason),
                error=reason,
                delay=round(delay, 1),
            )
        return outcome

    def _record(self, rows: Rows, outcome: str, write: Callable[[], bool], **extra: object) -> str:
        """Write the outcome and return it."""
        self._metrics.deliveries.labels(rows[0].channel, outcome).inc(len(rows))
        details = _details(rows) | extra
        log.log(logging.INFO if outcome == "sent" else logging.WARNING, outcome, extra=details)
        self._insist(write, details)
        return outcome

    def _insist(self, write: Callable[[], bool], details: dict[str, object]) -> None:
        """Write as long as the claim lasts: if the outcome is lost, the message is sent once more."""
        deadline = time.monotonic() + self._settings.lease
        while True:
            try:
                if not write():
                    log.warning("claim had run out before the outcome was recorded", extra=details)
            except SQLAlchemyError:
                self._metrics.store_failures.inc()
                log.exception("outcome not recorded", extra=details)
                if time.monotonic() > deadline:
                    return
                time.sleep(_STORE_PAUSE)
            else:
                return


def _details(rows: Rows) -> dict[str, object]:
    """Return what log events say of a message."""
    first = rows[0]
    return {
        "notification": first.id,
        "incident": first.incident_id,
        "transition": first.transition,
        "channel": first.channel,
        "attempt": first.attempts,
    } | ({"notifications": len(rows)} if len(rows) > 1 else {})
