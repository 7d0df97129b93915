"""The worker: takes pending transactions from the database, works on them, completes or fails them.

Any number of workers share the table: each takes rows that no other holds, and holds them by locks, not by
marks, so that whatever becomes of a worker, its rows are free again at once and nothing is done twice.
"""

from __future__ import annotations

import gc
import logging
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from fleetwatch.common import health, logs, tracing
from fleetwatch.common.settings import fail
from fleetwatch.common.wakeups import Wakeups
from fleetwatch.demo import WORKER, traces
from fleetwatch.demo.behaviour import lognormal
from fleetwatch.demo.cache import PageCache
from fleetwatch.demo.metrics import PoolMetrics, WorkerMetrics
from fleetwatch.demo.models import Status, Transaction
from fleetwatch.demo.queue import Consumer
from fleetwatch.demo.settings import Settings
from fleetwatch.demo.storage import Claim, Storage, UnavailableError

DECLINED = "declined by the bank"
"""Why transactions fail here."""

_LONGEST_BATCH = 5.0  # seconds; what is not begun by then is left to whoever comes next
_PAUSE, _LONGEST_PAUSE = 0.5, 15.0  # seconds between two rounds when they fail
_MAX_DOUBLINGS = 10
_STALLED = 60.0  # seconds without a round after which the worker is not ready
_LOOK_INTERVAL = 1.0  # seconds between two looks at how much is pending
_LATER_LOOK = 15.0  # seconds until the next one when that failed, as it may when so much is pending
_PRUNE_INTERVAL = 60.0
_PRUNE_ROWS = 1000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Settled:
    """A transaction that was worked on, to be counted when that is durable."""

    transaction: Transaction
    status: Status
    seconds: float
    """Of work."""
    delay: float
    """Seconds since it was made."""


