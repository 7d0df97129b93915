"""Pushes the simulated hosts to the Pushgateway, one group per host."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from http.client import HTTPException
from threading import Event
from urllib.error import HTTPError, URLError

from prometheus_client.exposition import delete_from_gateway, push_to_gateway

from . import SERVICE
from .fleet import Fleet
from .metrics import HostCollector, OwnMetrics
from .model import Reading

log = logging.getLogger(__name__)

REMINDER = 60.0
"""Seconds between two log lines while the Pushgateway stays unreachable."""


class Pusher:
    """Pushes every ``interval`` seconds until told to stop; failures are logged, counted and tried again."""

    def __init__(self, fleet: Fleet, url: str, interval: float, metrics: OwnMetrics) -> None:
        """Prepare; nothing is sent before ``run``.

        url: of the Pushgateway, e.g. ``http://127.0.0.1:9091``.
        """
        self._fleet, self._url, self._interval, self._metrics = fleet, url, interval, metrics
        self._timeout = max(1.0, min(interval, 5.0))
        self._error: str | None = "nothing pushed yet"
        self._failing_since: float | None = None
        self._reminded = 0.0
        # Groups that must go: of hosts that an earlier process pushed and this fleet does not have.
        self._unwanted = set(fleet.set_groups(fleet.names)) - set(fleet.names)
        self._absent: set[str] = set()  # silent hosts whose group is deleted

    def ready(self) -> str | None:
        """Say why the last round was not complete, ``None`` when it was."""
        return self._error

    def run(self, stop: Event) -> None:
        """Push until ``stop`` is set."""
        due = time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            self.round()
            due = max(due + self._interval, time.monotonic())

    def round(self) -> None:
        """Push each host once; a host that fails does not keep the others from being pushed."""
        started = time.monotonic()
        error: str | None = None
        self._fleet.set_groups([*self._fleet.names, *self._unwanted])
        try:
            for host in sorted(self._unwanted):
                failed = self._send(delete_from_gateway, host)
                if failed is None:
                    self._unwanted.discard(host)
                error = failed or error
            for host, reading in self._fleet.snapshot().items():
                error = self._show(host, reading) or error
        except _UnreachableError as unreachable:
            error = str(unreachable)
        if error is None:
            self._metrics.round_seconds.observe(time.monotonic() - started)
            self._metrics.last_success.set_to_current_time()
        self._report(error)

    def delete_all(self) -> bool:
        """Delete all groups, so that no stale value stays behind; whether it was possible."""
        hosts = [*self._fleet.names, *self._unwanted]
        try:
            failed = [error for host in hosts if (error := self._send(delete_from_gateway, host))]
        except _UnreachableError as unreachable:
            failed = [str(unreachable)]
        if failed:
            log.warning("groups not deleted", extra={"pushgateway": self._url, "error": failed[0]})
            return False
        self._fleet.set_groups([])
        log.info("groups deleted", extra={"pushgateway": self._url, "hosts": len(hosts)})
        return True

    def _show(self, host: str, reading: Reading | None) -> str | None:
        """Push a host's reading; of a silent host, delete the group once."""
        if reading is not None:
            self._absent.discard(host)
            collector = HostCollector(lambda: {host: reading}, labelled=False)
            return self._send(push_to_gateway, host, registry=collector)
        if host in self._absent:
            return None
        error = self._send(delete_from_gateway, host)
        if error is None:
            self._absent.add(host)
        return error

    def _send(self, request: Callable[..., None], host: str, **content: HostCollector) -> str | None:
        """Do one request for a host's group; return the Pushgateway's complaint, if it has one.

        Raises _UnreachableError.
        """
        group = {"host": host, "instance": host}
        try:
            request(self._url, job=SERVICE, grouping_key=group, timeout=self._timeout, **content)
        except HTTPError as error:
            self._metrics.pushes.labels("error").inc()
            with error:
                said = error.read(200).decode(errors="replace").strip()
            return f"HTTP {error.code}: {said or error.reason}"
        except (OSError, HTTPException) as error:
            self._metrics.pushes.labels("error").inc()
            raise _UnreachableError(_reason(error)) from error
        self._metrics.pushes.labels("ok").inc()
        return None

    def _report(self, error: str | None) -> None:
        """Log what changed, and while it goes on failing a reminder now and then."""
        now = time.monotonic()
        if error is None:
            if self._failing_since is not None:
                log.info("pushing again", extra={"seconds_failed": round(now - self._failing_since, 1)})
            elif self._error is not None:
                log.info("pushing", extra={"pushgateway": self._url, "hosts": len(self._fleet.names)})
            self._failing_since = None
        elif self._failing_since is None or error != self._error or now - self._reminded >= REMINDER:
            self._failing_since = now if self._failing_since is None else self._failing_since
            self._reminded = now
            log.warning(
                "push failed, trying again",
                extra={"pushgateway": self._url, "error": error, "retry_seconds": self._interval},
            )
        self._error = error


class _UnreachableError(Exception):
    """The Pushgateway does not answer; the text says why."""


def _reason(error: OSError | HTTPException) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause) or type(cause).__name__
