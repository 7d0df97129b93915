"""Asks all Alertmanagers from time to time which alerts still fire, and brings the incidents in line."""

from __future__ import annotations

import http
import json
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from fleetwatch.dispatcher.metrics import ReconciliationMetrics
from fleetwatch.dispatcher.settings import DispatcherSettings
from fleetwatch.store import Store
from fleetwatch.store.reconciliation import KnownAlert, Reconciled, Suppression

_TIMEOUT = 5.0  # seconds, for each network step
_DEADLINE = 20.0  # seconds for one whole answer
_MAX_BYTES = 32 * 1024 * 1024  # of one answer
_READ_BYTES = 64 * 1024

ParsedT = TypeVar("ParsedT")

log = logging.getLogger(__name__)


class AlertmanagerError(Exception):
    """An Alertmanager did not give a usable answer; the text names it."""


class Reconciler:
    """Reconciles the store with the Alertmanagers of the settings."""

    def __init__(self, settings: DispatcherSettings, store: Store, metrics: ReconciliationMetrics) -> None:
        """Prepare; ``run_once`` does the work."""
        self._urls = [url.rstrip("/") for url in settings.alertmanagers]
        self._grace = timedelta(seconds=settings.reconcile_grace)
        self._router = settings.router
        self._store = store
        self._metrics = metrics

    def run_once(self) -> None:
        """Reconcile, unless another dispatcher does so now. Logs and counts what goes wrong."""
        try:
            with self._store.reconciler() as alone:
                done = self._reconcile() if alone else None
        except AlertmanagerError as error:
            # Without the answer of all, an alert that is missing may be known to the one that is away.
            self._metrics.failures.inc()
            log.warning("not reconciled", extra={"reason": str(error)})
        except SQLAlchemyError:
            self._metrics.failures.inc()
            log.exception("not reconciled")
        else:
            if done is not None:
                self._metrics.last_success.set_to_current_time()
                counts = {
                    "opened": done.opened,
                    "closed": len(done.closed),
                    "reopened": len(done.reopened),
                }
                self._metrics.opened.inc(done.opened)
                self._metrics.closed.inc(len(done.closed))
                self._metrics.reopened.inc(len(done.reopened))
                if any(counts.values()):
                    log.warning("reconciled", extra=counts)

    def _reconcile(self) -> Reconciled:
        known: list[KnownAlert] = []
        complete = True
        for url in self._urls:
            known += self._ask(f"{url}/api/v2/alerts", _alerts)
            # One that started a moment ago knows nothing until Prometheus has told it again.
            up = datetime.now(UTC) - self._ask(f"{url}/api/v2/status", _started_at)
            complete = complete and up > self._grace
        return self._store.reconcile(known, self._router, self._grace, complete=complete)

    def _ask(self, url: str, parse: Callable[[Any], ParsedT]) -> ParsedT:
        # Imported here, since most of its memory is needed only where there are Alertmanagers to ask.
        from urllib3 import PoolManager  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        deadline = time.monotonic() + _DEADLINE
        body = b""
        try:
            with (
                PoolManager(timeout=_TIMEOUT, retries=False) as pool,
                pool.request("GET", url, redirect=False, preload_content=False) as answer,
            ):
                if answer.status != http.HTTPStatus.OK:
                    raise AlertmanagerError(f"{url} answered {answer.status}")
                while part := answer.read1(_READ_BYTES, decode_content=False):
                    body += part
                    if len(body) > _MAX_BYTES:
                        raise AlertmanagerError(f"{url} answered more than {_MAX_BYTES} bytes")
                    if time.monotonic() > deadline:
                        raise AlertmanagerError(f"{url} took more than {_DEADLINE:.0f} s to answer")
            return parse(json.loads(body))
        except (HTTPError, OSError) as error:
            raise AlertmanagerError(f"{url} cannot be reached: {type(error).__name__}") from error
        except (ValueError, LookupError, TypeError) as error:
            raise AlertmanagerError(f"{url} did not answer as Alertmanager's API v2 does") from error


def _alerts(answer: Any) -> list[KnownAlert]:
    return [
        KnownAlert(
            fingerprint=str(alert["fingerprint"]),
            starts_at=_time(alert["startsAt"]),
            suppressed=_suppression(alert["status"]),
            receivers=frozenset(str(receiver["name"]) for receiver in alert["receivers"]),
            annotations={name: str(text) for name, text in dict(alert["annotations"]).items()},
            generator_url=str(alert.get("generatorURL", "")),
        )
        for alert in answer
    ]


def _suppression(status: Mapping[str, Any]) -> Suppression | None:
    if status.get("silencedBy"):
        return "silenced"
    return "inhibited" if status.get("inhibitedBy") else None


def _started_at(answer: Any) -> datetime:
    return _time(answer["uptime"])


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment.astimezone(UTC)
