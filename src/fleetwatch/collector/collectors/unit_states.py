"""The states of systemd's services, and how often they were restarted."""

from __future__ import annotations

import subprocess
import time
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
    """

    def __init__(self, plan: Plan) -> None:
        """Take the filters and the time."""
        self._wanted = Wanted(plan.units_include, plan.units_exclude)
        self._timeout = 0.9 * plan.timeout("unit_states")
        self._mark: int | None = None
        self._until = self._left_alone_until = float("-inf")
        self._states: list[State] = []

    def __call__(self) -> Metrics:
        """Return the metrics; none where systemd does not run the host."""
        if not cgroups.BOOTED.exists():
            return []
        mark = _mark()  # before the answer, so that what changes meanwhile is asked for again
        if mark is None or mark != self._mark or time.monotonic() >= self._until:
            self._mark = None  # until there is an answer
            self._states = [state for state in states(self._ask()) if self._wanted(state.unit)]
            calm = all(state.state == "active" for state in self._states)
            self._until = time.monotonic() + (SETTLED if calm else UNSETTLED)
            self._mark = mark
        return [
            gauges(
                "host_unit_state",
                "1 for the state in which systemd has the service; one that is inactive is not told.",
                ["unit", "state"],
                (([label(each.unit), each.state], 1) for each in self._states),
            ),
            counters(
                "host_unit_restarts",
                "Restarts by systemd because the service had ended by itself, since somebody started it.",
                ["unit"],
                (([label(each.unit)], each.restarts) for each in self._states),
            ),
            gauges(
                "host_unit_start_time_seconds",
                "When the service became active, in Unix time.",
                ["unit"],
                (([label(each.unit)], each.started) for each in self._states if each.started is not None),
            ),
        ]

    def _ask(self) -> str:
        """Return what systemd says, or raise; when it did not answer in time, at once for a while."""
        now = time.monotonic()
        if now < self._left_alone_until:
            raise TimeoutError("systemctl did not return in time; it is run again soon")
        try:
            return _ask(self._timeout)
        except subprocess.TimeoutExpired:
            self._left_alone_until = now + UNSETTLED
            raise


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


def _ask(timeout: float) -> str:
    """Return what systemd says of all services, or raise."""
    done = subprocess.run(  # noqa: S603 - our own arguments
        [
            SYSTEMCTL,
            "show",
            "--property=Id,ActiveState,NRestarts,ActiveEnterTimestamp",
            "--timestamp=unix",
            f"--state={','.join(STATES)}",
            f"*{SERVICE}",
        ],
        capture_output=True,
        env={"LC_ALL": "C.UTF-8"},
        timeout=timeout,
        check=False,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        words = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise OSError(f"systemctl show: {words}")
    return done.stdout


def _mark() -> int | None:
    try:
        return INVOCATIONS.stat().st_mtime_ns
    except OSError:
        return None
