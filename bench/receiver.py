"""Measure the alert receiver: durable posts a second, latency, memory, and the way to the channel.

The receiver and its dispatcher run as they do in production, on SQLite in a temporary folder on a real disk
(``--database URL`` for PostgreSQL). Posts are what Alertmanager sends: 3 KB with 5 alerts, all new. Compared
with

* the same application answering without storing: goal at least 0.6 of it,
* a receiver that calls a provider of 100 ms for each alert within the request: goal at least 100 times that.

Then memory over many posts (goal: flat, and both services below 150 MB), and the time from the commit of
an alert to its hand-over to the channel with an empty queue (goal: p99 below 1 s). ``--quick`` shortens all.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from bench import end_properly, load, say, verdict
from bench.load import Load

ALERTS = 5
BODY_BYTES = 3000
CONNECTIONS = 32
MIN_OF_ANSWERING = 0.6
MIN_TIMES_NAIVE = 100
MAX_RESIDENT_MB = 150.0
MAX_GROWTH_MB = 10.0
MAX_HANDOVER_SECONDS = 1.0
SOURCE = Path(__file__).parents[1] / "src"
UNIT_ENVIRONMENT = {"MALLOC_ARENA_MAX": "2", "PYTHONOPTIMIZE": "2"}
"""As the filter ``python_service`` writes it into the units."""


def _port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Server:
    """A process that listens on a port."""

    argv: list[str]
    port: int
    ready: str
    log: Path
    secrets: Path | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __enter__(self) -> Server:
        """Start it and wait until it answers."""
        environment = os.environ | {"PYTHONPATH": str(SOURCE)} | UNIT_ENVIRONMENT
        if self.secrets:
            environment["CREDENTIALS_DIRECTORY"] = str(self.secrets)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own services
                [sys.executable, "-m", *self.argv],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                break
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.argv[0]} does not start: {self.log.read_text()[-2000:]}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        assert self.process is not None  # noqa: S101 - started above
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def pids(self) -> list[int]:
        """Return the process and its children."""
        assert self.process is not None  # noqa: S101 - started above
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [self.process.pid, *map(int, children.read_text(encoding="ascii").split())]


@dataclass(frozen=True)
class Memory:
    """In MB of 10^6 bytes."""

    resident: float
    """What the processes keep in memory, with what they share counted once."""
    listed: float
    """The sum of what ps lists for each process, so that what they share counts several times."""

    @classmethod
    def of(cls, *servers: Server) -> Memory:
        """Return that of some servers together."""
        files: dict[str, int] = {}
        private = listed = 0
        for pid in (pid for server in servers for pid in server.pids()):
            mapped: dict[str, int] = {}
            file = ""
            for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8").splitlines():
                name, *values = line.split()
                if "-" in name and not name.endswith(":"):
                    file = values[4] if len(values) > 4 and values[4].startswith("/") else ""  # noqa: PLR2004
                elif name == "Rss:":
                    listed += int(values[0])
                    if file:
                        mapped[file] = mapped.get(file, 0) + int(values[0])
                elif name == "Pss:" and not file:
                    private += int(values[0])  # after a fork, shared by halves
            # Of a library that several have mapped, the same pages.
            files |= {file: max(size, files.get(file, 0)) for file, size in mapped.items()}
        return cls((private + sum(files.values())) * 1024 / 1e6, listed * 1024 / 1e6)


class Posts:
    """Requests with new alerts, each cheap to make."""

    def __init__(self) -> None:
        """Make the pattern; only the names of the alerts differ."""
        alerts = [
            {
                "status": "firing",
                "labels": {
                    "alertname": "HighCPUUsage",
                    "severity": "warning",
                    "host": f"XXXXXXXX-{number}",
                    "instance": f"XXXXXXXX-{number}:9100",
                    "job": "node_exporter",
                },
                "annotations": {"summary": "High CPU usage", "description": "CPU usage is 97 % " + "." * 80},
                "startsAt": datetime.now(UTC).isoformat(),
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://prometheus:9090/graph?g0.expr=usage",
                "fingerprint": f"XXXXXXXX{number:08x}",
            }
            for number in range(ALERTS)
        ]
        group: dict[str, Any] = {
            "version": "4",
            "groupKey": '{}:{alertname="HighCPUUsage"}',
            "receiver": "fleetwatch",
            "status": "firing",
            "alerts": alerts,
            "externalURL": "http://alertmanager:9093",
            "padding": "",
        }
        group["padding"] = "." * (BODY_BYTES - len(json.dumps(group)))
        body = json.dumps(group).encode()
        self.bytes = len(body)
        self._pattern = (
            b"POST /alerts HTTP/1.1\r\nHost: receiver\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        self._run = 0

    def new_run(self) -> None:
        """Let the following posts differ from all before."""
        self._run += 1

    def __call__(self, number: int) -> bytes:
        """Return one request."""
        return self._pattern.replace(b"XXXXXXXX", b"%02x%06x" % (self._run, number))


@dataclass
class Place:
    """A temporary folder with the settings of receiver and dispatcher."""

    folder: Path
    database: str
    port: int = field(default_factory=_port)
    dispatcher_port: int = field(default_factory=_port)
    mailbox_port: int = field(default_factory=_port)

    @property
    def config(self) -> Path:
        """Write the settings and return the file."""
        path = self.folder / "receiver.yml"
        mail = {
            "name": "mail",
            "type": "sendgrid",
            "sender": "fleetwatch@example.org",
            "recipients": ["ops@example.org"],
            "host": f"http://127.0.0.1:{self.mailbox_port}",
            "group_above": 0,  # each notification is handed over alone
        }
        settings = {
            "port": self.port,
            "dispatcher_port": self.dispatcher_port,
            "database_url": self.database,
            "anonymous_roles": ["send", "read"],
            "channels": [mail],
        }
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        secrets = self.folder / "credentials"
        secrets.mkdir(exist_ok=True)
        (secrets / "channel.mail.api_key").write_text("SG.bench", encoding="utf-8")
        return path

    def _server(self, argv: list[str], port: int) -> Server:
        log = self.folder / f"{argv[0]}.log"
        return Server(argv, port, "/healthz", log, self.folder / "credentials")

    def receiver(self) -> Server:
        """Return the receiver as in production."""
        return self._server(["fleetwatch.receiver", "--config", str(self.config)], self.port)

    def answering(self) -> Server:
        """Return the receiver that stores nothing."""
        return self._server(["bench.servers", "answering", str(self.config)], self.port)

    def naive(self) -> Server:
        """Return the receiver that calls its provider in the request."""
        return self._server(["bench.servers", "naive", str(self.port)], self.port)

    def dispatcher(self) -> Server:
        """Return the dispatcher as in production."""
        return self._server(["fleetwatch.dispatcher", "--config", str(self.config)], self.dispatcher_port)

    def mailbox(self) -> Server:
        """Return the stand-in for the provider."""
        path = self.folder / "mailbox.yml"
        settings = {"port": self.mailbox_port, "smtp_port": _port(), "state_directory": str(self.folder)}
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        return self._server(["fleetwatch.mailbox", "--config", str(path)], self.mailbox_port)


def _measure(
    server: Server, posts: Posts, seconds: float, rounds: int, connections: int = CONNECTIONS
) -> Load:
    """Return the best of some runs, since this machine may have other things to do too."""
    with server:
        load.run(server.port, posts, connections=connections, seconds=1)  # warm
        runs = []
        for _ in range(rounds):
            posts.new_run()
            runs.append(load.run(server.port, posts, connections=connections, seconds=seconds))
    return max(runs, key=lambda run: run.rate)


def _throughput(place: Place, seconds: float, rounds: int) -> tuple[Load, Load, Load]:
    posts = Posts()
    say(f"posts of {posts.bytes} bytes, {ALERTS} alerts, {CONNECTIONS} connections, best of {rounds} runs")
    durable = _measure(place.receiver(), posts, seconds, rounds)
    answering = _measure(place.answering(), posts, seconds, rounds)
    # It takes one request at a time anyway; more would only wait.
    naive = _measure(place.naive(), posts, seconds, 1, connections=2)
    for name, run in (("durable", durable), ("answering only", answering), ("naive", naive)):
        say(
            f"  {name:15} {run.rate:8.1f} posts/s   p50 {run.quantile(0.5) * 1000:6.1f} ms"
            f"   p99 {run.quantile(0.99) * 1000:6.1f} ms   {run.statuses}"
        )
    return durable, answering, naive


def _memory(place: Place, requests: int) -> tuple[float, Memory]:
    """Return the receiver's growth over the later posts, and the memory of both services at the end."""
    posts = Posts()
    posts.new_run()
    with place.mailbox(), place.receiver() as receiver, place.dispatcher() as dispatcher:
        seen = []
        parts = 10
        for part in range(parts):
            run = load.run(
                place.port,
                lambda number, part=part: posts(part * (requests // parts) + number),  # type: ignore[misc]
                connections=CONNECTIONS,
                requests=requests // parts,
            )
            seen.append(Memory.of(receiver).resident)
            if run.statuses.keys() != {200}:
                raise RuntimeError(f"not all posts were accepted: {run.statuses}")
        both = Memory.of(receiver, dispatcher)
        say(f"receiver over {requests} posts, MB resident: {' '.join(f'{each:.0f}' for each in seen)}")
        say(
            f"receiver and dispatcher: {both.resident:.0f} MB resident, shared pages counted once "
            f"({both.listed:.0f} MB summed over the processes)"
        )
    # The first tenth fills caches and pools.
    return statistics.mean(seen[-3:]) - seen[0], both


def _handover(place: Place, alerts: int) -> float:
    """Return the 99th percentile of the time from commit to hand-over, in seconds, from the histogram."""
    posts = Posts()
    posts.new_run()
    with place.mailbox(), place.receiver(), place.dispatcher():
        for number in range(alerts):
            load.run(place.port, lambda _, number=number: posts(number), connections=1, requests=1)  # type: ignore[misc]
            time.sleep(0.25)
        time.sleep(2)
        with urllib.request.urlopen(f"http://127.0.0.1:{place.dispatcher_port}/metrics") as answer:
            text = answer.read().decode()
    buckets = [
        (float(bound), float(count))
        for bound, count in re.findall(
            r'^alert_dispatcher_handover_seconds_bucket\{le="([^"]+)"\} (\S+)', text, re.MULTILINE
        )
    ]
    total = buckets[-1][1]
    p99 = next(bound for bound, count in buckets if count >= 0.99 * total)
    say(f"commit to hand-over: {total:.0f} notifications, p99 at most {p99} s")
    return p99


@contextlib.contextmanager
def _place(database: str | None) -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="bench-receiver-", dir="/var/tmp") as folder:  # not tmpfs
        url = database or f"sqlite:///{folder}/alerts.db"
        place = Place(Path(folder), url)
        subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "fleetwatch.receiver.cli", "--config", str(place.config), "migrate"],
            env=os.environ | {"PYTHONPATH": str(SOURCE)},
            check=True,
        )
        yield place


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--database", metavar="URL", help="an empty PostgreSQL database instead of SQLite")
    parser.add_argument("--quick", action="store_true", help="shorter runs: figures vary more")
    parser.add_argument("--posts", type=int, default=100_000, help="posts of the memory run")
    options = parser.parse_args()
    end_properly()
    with _place(options.database) as place:
        durable, answering, naive = _throughput(place, *((4, 2) if options.quick else (10, 3)))
    with _place(options.database) as place:
        growth, memory = _memory(place, 5_000 if options.quick else options.posts)
    with _place(options.database) as place:
        handover = _handover(place, 20 if options.quick else 100)
    share = durable.rate / answering.rate
    times = durable.rate / naive.rate
    reached = (
        share >= MIN_OF_ANSWERING
        and times >= MIN_TIMES_NAIVE
        and growth <= MAX_GROWTH_MB
        and memory.resident <= MAX_RESIDENT_MB
        and handover <= MAX_HANDOVER_SECONDS
    )
    return verdict(
        f"{share:.2f} of answering only (goal {MIN_OF_ANSWERING}), {times:.0f} times naive "
        f"(goal {MIN_TIMES_NAIVE}), {growth:+.0f} MB over {options.posts} posts (goal {MAX_GROWTH_MB:.0f}), "
        f"{memory.resident:.0f} MB resident (goal {MAX_RESIDENT_MB:.0f}), "
        f"hand-over p99 {handover} s (goal {MAX_HANDOVER_SECONDS:.0f})",
        reached=reached,
    )


if __name__ == "__main__":
    sys.exit(main())
