"""The simulated fleet: its hosts, the incidents that are played on them, and their state."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from secrets import token_hex
from threading import RLock

from . import model
from .scenarios import Incident, Play, Scenario, plan
from .state import Clock, State, StateFile

log = logging.getLogger(__name__)

Snapshot = dict[str, model.Reading | None]
"""Each host's reading at one moment; ``None`` for a host that is silent."""


class Fleet:
    """What happens on the simulated hosts. Safe to use from several threads."""

    def __init__(
        self,
        hosts: Sequence[model.Host],
        scenarios: dict[str, Scenario],
        *,
        file: StateFile | None = None,
        clock: Callable[[float], Clock] = Clock,
    ) -> None:
        """Go on where the state file left off; raises OSError when it cannot be used.

        clock: makes the clock, given the time (s since the epoch) at which it may start at the earliest.
        """
        self.names = [host.name for host in hosts]
        self.scenarios = scenarios
        self._hosts = list(hosts)
        self._file = file or StateFile(None)
        self._lock = RLock()
        identity = hosts[0].origin
        saved = self._file.load(identity)
        self._clock = clock(saved.clock if saved else 0)
        now = self._clock.now()
        self._state = saved or State(fleet=identity, since=now, clock=now)
        self._file.write(self._state)

    def snapshot(self) -> Snapshot:
        """Return each host's reading now."""
        with self._lock:
            now = self._advance()
            # Saved before it is shown: whatever was shown, the next process starts no earlier.
            self._file.save(self._state)
            return {host.name: self._read(host, now) for host in self._hosts}

    def play(self, request: Play) -> Incident:
        """Play a scenario; raises ScenarioError when there is no such scenario, host or strength."""
        with self._lock:
            incident = plan(request, token_hex(4), self.scenarios, self.names, self._advance())
            self._state.incidents.append(incident)
            self._file.save(self._state)
        log.info("incident played", extra={"incident": incident.model_dump()})
        return incident

    def play_at_start(self, requests: Sequence[Play]) -> None:
        """Play what the settings name, except what a previous process has begun and the state has kept."""
        with self._lock:
            going_on = {(incident.scenario, *incident.hosts) for incident in self.incidents()}
            for request in requests:
                planned = plan(request, "", self.scenarios, self.names, 0)
                if (planned.scenario, *planned.hosts) not in going_on:
                    self.play(request)

    def end(self, incident_id: str | None = None) -> list[Incident]:
        """End one incident, or all; return those that were ended (none when the id is unknown)."""
        with self._lock:
            now = self._advance()
            ended = [i for i in self._state.incidents if incident_id in (None, i.id)]
            for incident in ended:
                self._forget(incident, now)
            self._file.save(self._state)
        for incident in ended:
            log.info("incident ended", extra={"incident": incident.id, "scenario": incident.scenario})
        return ended

    def incidents(self) -> list[Incident]:
        """Return the incidents that run or wait, in the order in which they were played."""
        with self._lock:
            self._advance()
            return list(self._state.incidents)

    def set_groups(self, hosts: Sequence[str]) -> list[str]:
        """Remember which hosts have a group in the Pushgateway; return those that had one until now."""
        with self._lock:
            before, self._state.groups = self._state.groups, list(hosts)
            if before != self._state.groups:
                self._file.save(self._state)
        return before

    def _advance(self) -> float:
        """Move the state to the present and return it: incidents that are over become plain figures."""
        now = self._state.clock = self._clock.now()
        for incident in [i for i in self._state.incidents if i.end <= now]:
            self._forget(incident, now)
            log.info("incident over", extra={"incident": incident.id, "scenario": incident.scenario})
        return now

    def _forget(self, incident: Incident, now: float) -> None:
        self._state.incidents.remove(incident)
        received = incident.received(now)
        if received:
            for host in incident.hosts:
                self._state.received[host] = self._state.received.get(host, 0) + received

    def _read(self, host: model.Host, now: float) -> model.Reading | None:
        reading = host.at(now, self._state.since)
        reading.received += self._state.received.get(host.name, 0)
        for incident in self._state.incidents:
            if host.name not in incident.hosts:
                continue
            if incident.silences(now):
                return None
            reading.received += incident.received(now)
            incident.drive(reading, now)
        return reading
