"""Heartbeats to dead man's switches outside the fleet, which notice when this program itself is dead.

They go out only as long as all is well: each Prometheus beats, and no message is stuck. So one that stays out
may mean any part of the way, from Prometheus by Alertmanager, the receiver and the store to here.
"""

from __future__ import annotations

import logging

from sqlalchemy.exc import SQLAlchemyError

from fleetwatch.dispatcher.channels import DeliveryError
from fleetwatch.dispatcher.channels.http import Client, secret_parts
from fleetwatch.dispatcher.metrics import HeartbeatMetrics
from fleetwatch.dispatcher.settings import DispatcherSettings
from fleetwatch.store import Store
from fleetwatch.store.heartbeats import EXPECTED

_TIMEOUT = 5.0  # seconds for each network step
_STUCK = 900.0  # seconds that a message may wait; more than a provider's short failure takes
_BODY = b'{"text": "Fleetwatch is alive"}'
_HEADERS = {"Content-Type": "application/json"}

log = logging.getLogger(__name__)


class Heart:
    """Beats for dead man's switches outside."""

    def __init__(self, settings: DispatcherSettings, store: Store, metrics: HeartbeatMetrics) -> None:
        """Prepare; ``run_once`` does the work."""
        self._store = store
        self._metrics = metrics
        self._switches = [
            (name, url, Client(f"dead man's switch {name}", _TIMEOUT, secrets=secret_parts(url)))
            for name, secret in sorted(settings.heartbeat_urls.items())
            for url in (secret.get_secret_value(),)
        ]

    def run_once(self) -> None:
        """Beat once, unless something is not well. Logs and counts what goes wrong."""
        try:
            problem = self._problem()
        except SQLAlchemyError:
            log.exception("no heartbeat is sent: the store is not readable")
            self._metrics.withheld.inc()
            return
        if problem:
            log.warning("no heartbeat is sent", extra={"reason": problem})
            self._metrics.withheld.inc()
            return
        for name, url, client in self._switches:
            try:
                answer = client.post(url, _BODY, _HEADERS)
                if not answer.ok:
                    raise client.error(answer)
            except DeliveryError as error:
                log.warning("heartbeat not taken", extra={"switch": name, "reason": str(error)})
                self._metrics.failures.inc()
            else:
                self._metrics.sent.inc()

    def _problem(self) -> str | None:
        """Return why no heartbeat may go out, or ``None``."""
        watchdogs = self._store.watchdogs()
        if not any(row.fingerprint != EXPECTED for row in watchdogs):
            return "no Watchdog has come"
        if any(row.missing for row in watchdogs):
            return "a Watchdog is missing"
        if self._store.depth().oldest_age > _STUCK:
            return "a message cannot be delivered"
        return None
