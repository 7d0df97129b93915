"""The states of systemd's services, and how often they were restarted."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fleetwatch.collector.plan import Plan

from . import cgroups
from .cgroups import SERVICE, Wanted
from .families import Metrics, counters, gauges, label

SYSTEMCTL = "/usr/bin/systemctl"
INVOCATIONS = Path("/run/systemd/units")
"""systemd keeps a link in it for each unit that runs."""
SETTLED, UNSETTLED = 300.0, 30.0
"""Seconds after which systemd is asked again although nothing began or ended: while all is well, and while a
service is on its way or failed."""
SOON = 0.1
"""Seconds that a later round waits for an answer that did not come in time."""
GIVE_UP = 30.0
"""Seconds after which systemctl is ended, to try it anew."""
STATES = ("active", "reloading", "activating", "deactivating", "maintenance", "failed")
"""States that are told; a service that is inactive is not."""


class State(NamedTuple):
    """What systemd says of a service."""

    unit: str
    state: str
    restarts: int
    started: float | None
    """Unix time."""


class UnitStates:
    """Asks systemd, but only when something may have changed.

    An answer costs more than all the other collectors together, so it is kept while no unit begins or ends:
    systemd keeps a link for each that runs, and the time of their folder tells. What that does not tell, such
    as that a failed unit was reset, is seen a little later.

    An answer that does not come in time is taken by a later round, which does not wait for it again; what was
    known before holds until systemctl is given up, so that a busy host does not lose its alerts.
    """

    def __init__(self, plan: Plan) -> None:
        """Take the filters and the time."""
        self._wanted = Wanted(plan.units_include, plan.units_exclude)
        self._timeout = plan.timeout("unit_states") / 2  # to begin a process takes time as well
        self._question: Question | None = None
        self._mark: int | None = None
        self._until = float("-inf")
        self._states: list[State] | None = None

    def __call__(self) -> Metrics:
        """Return the metrics; none where systemd does not run the host."""
        if not cgroups.BOOTED.exists():
            return []
        mark = _mark()  # before the answer, so that what changes meanwhile is asked for again
        if self._question:
            self._take(self._question, SOON)
        elif mark is None or mark != self._mark or time.monotonic() >= self._until:
            self._mark = None  # until there is an answer
            self._question = Question(mark)
            self._take(self._question, self._timeout)
        known = self._states or ()
        return [
            gauges(
                "host_unit_state",
                "1 for the state in which systemd has the service; one that is inactive is not told.",
                ["unit", "state"],
                (([label(each.unit), each.state], 1) for each in known),
            ),
            counters(
                "host_unit_restarts",
                "Restarts by systemd because the service had ended by itself, since somebody started it.",
                ["unit"],
                (([label(each.unit)], each.restarts) for each in known),
            ),
            gauges(
                "host_unit_start_time_seconds",
                "When the service became active, in Unix time.",
                ["unit"],
                (([label(each.unit)], each.started) for each in known if each.started is not None),
            ),
        ]

    def _take(self, question: Question, timeout: float) -> None:
        """Take the answer, or raise."""
        try:
            text = question.answer(timeout)
        except subprocess.TimeoutExpired:
            seconds = time.monotonic() - question.asked
            if seconds >= GIVE_UP:
                question.end()
                self._question = self._states = None
            if self._states is None:
                raise TimeoutError(f"systemctl has not returned for {seconds:.0f} s") from None
            return
        except OSError:
            self._question = self._states = None
            raise
        self._question, self._mark = None, question.mark
        self._states = [state for state in states(text) if self._wanted(state.unit)]
        calm = all(state.state == "active" for state in self._states)
        self._until = time.monotonic() + (SETTLED if calm else UNSETTLED)


class Question:
    """A run of systemctl about all services."""

    def __init__(self, mark: int | None) -> None:
        """Begin it.

        Args:
            mark: the time of the links before.

        """
        self.mark, self.asked = mark, time.monotonic()
        self._process = subprocess.Popen(  # noqa: S603 - our own arguments
            [
                SYSTEMCTL,
                "show",
                "--property=Id,ActiveState,NRestarts,ActiveEnterTimestamp",
                "--timestamp=unix",
                f"--state={','.join(STATES)}",
                f"*{SERVICE}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"LC_ALL": "C.UTF-8"},
            encoding="utf-8",
            errors="replace",
        )

    def answer(self, timeout: float) -> str:
        """Return what it wrote.

        Raises:
            OSError: It failed; the text has its words.
            subprocess.TimeoutExpired: It has not ended within so many seconds; ask again later.

        """
        text, complaint = self._process.communicate(timeout=timeout)
        if self._process.returncode:
            words = " ".join(complaint.split()) or f"exit code {self._process.returncode}"
            raise OSError(f"systemctl show: {words}")
        return text

    def end(self) -> None:
        """End it."""
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=1)


def states(text: str) -> list[State]:
    """Return the services in what systemctl writes: lines of ``Name=value``, an empty one between two."""
    found: dict[str, State] = {}
    for block in text.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        unit, state = values.get("Id", ""), values.get("ActiveState", "")
        if unit.endswith(SERVICE) and state in STATES:
            at = values.get("ActiveEnterTimestamp", "").removeprefix("@")
            started = float(at) if at.isdigit() and state in ("active", "reloading") else None
            found[unit] = State(unit, state, int(values.get("NRestarts") or 0), started)
    return list(found.values())


def _mark() -> int | None:
    try:
        return INVOCATIONS.stat().st_mtime_ns
    except OSError:
        return None