class Worker:
    """Settles transactions until it is told to stop."""

    def __init__(
        self, settings: Settings, storage: Storage, cache: PageCache, metrics: WorkerMetrics
    ) -> None:
        """Prepare, and connect to the queue if there is one; ``run`` does the work."""
        self._settings = settings
        self._storage = storage
        self._cache = cache
        self._metrics = metrics
        self._stopped = False
        self._stopping: Wakeups[None] = Wakeups()
        self._wake: Wakeups[None] = Wakeups()
        self._last_round = time.monotonic()
        self._look_at = self._prune_at = self._last_round
        self._error: str | None = None
        self._looks = True
        self._consumer = Consumer(
            settings.queue_url.get_secret_value(), settings.worker_batch, lambda: self._wake.put(None)
        )

    def stop(self) -> None:
        """Let ``run`` finish its batch, within seconds, and return. Safe to call from a signal handler."""
        self._stopped = True
        self._stopping.put(None)
        self._wake.put(None)

    def ready(self) -> str | None:
        """Return why nothing is settled now, or ``None``."""
        age = time.monotonic() - self._last_round
        return self._error or (f"no round for {age:.0f} s" if age > _STALLED else None)

    def run(self) -> None:
        """Settle until ``stop``. A database that is away is asked again and again, ever more seldom."""
        failures = 0
        while not self._stopped:
            more = self._try()
            if more is None:
                failures += 1
                pause = min(_PAUSE * 2 ** min(failures, _MAX_DOUBLINGS), _LONGEST_PAUSE)
                # At random, so that workers that failed together do not come back together.
                self._stopping.get(pause * random.uniform(0.5, 1))  # noqa: S311 - not a secret
            else:
                failures = 0
                self._wake.get(0.0 if more else self._settings.worker_poll_interval)
        self._consumer.close()

    def _try(self) -> bool | None:
        """Make a round; return whether there may be more to settle, ``None`` when it failed."""
        try:
            more = self._round()
        except UnavailableError as error:
            self._error = f"database: {error}"
            log.warning("database not usable", extra={"error": str(error)})
        except Exception as error:
            # Such as a missing privilege, or a fault of ours: the worker goes on when it is cured.
            self._error = f"internal error ({type(error).__name__}), see the log"
            log.exception("round failed")
        else:
            if self._error is not None:
                log.info("settling again")
            self._error = None
            self._last_round = time.monotonic()
            self._metrics.last_cycle.set_to_current_time()
            return more
        self._metrics.errors.inc()
        return None

    def _round(self) -> bool:
        """Settle a batch and do what else is due; return whether there may be more to settle."""
        receipt = self._consumer.received()
        settled, more = self._settle()
        if not more:
            # All that was pending when these messages had come is settled, or held by another worker.
            self._consumer.acknowledge(receipt)
        if settled:
            self._cache.invalidate()
        else:
            self._cache.catch_up()
        for each in settled:
            self._count(each)
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_INTERVAL
            self._look()
        if now >= self._prune_at:
            self._prune_at = now + _PRUNE_INTERVAL
            self._prune()
        return more

    def _look(self) -> None:
        """Tell how much is pending. A look that fails is no failed round: what was settled is settled.

        If the database is away the next claim says so.
        """
        try:
            backlog = self._storage.backlog()
        except UnavailableError as error:
            self._look_at = time.monotonic() + _LATER_LOOK
            if self._looks:
                log.warning("backlog unknown, its metrics stay as they were", extra={"error": str(error)})
            self._looks = False
            return
        self._looks = True
        self._metrics.pending.set(backlog.count)
        self._metrics.pending_oldest_age.set(backlog.oldest_age)

    def _settle(self) -> tuple[list[_Settled], bool]:
        """Settle a batch, durably; return what was settled, and whether there may be more."""
        with self._storage.claim(self._settings.worker_batch) as claim:
            settled = list(self._work_on(claim))
        full = len(claim.transactions) == self._settings.worker_batch
        return settled, full or len(settled) < len(claim.transactions)

    def _work_on(self, claim: Claim) -> Iterator[_Settled]:
        """Work on what was claimed, as far as there is time."""
        deadline = time.monotonic() + _LONGEST_BATCH
        for transaction in claim.transactions:
            began = time.monotonic()
            if began > deadline:
                return
            with tracing.span("settle", transaction.traceparent, transaction=str(transaction.id)) as span:
                if not self._take_time(deadline):
                    return
                failed = random.random() < self._settings.worker_failure_rate  # noqa: S311 - not a secret
                status, reason = (Status.FAILED, DECLINED) if failed else (Status.COMPLETED, None)
                delay = claim.settle(transaction, status, reason)
                span.set_attribute("status", status.value)
            yield _Settled(transaction, status, time.monotonic() - began, delay)

    def _take_time(self, deadline: float) -> bool:
        """Take the time of a settlement; False when the worker stops and cannot wait for so long."""
        seconds = lognormal(self._settings.worker_latency, self._settings.latency_spread)
        end = time.monotonic() + seconds
        if not self._stopped:
            self._stopping.get(end - time.monotonic())
        if end > deadline and self._stopped:
            return False
        time.sleep(max(end - time.monotonic(), 0.0))
        return True

    def _count(self, settled: _Settled) -> None:
        transaction, status = settled.transaction, settled.status.value
        self._metrics.processed.labels(status).inc()
        self._metrics.processed_amount.labels(status, transaction.currency).inc(float(transaction.amount))
        self._metrics.processing_seconds.observe(settled.seconds)
        self._metrics.settle_delay.observe(settled.delay)
        traces.join(transaction.traceparent)
        log.info(
            "settled",
            extra={
                "transaction": str(transaction.id),
                "status": status,
                "seconds": round(settled.seconds, 3),
                "delay": round(settled.delay, 3),
            },
        )
        logs.trace_id.set(None)

    def _prune(self) -> None:
        """Delete transactions that were finished long ago."""
        deleted = self._storage.delete_finished(timedelta(days=self._settings.retention_days), _PRUNE_ROWS)
        if deleted:
            log.info("old transactions deleted", extra={"transactions": deleted})
        if deleted == _PRUNE_ROWS:
            self._prune_at = 0.0  # go on in the next round


def run(settings: Settings, instance: int) -> int:
    """Run a worker until SIGTERM or SIGINT; return the exit code.

    instance: its number on this host, from 1; its metrics are on ``worker_port`` + this.
    """
    logs.setup(WORKER, settings.log_level)
    tracing.setup(WORKER, settings.otlp_endpoint)
    registry = health.registry()
    storage = Storage(settings, PoolMetrics(registry), f"{WORKER}@{instance}")
    cache = PageCache(settings)
    worker = Worker(settings, storage, cache, WorkerMetrics(registry))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    address, port = settings.listen_address, settings.worker_port + instance
    try:
        server = health.HealthServer(address, port, worker.ready, registry)
    except OSError as error:
        fail(WORKER, f'setting "worker_port": cannot listen on {address} port {port}: {error.strerror}')
    # What was made so far stays for good: leave it out of the collector's rounds.
    gc.collect()
    gc.freeze()
    log.info("started", extra={"instance": instance, "address": address, "port": port})
    worker.run()
    server.close()
    cache.close()
    storage.close()
    log.info("stopped")
    return 0
