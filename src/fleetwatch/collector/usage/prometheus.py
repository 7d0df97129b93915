"""Asking Prometheus: several servers with the same data, the next when one is away."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from threading import Event, Thread
from typing import Any
from urllib.parse import urlencode

from urllib3 import BaseHTTPResponse, PoolManager, Timeout
from urllib3.exceptions import ConnectTimeoutError, HTTPError
from urllib3.exceptions import TimeoutError as SlowError

from fleetwatch.collector.usage.metrics import Metrics

CONNECT_TIMEOUT = 3.0
"""Seconds to wait for a connection."""
MAX_BYTES = 16 * 1024 * 1024
"""Of one answer."""

_GRACE = 2.0  # seconds that an answer has after Prometheus should have given up by itself
_PROBE_TIMEOUT = 3.0  # seconds
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_READ_BYTES = 64 * 1024

log = logging.getLogger(__name__)


class PrometheusError(Exception):
    """No server gave an answer that can be used; the text says why, for the caller."""

    status = HTTPStatus.BAD_GATEWAY


class PrometheusSlowError(PrometheusError):
    """It takes too long."""

    status = HTTPStatus.GATEWAY_TIMEOUT


class RefusedError(PrometheusError):
    """Prometheus does not understand a query, or cannot compute it."""


class TooMuchError(PrometheusError):
    """A query asks for more at once than Prometheus or this program takes."""


class _AwayError(Exception):
    """The server cannot answer now; another may."""

    slow = False


class _HangsError(_AwayError):
    """There is a connection, but no answer in time."""

    slow = True


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, str]]
    """Time in seconds, and the value as Prometheus writes it."""


class Prometheus:
    """The servers; may be used by many threads."""

    def __init__(self, urls: Sequence[str], timeout: float, connections: int, metrics: Metrics) -> None:
        """Take their URLs in the order of preference, and the seconds that a query may take."""
        self.urls = list(urls)
        self._timeout = timeout
        self._metrics = metrics
        self._first = 0  # index of the one that answered last
        limits = Timeout(connect=min(CONNECT_TIMEOUT, timeout), read=timeout + _GRACE)
        self._pool = PoolManager(timeout=limits, retries=False, maxsize=connections)

    def query(self, expression: str, at: float) -> list[Series]:
        """Return the values of an expression at one time."""
        found = self._ask("query", {"query": expression, "time": f"{at:.3f}", **self._limit})
        return [Series(one["metric"], [one["value"]]) for one in found["result"]]

    def query_range(self, expression: str, start: int, end: int, step: int) -> list[Series]:
        """Return the values from ``start`` to ``end``, both included, ``step`` seconds apart."""
        grid = {"start": str(start), "end": str(end), "step": str(step)}
        found = self._ask("query_range", {"query": expression, **grid, **self._limit})
        return [Series(one["metric"], one["values"]) for one in found["result"]]

    def label_values(self, label: str, selector: str | None = None, since: float | None = None) -> list[str]:
        """Return the values of a label, maybe only of some series and of those seen since a time."""
        fields = {"match[]": selector, "start": None if since is None else f"{since:.0f}"}
        given = {name: value for name, value in fields.items() if value is not None}
        found: list[str] = self._ask(f"label/{label}/values", given, "GET")
        return found

    def ready(self) -> str | None:
        """Return why no server can be asked, or ``None``."""
        return None if any(self._probe(url) for url in self._in_order()) else "no Prometheus answers"

    def probe(self) -> None:
        """Look at each server, for the metrics, and prefer one that is there."""
        there = [self._probe(url) for url in self.urls]
        if not there[self._first] and any(there):
            self._first = there.index(True)

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    @property
    def _limit(self) -> dict[str, str]:
        return {"timeout": f"{self._timeout:.3f}"}

    def _in_order(self) -> list[str]:
        first = self._first
        return self.urls[first:] + self.urls[:first]

    def _probe(self, url: str) -> bool:
        try:
            answer = self._pool.request("GET", f"{url}/-/ready", timeout=_PROBE_TIMEOUT, redirect=False)
            there = answer.status == HTTPStatus.OK
        except (HTTPError, OSError):
            there = False
        self._metrics.prometheus_up.labels(url).set(there)
        return there

    def _ask(self, path: str, fields: dict[str, str], method: str = "POST") -> Any:
        reasons: list[str] = []
        slow = False
        for url in self._in_order():
            try:
                data = self._ask_one(f"{url}/api/v1/{path}", fields, method)
            except _AwayError as error:
                self._metrics.prometheus_requests.labels(url, "away").inc()
                self._metrics.prometheus_up.labels(url).set(0)
                slow = slow or error.slow
                reasons.append(str(error))
                log.warning("Prometheus is away", extra={"url": url, "reason": str(error)})
            except PrometheusError as error:
                kind = "slow" if isinstance(error, PrometheusSlowError) else "refused"
                self._metrics.prometheus_requests.labels(url, kind).inc()
                raise
            else:
                self._metrics.prometheus_requests.labels(url, "ok").inc()
                self._metrics.prometheus_up.labels(url).set(1)
                self._first = self.urls.index(url)
                return data
        message = f"Prometheus does not answer: {'; '.join(reasons)}"
        raise PrometheusSlowError(message) if slow else PrometheusError(message)

    def _ask_one(self, url: str, fields: dict[str, str], method: str) -> Any:
        text = urlencode(fields)
        try:
            # A list of hosts may be too long for an address.
            with (
                self._pool.request(
                    "POST", url, body=text, headers=_FORM, redirect=False, preload_content=False
                )
                if method == "POST"
                else self._pool.request("GET", f"{url}?{text}", redirect=False, preload_content=False)
            ) as answer:
                body = self._read(answer)
        except ConnectTimeoutError as error:  # also what is refused at once
            raise _AwayError("no connection") from error
        except SlowError as error:
            raise _HangsError(f"no answer within {self._timeout:.0f} s") from error
        except (HTTPError, OSError) as error:
            raise _AwayError("no connection") from error
        try:
            found = json.loads(body)
            if found["status"] == "success":
                return found["data"]
            kind, text = str(found["errorType"]), str(found["error"])
        except (ValueError, LookupError, TypeError) as error:
            raise _AwayError(f"answer {answer.status}, which is not that of Prometheus") from error
        raise self._error(kind, text)

    def _read(self, answer: BaseHTTPResponse) -> bytes:
        deadline = time.monotonic() + self._timeout + _GRACE
        parts: list[bytes] = []
        size = 0
        while part := answer.read(_READ_BYTES):
            parts.append(part)
            size += len(part)
            if size > MAX_BYTES:
                answer.close()
                raise TooMuchError(f"Prometheus answered more than {MAX_BYTES} bytes")
            if time.monotonic() > deadline:
                answer.close()
                raise SlowError
        return b"".join(parts)

    def _error(self, kind: str, text: str) -> Exception:
        if kind == "timeout":
            return PrometheusSlowError(f"Prometheus took longer than {self._timeout:.0f} s: ask for less")
        if kind == "execution" and "too many samples" in text:
            return TooMuchError("Prometheus refuses to load so many samples for one query")
        if kind in ("bad_data", "execution"):
            log.warning("Prometheus refused a query", extra={"reason": text[:500]})
            return RefusedError('Prometheus refused the query: is the setting "expressions" right?')
        return _AwayError(f"{kind}: {text[:200]}")


class Watch:
    """Looks from time to time whether each Prometheus is there, until ``close``."""

    def __init__(self, prometheus: Prometheus, interval: float) -> None:
        """Begin; the seconds are between two looks."""
        self._prometheus = prometheus
        self._interval = interval
        self._stop = Event()
        self._thread = Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            self._prometheus.probe()
            if self._stop.wait(self._interval):
                return

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        self._thread.join(2 * _PROBE_TIMEOUT)
