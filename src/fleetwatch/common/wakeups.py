"""Waking a thread that waits, from other threads and from signal handlers."""

from __future__ import annotations

import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Wakeups(Generic[T]):
    """What one thread waits for, and others put in.

    Nothing of the standard library will do. A signal handler may interrupt the very thread that holds the
    lock of an ``Event`` or a ``Queue``, and then waits for itself. ``SimpleQueue`` is made for that, but its
    ``get`` with a timeout may wait for ever: it can look twice, and if the time ran out in between, CPython
    before 3.13 waits for a negative number of seconds, which means without limit.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._items: SimpleQueue[T] = SimpleQueue()
        self._rung = Lock()
        self._rung.acquire()

    def put(self, item: T) -> None:
        """Put an item in and wake who waits. Safe to call from a signal handler."""
        self._items.put(item)
        with suppress(RuntimeError):  # it is rung already
            self._rung.release()

    def get(self, seconds: float) -> list[T]:
        """Return all items; wait at most so many seconds for one, and return none when the time is over."""
        deadline = time.monotonic() + seconds
        while self._items.empty() and (left := deadline - time.monotonic()) > 0:
            self._rung.acquire(timeout=left)
        found: list[T] = []
        with suppress(Empty):
            while True:
                found.append(self._items.get_nowait())
        return found
