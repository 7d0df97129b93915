"""When a channel is left alone: its rate limit, its circuit breaker, and what its provider asks for.

All in the memory of one dispatcher and on the monotonic clock. What may not go out waits in the outbox.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock

Clock = Callable[[], float]
"""Returns seconds that only ever grow."""


class RateLimit:
    """A token bucket: ``burst`` messages at once, then ``per_minute``."""

    def __init__(self, per_minute: float, burst: int, clock: Clock = time.monotonic) -> None:
        """Start with a full bucket.

        per_minute: messages a minute; 0 is without limit.
        """
        self._per_second = per_minute / 60
        self._burst = float(burst)
        self._clock = clock
        self._tokens = self._burst
        self._filled_at = clock()

    def room(self, wanted: int) -> int:
        """Return how many of ``wanted`` messages may go out now."""
        if not self._per_second:
            return wanted
        now = self._clock()
        self._tokens = min(self._tokens + (now - self._filled_at) * self._per_second, self._burst)
        self._filled_at = now
        return min(wanted, int(self._tokens))

    def take(self, messages: int) -> None:
        """Count messages that go out."""
        self._tokens -= messages


class CircuitBreaker:
    """Leaves a provider alone that fails, or that asks for it. Safe to use from several threads.

    After ``failures`` temporary failures in a row it is *open*: nothing goes out for ``pause`` seconds.
    Then it is *half-open*: one message tries, and its success closes the breaker.
    """

    def __init__(self, failures: int, pause: float, clock: Clock = time.monotonic) -> None:
        """Start closed; ``pause`` is in seconds."""
        self._limit = failures
        self._pause = pause
        self._clock = clock
        self._lock = Lock()
        self._failures = 0
        self._resume_at = clock()

    def tripped(self) -> bool:
        """Tell whether it is open or half-open."""
        return self._failures >= self._limit

    def paused(self) -> bool:
        """Tell whether nothing may go out now."""
        return self._clock() < self._resume_at

    def room(self, wanted: int, under_way: int) -> int:
        """Return how many of ``wanted`` messages may go out beside those under way."""
        with self._lock:
            if self.paused():
                return 0
            return max(min(wanted, 1 - under_way), 0) if self.tripped() else wanted

    def succeeded(self) -> None:
        """Count an attempt that the provider answered, be it with a refusal of this one message."""
        with self._lock:
            self._failures = 0

    def failed(self, asked: float = 0.0) -> bool:
        """Count a temporary failure; return whether it opened the breaker.

        asked: seconds for which the provider wants to be left alone.
        """
        with self._lock:
            was_tripped = self.tripped()
            self._failures += 1
            pause = max(asked, self._pause) if self.tripped() else asked
            self._resume_at = max(self._resume_at, self._clock() + pause)
            return self.tripped() and not was_tripped
