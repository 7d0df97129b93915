"""Receiver and dispatcher as processes, those who post to them, and what must be true in the end."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from fleetwatch.store import Incident, Notification, State, Store
from tests.common.services import Service, alert, answers, call, free_port, wait_until
from tests.faults.provider import Provider

SEED = int(os.environ.get("FAULTS_SEED", "20260102"))
"""Of all that is random here; printed with each result."""

_RESTART_PAUSE = 0.2  # seconds; systemd's RestartSec


class Supervisor:
    """Starts a service again whenever it ends, as systemd does."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.start()

    def start(self) -> None:
        """Start it, after ``terminate`` too."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._ended,), daemon=True)
        self._thread.start()

    def _run(self, ended: threading.Event) -> None:
        while not ended.is_set():
            self.service.spawn().wait()
            ended.wait(_RESTART_PAUSE)

    def kill(self) -> None:
        """Kill it with SIGKILL, all its processes at once; if it is away just now, once it runs again."""
        process = wait_until(self._running, what="it runs")
        assert process is not None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    def terminate(self) -> int:
        """Stop it with SIGTERM, and let it be; return the exit code."""
        process = wait_until(self._running, what="it runs")
        assert process is not None
        self._ended.set()
        process.terminate()
        return process.wait(40)

    def close(self) -> None:
        """End it."""
        self._ended.set()
        while self._thread.is_alive():
            if process := self._running():
                os.killpg(process.pid, signal.SIGKILL)
            self._thread.join(0.1)

    def _running(self) -> subprocess.Popen[bytes] | None:
        process = self.service.process
        return process if process and process.poll() is None else None


@dataclass
class Stack:
    """A receiver and a dispatcher on one database."""

    config: dict[str, Any]
    receiver: Supervisor
    dispatcher: Supervisor

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.config['port']}"

    @property
    def dispatcher_url(self) -> str:
        return f"http://127.0.0.1:{self.config['dispatcher_port']}"

    def wait_ready(self) -> None:
        for url in (self.url, self.dispatcher_url):
            wait_until(lambda url=url: answers(f"{url}/readyz"), what=f"{url} is ready")  # type: ignore[misc]

    def wait_delivered(self, seconds: float = 120) -> None:
        """Wait until nothing is queued."""
        store = Store(self.config["database_url"])
        try:
            wait_until(lambda: not _queued(store), seconds, "all is delivered")
        finally:
            store.close()

    def incidents(self) -> list[Incident]:
        """Return all incidents, the oldest first."""
        store = Store(self.config["database_url"])
        try:
            with store.read() as session:
                return list(session.scalars(select(Incident).order_by(Incident.id)))
        finally:
            store.close()

    def count(self) -> int:
        """Return how many incidents there are."""
        store = Store(self.config["database_url"])
        try:
            with store.read() as session:
                return session.scalar(select(func.count(Incident.id))) or 0
        finally:
            store.close()

    def metric(self, name: str) -> float:
        """Return one of the receiver's metrics that have no labels."""
        text = call("GET", f"{self.url}/metrics").text
        return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])

    def rows(self) -> list[tuple[str, str, str]]:
        """Return alert name, transition and state of each notification."""
        store = Store(self.config["database_url"])
        try:
            with store.read() as session:
                query = select(Incident.labels, Notification.transition, Notification.state)
                found = session.execute(query.join(Notification.incident)).all()
        finally:
            store.close()
        return [(labels["alertname"], transition, state) for labels, transition, state in found]

    def check(self, accepted: set[str], provider: Provider, transitions: Sequence[str] = ("firing",)) -> None:
        """Check that all that was accepted is an incident, once, and that the provider was told of each."""
        wanted = {(name, transition) for name in accepted for transition in transitions}
        rows = self.rows()
        assert Counter((name, transition) for name, transition, _ in rows) == Counter(wanted)
        sent = {(name, transition) for name, transition, state in rows if state == State.SENT}
        assert {state for _, _, state in rows} <= {State.SENT, State.PARKED}
        assert sent - set(provider.told()) == set(), "marked as sent, but the provider has not got it"
        assert wanted - sent == set(), "parked, though nothing was refused for good"


