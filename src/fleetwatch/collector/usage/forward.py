"""Passing alerts on to the alert receiver, which decides whether the caller may send any."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from urllib3 import PoolManager, Timeout
from urllib3.exceptions import ConnectTimeoutError, HTTPError
from urllib3.exceptions import TimeoutError as SlowError

CONNECT_TIMEOUT = 3.0
"""Seconds to wait for a connection."""

_MAX_BYTES = 1024 * 1024  # of an answer
_PASSED_BACK = ("Content-Type", "Retry-After", "WWW-Authenticate")

log = logging.getLogger(__name__)


class ReceiverError(Exception):
    """No receiver took the alerts; the text says why."""

    status = HTTPStatus.BAD_GATEWAY


class ReceiverSlowError(ReceiverError):
    """It takes too long."""

    status = HTTPStatus.GATEWAY_TIMEOUT


@dataclass(frozen=True)
class Answer:
    """What a receiver said."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Receivers:
    """The alert receivers; may be used by many threads."""

    def __init__(self, urls: Sequence[str], timeout: float, connections: int) -> None:
        """Take their URLs in the order of preference, and the seconds that one may take."""
        self.urls = list(urls)
        self._timeout = timeout
        limits = Timeout(connect=min(CONNECT_TIMEOUT, timeout), read=timeout)
        self._pool = PoolManager(timeout=limits, retries=False, maxsize=connections)

    def send(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Return the answer of the first receiver that gives one; raise ReceiverError.

        An alert may so be sent twice, which a receiver notices.
        """
        reasons = []
        slow = False
        for url in self.urls:
            try:
                with self._pool.request(
                    "POST",
                    f"{url}/alerts",
                    body=body,
                    headers=dict(headers),
                    redirect=False,
                    preload_content=False,
                ) as answer:
                    found = answer.read(_MAX_BYTES)
            except (HTTPError, OSError) as error:
                # A connection that is refused at once is a ConnectTimeoutError as well.
                late = isinstance(error, SlowError) and not isinstance(error, ConnectTimeoutError)
                slow = slow or late
                reasons.append(f"no answer within {self._timeout:.0f} s" if late else "no connection")
                log.warning("receiver is away", extra={"url": url, "reason": type(error).__name__})
                continue
            if HTTPStatus.MULTIPLE_CHOICES <= answer.status < HTTPStatus.BAD_REQUEST:
                raise ReceiverError("the receiver sends to another address: correct receiver_urls")
            kept = {name: answer.headers[name] for name in _PASSED_BACK if name in answer.headers}
            return Answer(answer.status, kept, found)
        message = f"the alert receiver does not answer: {'; '.join(reasons)}"
        raise ReceiverSlowError(message) if slow else ReceiverError(message)

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()
