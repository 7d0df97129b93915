"""What is done from time to time, each in a thread of its own that deliveries never wait for."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from threading import Event, Thread

from sqlalchemy.exc import SQLAlchemyError

from fleetwatch.dispatcher.metrics import HousekeepingMetrics
from fleetwatch.dispatcher.settings import DispatcherSettings
from fleetwatch.store import Store

PRUNE_INTERVAL = 3600.0  # seconds
SOON = 60.0  # seconds
_STRAY_GRACE = 300.0  # seconds; another dispatcher may have newer settings

log = logging.getLogger(__name__)


class Periodic:
    """Calls something again and again from a thread, until ``stop``."""

    def __init__(self, name: str, call: Callable[[], None], *, interval: float, first: float) -> None:
        """Start the thread.

        interval: seconds between the end of a call and the next one.
        first: the first call is within so many seconds, at random, so that several dispatchers take turns.
        """
        self._name = name
        self._call = call
        self._interval = interval
        self._first = first
        self._stop = Event()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self, wait: float) -> None:
        """Call no more; wait for a call under way, but not longer than ``wait`` seconds."""
        self._stop.set()
        self._thread.join(wait)

    def _run(self) -> None:
        pause = random.uniform(0, self._first)  # noqa: S311 - not a secret
        while not self._stop.wait(pause):
            try:
                self._call()
            except Exception:
                # A fault of ours must not end what is to go on for months.
                log.exception("unexpected error", extra={"task": self._name})
            pause = self._interval


class Housekeeper:
    """Removes from the store what no delivery ever would."""

    def __init__(self, settings: DispatcherSettings, store: Store, metrics: HousekeepingMetrics) -> None:
        """Prepare; the methods do the work, and log and count what goes wrong."""
        self._retention = settings.retention
        self._channels = [channel.name for channel in settings.channels]
        self._store = store
        self._metrics = metrics

    def prune(self) -> None:
        """Delete incidents that are older than the retention."""
        try:
            pruned = self._store.prune(self._retention)
        except SQLAlchemyError:
            self._metrics.failures.inc()
            log.exception("old incidents not deleted")
            return
        self._metrics.last_success.set_to_current_time()
        self._metrics.pruned.inc(pruned)
        if pruned:
            log.info("old incidents deleted", extra={"incidents": pruned})

    def park_strays(self) -> None:
        """Park notifications for channels that are not in the settings any more."""
        try:
            parked = self._store.park_strays(self._channels, _STRAY_GRACE)
        except SQLAlchemyError:
            self._metrics.failures.inc()
            log.exception("notifications of unknown channels not parked")
            return
        if parked:
            log.warning("parked, since their channels are not configured", extra={"notifications": parked})