def _queued(store: Store) -> int:
    with store.read() as session:
        query = select(Notification.id).where(Notification.state == State.QUEUED).limit(1)
        return len(session.scalars(query).all())


@contextmanager
def run_stack(  # noqa: PLR0913 - each is one thing that tests vary
    directory: Path,
    database_url: str,
    provider: Provider,
    *,
    channel: dict[str, Any] | None = None,
    variables: dict[str, str] | None = None,
    secrets: dict[str, str] | None = None,
    **settings: Any,
) -> Iterator[Stack]:
    """Start both services; yield when they are ready."""
    config = {
        "port": free_port(),
        "dispatcher_port": free_port(),
        "database_url": database_url,
        "anonymous_roles": ["send", "read"],
        "channels": [
            {
                "name": "hook",
                "type": "webhook",
                "url": provider.url,
                "allowed_networks": ["127.0.0.0/8"],
                "timeout": 2,
                "concurrency": 1,
                "group_above": 0,
                **(channel or {}),
            }
        ],
        "poll_interval": 0.1,
        "lease": 6,
        "retry_base": 0.1,
        "retry_max": 0.5,
        **settings,
    }
    services = [
        Supervisor(Service(module, config, directory, secrets or {}, variables=variables or {}))
        for module in ("receiver", "dispatcher")
    ]
    try:
        stack = Stack(config, *services)
        stack.wait_ready()
        yield stack
    finally:
        for service in services:
            service.close()


@dataclass
class Posters:
    """Post alerts as Alertmanager does: again on 5xx and when there is no answer, never on 4xx."""

    url: str
    batches: list[list[str]]
    """The names of the alerts in each request."""
    workers: int = 4
    status: str = "firing"
    pause: float = 0.0
    """Seconds between two requests of one poster."""
    bytes_each: int = 0
    """Size of a further annotation, which no database can compress."""
    accepted: set[str] = field(default_factory=set)
    answered: Counter[int] = field(default_factory=Counter)
    """Answers by status; 0 stands for none."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(self.workers)]
        self._total = sum(map(len, self.batches))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self, seconds: float = 120) -> None:
        """Wait until all is accepted."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))
        self._ended.set()
        assert not self.batches, f"not accepted within {seconds} s: {self.answered}"
        assert len(self.accepted) == self._total, f"refused: {self.answered}"

    @property
    def progress(self) -> float:
        """Return which part of the alerts was accepted."""
        return len(self.accepted) / self._total

    def _run(self) -> None:
        while not self._ended.is_set():
            with self._lock:
                if not self.batches:
                    return
                names = self.batches.pop()
            if not self._post(names):
                with self._lock:
                    self.batches.append(names)
                time.sleep(0.05)
            elif self.pause:
                time.sleep(self.pause)

    def _post(self, names: list[str]) -> bool:
        """Return whether these are done with."""
        try:
            alerts = [self._alert(name) for name in names]
            answer = call("POST", f"{self.url}/alerts", {"alerts": alerts})
        except (OSError, http.client.HTTPException):
            status = 0
        else:
            status = answer.status
        with self._lock:
            self.answered[status] += 1
            if 200 <= status < 300:
                self.accepted.update(names)
        return 200 <= status < 500

    def _alert(self, name: str) -> dict[str, Any]:
        more: dict[str, Any] = {"endsAt": "2026-01-02T03:14:05Z"} if self.status == "resolved" else {}
        if self.bytes_each:
            more["annotations"] = {"dump": os.urandom(self.bytes_each // 2).hex()}
        return alert(name, status=self.status, **more)


def names(count: int, per_request: int, prefix: str = "A") -> list[list[str]]:
    """Return the names of so many alerts, in requests."""
    all_names = [f"{prefix}{number}" for number in range(count)]
    return [all_names[start : start + per_request] for start in range(0, count, per_request)]
