"""What the simulator's tests share: a clock to turn, fleets, and a Pushgateway that remembers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from fleetwatch.simulator.fleet import Fleet
from fleetwatch.simulator.model import Host
from fleetwatch.simulator.scenarios import load
from fleetwatch.simulator.state import Clock, StateFile

NOON = 1_750_000_000.0
NAMES = ["sim-web-01", "sim-db-01", "sim-batch-01"]


class Time:
    """A wall clock and a monotonic clock under the test's control."""

    def __init__(self) -> None:
        self.wall = NOON
        self.monotonic = 1000.0

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def clock(self, not_before: float) -> Clock:
        return Clock(not_before, lambda: self.wall, lambda: self.monotonic)


@pytest.fixture
def time() -> Time:
    return Time()


MakeFleet = Callable[..., Fleet]


@pytest.fixture
def make_fleet(time: Time) -> MakeFleet:
    def make(state: Path | None = None, names: list[str] | None = None, seed: int = 1) -> Fleet:
        hosts = [Host(name, seed) for name in names or NAMES]
        return Fleet(hosts, load(), file=StateFile(state), clock=time.clock)

    return make


class Gateway:
    """A stand-in for the Pushgateway: keeps the body of each group, and fails when told to."""

    def __init__(self) -> None:
        self.groups: dict[str, str] = {}
        self.requests: list[tuple[str, str]] = []
        self.refuse: dict[str, int] = {}  # part of a path -> status to answer

        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self._answer(200, body)

            def do_DELETE(self) -> None:
                self._answer(202, None)

            def _answer(self, status: int, body: str | None) -> None:
                gateway.requests.append((self.command, self.path))
                refused = [code for part, code in gateway.refuse.items() if part in self.path]
                # What the test looks at changes before the pusher hears the answer.
                if body is None and not refused:
                    gateway.groups.pop(self.path, None)
                elif body is not None and not refused:
                    gateway.groups[self.path] = body
                self.send_response(refused[0] if refused else status)
                self.end_headers()
                self.wfile.write(b"the gateway's own words\n" if refused else b"")

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def hosts(self) -> set[str]:
        return {path.rpartition("/")[2] for path in self.groups}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    gateway = Gateway()
    yield gateway
    gateway.close()
