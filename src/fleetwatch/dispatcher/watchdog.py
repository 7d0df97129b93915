"""The dead man's switch: looks from time to time whether heartbeats still come."""

from __future__ import annotations

import logging

from prometheus_client import Counter
from sqlalchemy.exc import SQLAlchemyError

from fleetwatch.dispatcher.settings import DispatcherSettings
from fleetwatch.store import Store

_STEPS = 20  # looks within the time that heartbeats may be missing
_LONGEST = 15.0  # seconds between two looks

log = logging.getLogger(__name__)


class Watcher:
    """Notices that the heartbeats of a Prometheus are missing."""

    def __init__(self, settings: DispatcherSettings, store: Store, failures: Counter) -> None:
        """Prepare; ``run_once`` does the work. failures: counts what the store did not take."""
        self._timeout = settings.watchdog_timeout
        self._expected = settings.watchdog_expected
        self._runbook_url = settings.runbook_url
        self._router = settings.router
        self._store = store
        self._failures = failures
        self.interval = min(self._timeout / _STEPS, _LONGEST)
        """Seconds between two runs."""

    def run_once(self) -> None:
        """Open an incident for each that is missing. Logs and counts what goes wrong."""
        try:
            if self._expected:
                self._store.expect_heartbeat()
                self._expected = False  # who resolves it by hand means it
            opened = self._store.watch(self._timeout, self.interval, self._router, self._runbook_url)
        except SQLAlchemyError:
            self._failures.inc()
            log.exception("heartbeats not checked")
            return
        for summary in opened:
            log.error("heartbeats are missing", extra={"summary": summary})
