"""Runs functions that may raise or never return, so that neither harms the others nor piles up threads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Condition, Lock, Thread
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

Reason = Literal["error", "timeout", "busy"]
"""Why there is no result: it raised; it took too long; the one from before has still not returned."""
REASONS: tuple[Reason, ...] = ("error", "timeout", "busy")


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What became of a function."""

    seconds: float
    """That it took, or that it was waited for."""
    result: T | None = None
    reason: Reason | None = None
    """None when it returned."""
    message: str = ""
    """The reason in words."""


class Guard:
    """Runs named functions one after the other in a thread, and leaves that thread behind when one hangs.

    The functions after it are run by a new thread. One that hangs is not run again until it has returned, so
    there are never more threads than functions that hang, and one. A thread cannot be interrupted in a call
    that hangs in the kernel, as statvfs does on a network file system whose server is away.
    """

    def __init__(self) -> None:
        """Begin with nothing that hangs."""
        self._lock = Lock()
        self._hanging: dict[str, float] = {}

    def run(
        self, functions: Mapping[str, Callable[[], T]], limit: Callable[[str], float], total: float
    ) -> dict[str, Outcome[T]]:
        """Run the functions and return what became of each.

        Args:
            functions: by name; the name is what counts for whether one still hangs.
            limit: seconds that the function with a name may take.
            total: seconds that all of them together may take.

        """
        now = time.monotonic()
        deadline = now + total
        with self._lock:
            hanging = {name: now - since for name, since in self._hanging.items() if name in functions}
        outcomes: dict[str, Outcome[T]] = {
            name: Outcome(0.0, None, "busy", f"has not returned for {seconds:.0f} s")
            for name, seconds in hanging.items()
        }
        waiting = deque(name for name in functions if name not in hanging)
        while waiting:
            if time.monotonic() >= deadline:
                missed = Outcome[T](0.0, None, "timeout", f"others took all of {total:g} s")
                outcomes |= dict.fromkeys(waiting, missed)
                break
            worker = _Worker(functions, waiting, self._returned)
            try:
                worker.start()
            except RuntimeError as error:  # the system has no thread left
                outcomes |= dict.fromkeys(waiting, Outcome[T](0.0, None, "error", str(error)))
                break
            name = worker.wait(limit, deadline, self._left_behind)
            outcomes |= worker.outcomes
            if name is not None:
                seconds = time.monotonic() - worker.began
                outcomes[name] = Outcome(seconds, None, "timeout", f"has not returned within {seconds:.1f} s")
        return {name: outcomes[name] for name in functions}

    def _left_behind(self, name: str, since: float) -> None:
        with self._lock:
            self._hanging[name] = since

    def _returned(self, name: str) -> None:
        with self._lock:
            self._hanging.pop(name, None)


class _Worker(Generic[T]):
    """Takes names from a queue and runs their functions, until the queue is empty or it is left behind."""

    def __init__(
        self,
        functions: Mapping[str, Callable[[], T]],
        waiting: deque[str],
        returned: Callable[[str], None],
    ) -> None:
        self.outcomes: dict[str, Outcome[T]] = {}
        self.began = 0.0
        self._functions, self._waiting, self._returned = functions, waiting, returned
        self._name: str | None = None
        self._done = self._left = False
        self._changed = Condition()

    def start(self) -> None:
        """Raise RuntimeError when there can be no further thread."""
        Thread(target=self._work, name="collect", daemon=True).start()

    def wait(
        self, limit: Callable[[str], float], deadline: float, leave: Callable[[str, float], None]
    ) -> str | None:
        """Return None when the queue is empty, or the name of a function that took too long."""
        with self._changed:
            while not self._done:
                end = deadline
                if self._name is not None:
                    end = min(end, self.began + limit(self._name))
                if (left := end - time.monotonic()) > 0:
                    self._changed.wait(left)
                    continue
                self._left = True
                if self._name is None:  # the thread has not even begun: whoever comes next takes the queue
                    return None
                # Before the thread can say that it has returned after all.
                leave(self._name, self.began)
                return self._name
        return None

    def _work(self) -> None:
        while (name := self._next()) is not None:
            try:
                outcome = Outcome(0.0, self._functions[name]())
            except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
                outcome = Outcome(0.0, None, "error", f"{type(error).__name__}: {error}")
            with self._changed:
                if self._left:
                    self._returned(name)
                    return
                self._name = None
                self.outcomes[name] = Outcome(
                    time.monotonic() - self.began, outcome.result, outcome.reason, outcome.message
                )

    def _next(self) -> str | None:
        with self._changed:
            if self._left:
                return None
            if not self._waiting:
                self._done = True
                self._changed.notify()
                return None
            self._name, self.began = self._waiting.popleft(), time.monotonic()
            return self._name
