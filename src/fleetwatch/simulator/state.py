"""The little that a simulator remembers, in a JSON file, and a clock that never steps back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ValidationError

from .scenarios import Incident

log = logging.getLogger(__name__)


class State(BaseModel):
    """What a restart must not forget."""

    fleet: str
    """Version of the formulas and seed; the state of another fleet is not used."""
    since: float
    """Time at which the counters stood at zero."""
    clock: float
    """The latest time that was shown; a counter must never be computed for an earlier one."""
    received: dict[str, float] = {}
    """Bytes that incidents now over have added, per host."""
    incidents: list[Incident] = []
    """Incidents that run or wait, in the order in which they were played."""
    groups: list[str] = []
    """Hosts with a group in the Pushgateway, as far as is known."""


class StateFile:
    """Where the state is kept; without a path, nowhere."""

    def __init__(self, path: Path | None) -> None:
        """Name the file; its directory must exist."""
        self._path = path
        self._failing = False

    def load(self, fleet: str) -> State | None:
        """Return the state kept for a fleet, or ``None``: then the counters start at zero, as after a reboot.

        Raises OSError when the file or its directory cannot be used.
        """
        if self._path is None:
            return None
        try:
            state = State.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            log.warning("state unreadable, counters start at zero", extra={"file": str(self._path)})
            return None
        if state.fleet != fleet:
            log.info("state is of another seed or version, counters start at zero")
            return None
        return state

    def save(self, state: State) -> None:
        """Replace the file in one step. A full disk is logged once and does not stop the simulation."""
        try:
            self.write(state)
        except OSError as error:
            if not self._failing:
                log.error(  # noqa: TRY400 - the reason says it all
                    "state not saved, a restart would reset counters and incidents",
                    extra={"file": str(self._path), "error": error.strerror},
                )
            self._failing = True
        else:
            self._failing = False

    def write(self, state: State) -> None:
        """Replace the file in one step; raises OSError."""
        if self._path is None:
            return
        draft = self._path.with_name(self._path.name + ".new")
        draft.write_text(state.model_dump_json(), encoding="utf-8")
        draft.replace(self._path)


class Clock:
    """The wall clock, except that it never steps back.

    When the wall clock is set back, time goes on at the pace of the monotonic clock, until the wall clock has
    caught up. When it is set forward, as after a suspend, time follows.
    """

    def __init__(
        self,
        not_before: float = 0,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start no earlier than a time (s since the epoch)."""
        self._wall, self._monotonic = wall, monotonic
        self._ahead = not_before - monotonic()

    def now(self) -> float:
        """Return seconds since the epoch, never less than before."""
        monotonic = self._monotonic()
        self._ahead = max(self._ahead, self._wall() - monotonic)
        return monotonic + self._ahead
