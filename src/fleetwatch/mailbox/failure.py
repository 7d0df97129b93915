"""Failing on demand: what the next deliveries shall suffer."""

from __future__ import annotations

from threading import Lock
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Mode = Literal["ok", "429", "500", "timeout", "refuse", "half_closed", "drip"]

DRIP_PAUSE = 0.05  # seconds between two bytes of an answer that never ends


class Failure(BaseModel):
    """How deliveries fail, as ``PUT /api/failure`` sets it."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    mode: Mode = "ok"
    """``429``: too many requests. ``500``: server error. ``timeout``: no answer for ``seconds``, then the
    connection is closed. ``refuse``: the connection is closed at once without an answer.
    ``half_closed``: the sender sees the end of the connection at once, but it stays open the other way for
    ``seconds``. ``drip``: an answer that never ends comes byte by byte for ``seconds``.
    SMTP replies 451 for 429, 554 for 500, and behaves alike for the others."""
    count: int | None = Field(default=None, ge=1, le=1_000_000)
    """How many deliveries fail before all is well again; ``None``: until told otherwise."""
    seconds: float = Field(default=5.0, ge=0, le=3600)
    """For ``429``: how long the sender is asked to wait. For the modes that keep the connection: how long."""
    deliver: bool = False
    """Keep the message although the sender is told that it failed: an answer that got lost."""


class FailureSwitch:
    """The current failure, counted down. Safe to use from several threads."""

    def __init__(self) -> None:
        """All is well."""
        self._lock = Lock()
        self._failure = Failure()

    def set(self, failure: Failure) -> None:
        """Change what happens from now on."""
        with self._lock:
            self._failure = failure

    def get(self) -> Failure:
        """Return what would happen to the next delivery; ``count`` is how many are left."""
        with self._lock:
            return self._failure

    def next(self) -> Failure:
        """Return what happens to this delivery, and count it."""
        with self._lock:
            failure = self._failure
            if failure.mode != "ok" and failure.count is not None:
                left = failure.count - 1
                self._failure = failure.model_copy(update={"count": left}) if left else Failure()
            return failure

    def to_json(self) -> dict[str, Any]:
        """Return the current failure as the API shows it."""
        return self.get().model_dump()
