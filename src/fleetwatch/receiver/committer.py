"""Group commit: what several requests bring at the same time becomes durable with one write to disk.

A commit waits for the disk, some milliseconds, and the requests that come meanwhile would queue for one
commit each. Instead one thread takes all that wait, commits them in one transaction, and only then lets each
request answer.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Condition, Thread

from prometheus_client import Histogram
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from fleetwatch.alerting.routes import Router
from fleetwatch.store import Accepted, AlertEvent, Store

MAX_ALERTS = 2000
"""Alerts in one transaction, unless a single request has more. It bounds memory and lock time."""

_MAX_DELAY = 0.005
"""Seconds that a commit waits for the requests that are being read at the moment."""

_STORE_FAILS = (InterfaceError, OperationalError, PoolTimeoutError)
"""Errors that are not about what is to be stored, so trying again in another way only takes time."""

log = logging.getLogger(__name__)


class ClosedError(Exception):
    """The receiver is stopping and takes nothing more."""


class Committer:
    """Commits batches of alerts, many at once, until ``close``."""

    def __init__(self, store: Store, router: Router, group_size: Histogram) -> None:
        """Start the thread. group_size: observes the requests in each transaction."""
        self._store = store
        self._router = router
        self._group_size = group_size
        self._waiting: deque[tuple[Sequence[AlertEvent], Future[Accepted]]] = deque()
        self._reading = 0
        self._changed = Condition()
        self._closed = False
        self._thread = Thread(target=self._run, name="commit", daemon=True)
        self._thread.start()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Announce a request that is being read; the next commit waits a moment for it."""
        with self._changed:
            self._reading += 1
        committing = False
        try:
            yield
            committing = True
        finally:
            with self._changed:
                self._reading -= 1
                if not committing:
                    self._wake()

    def commit(self, events: Sequence[AlertEvent], timeout: float) -> Accepted:
        """Return once the events are on disk.

        timeout: seconds to wait. When they are over, the events may or may not be stored; to send them
            again does no harm.
        Raises SQLAlchemyError when the store does not take them, TimeoutError, or ClosedError.
        """
        future: Future[Accepted] = Future()
        with self._changed:
            if self._closed:
                raise ClosedError
            self._waiting.append((events, future))
            self._wake()
        return future.result(timeout)

    def close(self) -> None:
        """Commit what waits, then stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _wake(self) -> None:
        if not self._reading:
            self._changed.notify()

    def _run(self) -> None:
        while group := self._take():
            self._group_size.observe(len(group))
            try:
                results = self._store.accept([events for events, _ in group], self._router)
            except Exception as error:  # noqa: BLE001 - whatever it is, each request has to hear of it
                self._one_by_one(group, error)
            else:
                for (_, future), result in zip(group, results, strict=True):
                    future.set_result(result)

    def _take(self) -> list[tuple[Sequence[AlertEvent], Future[Accepted]]]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._changed.wait_for(lambda: not self._reading, _MAX_DELAY)
            group: list[tuple[Sequence[AlertEvent], Future[Accepted]]] = []
            alerts = 0
            while self._waiting and (not group or alerts + len(self._waiting[0][0]) <= MAX_ALERTS):
                group.append(self._waiting.popleft())
                alerts += len(group[-1][0])
            return group

    def _one_by_one(
        self, group: list[tuple[Sequence[AlertEvent], Future[Accepted]]], error: Exception
    ) -> None:
        """Find out which request the store does not take: it must not cost the others."""
        if len(group) == 1 or isinstance(error, _STORE_FAILS):
            for _, future in group:
                future.set_exception(error)
            return
        log.warning("group commit failed, each request alone", extra={"requests": len(group)})
        for events, future in group:
            try:
                future.set_result(self._store.accept([events], self._router)[0])
            except Exception as alone:  # noqa: BLE001 - as above
                future.set_exception(alone)
