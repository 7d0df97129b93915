"""When to try again: the only place that decides it, for all channels."""

from __future__ import annotations

import random
from dataclasses import dataclass

_MAX_ASKED = 3600.0  # seconds; no provider may put a message off for longer
_MAX_DOUBLINGS = 32


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with jitter. All times in seconds."""

    base: float
    """Wait before the first retry."""
    longest: float
    """Upper limit of the wait."""
    give_up: float
    """Age at which a message is parked instead of tried again."""

    def delay(self, attempt: int, asked: float | None = None) -> float:
        """Return how long to wait after failed attempt number ``attempt`` (from 1).

        asked: how long the provider asks to wait; never cut short, but never more than an hour.
        """
        backoff = min(self.base * 2.0 ** min(attempt - 1, _MAX_DOUBLINGS), self.longest)
        # Half fixed, half random: failures that came together do not come back together.
        jittered = backoff * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
        if asked is None:
            return jittered
        return max(jittered, min(asked, _MAX_ASKED) + random.uniform(0, self.base / 4))  # noqa: S311 - not a secret
