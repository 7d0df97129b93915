"""A real Prometheus with samples that are known, and the usage API in front of it."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from flask import Flask

from bench import nodes
from fleetwatch.collector.usage.app import create_app
from fleetwatch.collector.usage.settings import UsageSettings

BEGIN = 1_767_312_000
"""2026-01-02T00:00:00Z, when the samples begin."""
INTERVAL = 60
SAMPLES = 240
END = BEGIN + SAMPLES * INTERVAL
ODD = 'we"ird{host="}|.*\\'
"""A host's name that would end a string, a selector or a regular expression."""
GROUPS = {"web": ["web1", "web2"], "empty": [], "odd": [ODD], "both": ["web1", ODD], "absent": ["web9"]}
# Of host number n the samples are n * 10 + (0, 1, 2, 3, 0, ...).
GAUGES = {"web1": 1, "both": 3, ODD: 4}
RECORDED = {"web2": 2, "both": 7}


def value(number: int, sample: int) -> float:
    return number * 10 + sample % 4


def _series() -> Iterator[str]:
    for metric, kind, hosts, scale in (
        ("gauge_cpu_usage", 'type="CPU",', GAUGES, 1.0),
        ("instance:node_cpu_utilisation:rate5m", "", RECORDED, 0.01),
    ):
        for host, number in hosts.items():
            text = host.replace("\\", "\\\\").replace('"', '\\"')
            for sample in range(SAMPLES):
                at = BEGIN + sample * INTERVAL
                yield f'{metric}{{{kind}host="{text}"}} {value(number, sample) * scale:.12g} {at}'
    # Seen through two targets, and for an hour only; one value is no number.
    for instance, number in (("a", 1), ("b", 2)):
        for sample in range(60):
            told = "NaN" if sample == 30 else f"{value(number, sample):g}"
            at = BEGIN + sample * INTERVAL
            yield f'gauge_mem_usage{{type="Memory",host="short",instance="{instance}"}} {told} {at}'
    yield "# EOF"


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory, promtool: str) -> Iterator[str]:
    """Return the URL of a Prometheus with the samples."""
    folder = tmp_path_factory.mktemp("prometheus")
    text, data = folder / "metrics", folder / "data"
    text.write_text("\n".join(_series()) + "\n")
    data.mkdir()
    subprocess.run(  # noqa: S603 - our own arguments
        [promtool, "tsdb", "create-blocks-from", "openmetrics", str(text), str(data)],
        check=True,
        capture_output=True,
        timeout=120,
    )
    with nodes.prometheus(nodes.Fleet(0, 0, BEGIN), data) as url:
        yield url


def settings(*urls: str, **more: Any) -> UsageSettings:
    return UsageSettings.model_validate({"prometheus_urls": urls, "groups": GROUPS, **more})


@contextmanager
def run(*urls: str, **more: Any) -> Iterator[Flask]:
    """Run the application."""
    app = create_app(settings(*urls, **more))
    try:
        yield app
    finally:
        app.extensions["usage"].close()


@dataclass
class StandIn:
    """A server that answers as it is told, and keeps what it was asked."""

    url: str = ""
    answer: Callable[[str], tuple[int, object]] = lambda _path: (200, {"status": "success", "data": []})
    headers: dict[str, str] = field(default_factory=dict)
    """Of its answers."""
    seen: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    """Path, headers and body of each request but those for /-/ready."""


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    """Run a server in a thread; ``answer`` gets the path and returns status and JSON, or waits."""
    found = StandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path != "/-/ready":
                found.seen.append((self.path, dict(self.headers), body))
            status, told = found.answer(self.path)
            sent = told if isinstance(told, bytes) else json.dumps(told).encode()
            self.send_response(status)
            for name, text in ({"Content-Type": "application/json"} | found.headers).items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = _answer  # noqa: N815 - the names are the base's

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base's
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None:
            """A caller who went away is a part of many tests."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    server.server_close()
