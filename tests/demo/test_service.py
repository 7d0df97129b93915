"""The API as a process of its own, under gunicorn, with its socket and its port."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.common.services import Answer, Service, call, free_port, wait_until
from tests.databases import PostgresServer, fresh_database
from tests.demo.conftest import QUIET

pytestmark = pytest.mark.slow

LIMIT = 120.0
"""Seconds: long enough on any machine."""


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=LIMIT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(LIMIT)
        self.sock.connect(str(self._path))


class RunningApi(Service):
    instance = 1
    port: int

    @property
    def unix_socket(self) -> Path:
        return self.directory / f"api-{self.instance}.sock"

    def ask(self, method: str, path: str, body: object = None) -> Answer:
        connection = UnixConnection(self.unix_socket)
        sent = None if body is None else json.dumps(body)
        connection.request(method, path, sent, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.headers), answer.read())

    def metrics(self) -> str:
        return call("GET", f"http://127.0.0.1:{self.port}/metrics").text

    def up(self) -> None:
        self.start(f"http://127.0.0.1:{self.port}/livez")


def make(directory: Path, database: str, **more: Any) -> RunningApi:
    port = free_port()
    while not 1024 < port < 60000:
        port = free_port()
    settings = {
        "database_url": database,
        "socket_directory": str(directory),
        "state_directory": str(directory),
        "listen_address": "127.0.0.1",
        "api_port": port - 1,
        "worker_port": port + 1000 if port < 50000 else port - 1000,
    }
    found = RunningApi("demo", QUIET | settings | more, directory, arguments=("api", "--instance", "1"))
    found.port = port
    return found


@pytest.fixture
def api(tmp_path: Path, transactions_database: str) -> Iterator[RunningApi]:
    found = make(tmp_path, transactions_database)
    yield found
    found.kill()


def test_requests_come_over_the_socket_and_metrics_over_the_port(api: RunningApi) -> None:
    api.up()
    assert call("GET", f"http://127.0.0.1:{api.port}/readyz").status == 200
    made = api.ask("POST", "/transactions/create", {"amount": "12.34", "currency": "EUR"})
    assert made.status == 201
    assert api.ask("GET", "/transactions").json["transactions"] == [made.json]
    assert api.ask("GET", "/health").json["status"] == "ok"
    created = 'transactions_http_requests_total{method="POST",route="/transactions/create",status="201"} 1.0'
    assert created in api.metrics()
    for path in ("/transactions", "/health", "/control/behaviour", "/error", "/"):
        assert call("GET", f"http://127.0.0.1:{api.port}{path}").status == 404
    assert api.ask("GET", "/metrics").status == 404


def test_the_log_is_json_with_each_request(api: RunningApi) -> None:
    api.up()
    told = api.ask("GET", "/error").json
    (event,) = (event for event in api.events() if event["event"] == "request")
    assert (event["service"], event["level"], event["status"]) == ("transactions_api", "ERROR", 500)
    assert (event["trace_id"], event["route"]) == (told["trace_id"], "/error")
    assert event["request_id"]


def test_it_ends_in_order_and_removes_its_socket(api: RunningApi) -> None:
    api.up()
    assert api.terminate() == 0
    assert not api.unix_socket.exists()


def test_it_starts_again_after_a_kill(api: RunningApi) -> None:
    api.up()
    api.kill()
    assert api.unix_socket.exists()  # nobody could remove it
    api.up()
    assert api.ask("GET", "/health").status == 200


def test_the_command_changes_a_running_api(api: RunningApi) -> None:
    api.up()
    assert api.ask("GET", "/transactions").status == 200
    command = Service("demo", api.config, api.directory, arguments=("behaviour", "--error-rate", "1"))
    assert json.loads(command.run().stdout)["error_rate"] == 1
    assert api.ask("GET", "/transactions").status == 500
    assert "transactions_behaviour_error_rate 1.0" in api.metrics()
    command.arguments = ("behaviour", "--reset")
    assert json.loads(command.run().stdout)["error_rate"] == 0
    assert api.ask("GET", "/transactions").status == 200


def test_it_starts_without_database_and_works_as_soon_as_there_is_one(tmp_path: Path) -> None:
    server = PostgresServer()
    try:
        server.start()
        with fresh_database(server) as url:
            server.stop()
            api = make(tmp_path, url)
            api.up()
            ready = f"http://127.0.0.1:{api.port}/readyz"
            assert call("GET", ready).status == 503
            assert api.ask("GET", "/transactions").status == 503
            server.start()
            wait_until(lambda: call("GET", ready).status == 200, LIMIT)
            assert api.ask("GET", "/transactions").status == 200
            server.kill()
            assert api.ask("GET", "/transactions").status == 503
            server.start()
            wait_until(lambda: api.ask("GET", "/transactions").status == 200, LIMIT)
            assert api.terminate() == 0
    finally:
        server.remove()


def test_a_port_in_use_is_one_line_that_names_the_setting(api: RunningApi) -> None:
    with socket.create_server(("127.0.0.1", api.port)):
        told = api.run()
    assert told.returncode == 2
    assert 'setting "api_port": instance 1 cannot listen' in told.stderr
    assert len(told.stderr.splitlines()) == 1


def test_a_missing_socket_directory_is_one_line_that_names_the_setting(api: RunningApi) -> None:
    api.config["socket_directory"] = str(api.directory / "missing")
    told = api.run()
    assert told.returncode == 2
    assert 'setting "socket_directory"' in told.stderr
    assert len(told.stderr.splitlines()) == 1
