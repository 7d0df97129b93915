"""Helpers that start the services as real processes and talk to them over real sockets."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from werkzeug.serving import WSGIRequestHandler, make_server

from fleetwatch.mailbox import smtp
from fleetwatch.mailbox.app import Mailbox, create_app
from fleetwatch.mailbox.settings import MailboxSettings

T = TypeVar("T")
API_KEY = "SG.the-key-of-the-test"
MAIL: dict[str, Any] = {
    "name": "mail",
    "type": "sendgrid",
    "sender": "fleetwatch@example.org",
    "recipients": ["ops@example.org"],
}
"""A channel as the settings have it; its secret is ``mail.api_key``."""
SOURCE = Path(__file__).parents[2] / "src"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until(check: Callable[[], T], seconds: float = 60.0, what: str = "") -> T:
    deadline = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or check}"
        time.sleep(0.02)
    return value


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


def call(method: str, url: str, body: object = None, headers: dict[str, str] | None = None) -> Answer:
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310 - only loopback URLs of the tests
        url, data, {"Content-Type": "application/json"} | (headers or {}), method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            return Answer(response.status, dict(response.headers), response.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, dict(error.headers), error.read())


def answers(url: str) -> bool:
    try:
        return call("GET", url).status == 200
    except OSError:
        return False


@dataclass
class Service:
    """A service as a process of its own."""

    module: str
    config: dict[str, Any]
    directory: Path
    secrets: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    variables: dict[str, str] = field(default_factory=dict)
    """Further environment variables."""
    arguments: tuple[str, ...] = ()
    """What stands before ``--config``, such as a subcommand."""

    @property
    def command(self) -> list[str]:
        module = f"fleetwatch.{self.module}"
        return [sys.executable, "-m", module, *self.arguments, "--config", str(self._write())]

    @property
    def environment(self) -> dict[str, str]:
        credentials = self.directory / f"{self.module}-credentials"
        credentials.mkdir(exist_ok=True)
        for name, value in self.secrets.items():
            (credentials / name).write_text(value + "\n")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ALERT_")}
        own = {"PYTHONPATH": str(SOURCE), "CREDENTIALS_DIRECTORY": str(credentials)}
        return inherited | own | self.variables

    @property
    def log(self) -> Path:
        return self.directory / f"{self.module}.log"

    def _write(self) -> Path:
        path = self.directory / f"{self.module}.yml"
        path.write_text(yaml.safe_dump(self.config))
        return path

    def start(self, health: str, before: Callable[[], None] | None = None) -> None:
        self.spawn(before)
        wait_until(lambda: answers(health) or self._died(), what=f"{self.module} answers")

    def spawn(self, before: Callable[[], None] | None = None) -> subprocess.Popen[bytes]:
        """Start it without waiting for it."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own service
                self.command,
                env=self.environment,
                stderr=log,
                stdout=log,
                preexec_fn=before,  # noqa: PLW1509 - the test has no threads that matter here
                start_new_session=True,
            )
        return self.process

    def _died(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"{self.module} died: {self.log.read_text()}"
        return False

    def run(self) -> subprocess.CompletedProcess[str]:
        """Run it to its end, which settings errors bring at once."""
        return subprocess.run(  # noqa: S603 - our own service
            self.command, env=self.environment, capture_output=True, text=True, timeout=90, check=False
        )

    def kill(self) -> None:
        """SIGKILL for the process and its workers at once, as when the machine fails."""
        if self.process is not None:
            with_children = os.getpgid(self.process.pid)
            os.killpg(with_children, 9)
            self.process.wait(10)
            self.process = None

    def terminate(self) -> int:
        """SIGTERM; return the exit code."""
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(90)
        self.process = None
        return code

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002
        pass


@dataclass
class MailboxServer:
    """The real mailbox application on a real socket, in a thread of the test."""

    url: str
    mailbox: Mailbox

    def fail(self, mode: str, **options: object) -> None:
        assert call("PUT", f"{self.url}/api/failure", {"mode": mode, **options}).status == 200

    def subjects(self) -> list[str]:
        return [message["subject"] for message in self.messages()]

    def messages(self) -> list[dict[str, Any]]:
        """Return the messages, the oldest first."""
        return list(reversed(call("GET", f"{self.url}/api/messages").json["messages"]))


@contextmanager
def run_mailbox(directory: Path, **settings: object) -> Iterator[MailboxServer]:
    values = {"state_directory": directory, "api_key": API_KEY, **settings}
    mailbox = Mailbox(MailboxSettings.model_validate(values))
    server = make_server("127.0.0.1", 0, create_app(mailbox), threaded=True, request_handler=_Quiet)
    server.daemon_threads = True  # type: ignore[attr-defined] # one that hangs must not hold up the test
    server.block_on_close = False  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield MailboxServer(f"http://127.0.0.1:{server.server_port}", mailbox)
    finally:
        server.shutdown()
        server.server_close()
        mailbox.messages.close()


@contextmanager
def run_smtp(mailbox: MailboxServer, **settings: object) -> Iterator[int]:
    """Run the mailbox's SMTP server beside its web side; yield its port."""
    port = free_port()
    values = mailbox.mailbox.settings.model_dump() | {"smtp_port": port, **settings}
    server = smtp.server(
        MailboxSettings.model_validate(values), mailbox.mailbox.keep, mailbox.mailbox.failures
    )
    server.start()
    try:
        yield port
    finally:
        server.stop()


def alert(name: str = "HighCpu", **extra: Any) -> dict[str, Any]:
    """Return an alert as Alertmanager sends it."""
    labels = {"alertname": name, "severity": "critical", "host": "node1"} | extra.pop("labels", {})
    return {
        "status": "firing",
        "labels": labels,
        "annotations": {"summary": f"{name} on node1"},
        "startsAt": "2026-01-02T03:04:05.678901234Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus:9090/graph?g0.expr=up",
        **extra,
    }
