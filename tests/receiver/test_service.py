"""The receiver as it runs in production: a process of its own under gunicorn."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from sqlalchemy import update

from fleetwatch.store import Store
from fleetwatch.store.models import SchemaVersion
from tests.common.services import Service, alert, call, free_port

_FILE_SIZE = 400_000  # bytes


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Service]:
    config = {
        "port": free_port(),
        "database_url": f"sqlite:///{tmp_path}/alerts.db",
        "sender": "fleetwatch@example.org",
        "recipients": ["ops@example.org"],
    }
    service = Service("receiver", config, tmp_path)
    yield service
    service.kill()


def _url(service: Service) -> str:
    return f"http://127.0.0.1:{service.config['port']}"


def _known(service: Service) -> set[str]:
    store = Store(service.config["database_url"])
    try:
        return {incident.labels["alertname"] for incident in store.incidents(limit=100_000)}
    finally:
        store.close()


def test_sigkill_under_load_loses_nothing_that_was_accepted(receiver: Service) -> None:
    receiver.start(_url(receiver) + "/healthz")
    accepted: set[str] = set()
    enough = Event()

    def post(worker: int) -> None:
        for number in range(10_000):
            name = f"A{worker}-{number}"
            try:
                if call("POST", f"{_url(receiver)}/alerts", {"alerts": [alert(name)]}).status == 200:
                    accepted.add(name)
            except OSError:
                return
            if len(accepted) > 60:
                enough.set()

    posters = [Thread(target=post, args=(worker,)) for worker in range(4)]
    for poster in posters:
        poster.start()
    assert enough.wait(20)
    receiver.kill()
    for poster in posters:
        poster.join(10)
    assert accepted - _known(receiver) == set()

    receiver.start(_url(receiver) + "/readyz")
    first = min(accepted)
    answer = call("POST", f"{_url(receiver)}/alerts", {"alerts": [alert(first)]})
    assert answer.json["duplicates"] == 1
    assert receiver.terminate() == 0
    assert all({"time", "level", "service", "event"} <= set(event) for event in receiver.events())


def test_full_disk_is_503_and_costs_nothing_accepted(receiver: Service) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_SIZE, _FILE_SIZE))

    receiver.start(_url(receiver) + "/healthz", limit)
    accepted = set()
    for number in range(200):
        names = [f"A{number}-{part}" for part in range(20)]
        answer = call("POST", f"{_url(receiver)}/alerts", {"alerts": [alert(name) for name in names]})
        if answer.status == 503:
            break
        assert answer.status == 200
        accepted.update(names)
    assert answer.status == 503
    assert accepted
    assert call("GET", f"{_url(receiver)}/healthz").status == 200
    receiver.kill()
    assert accepted - _known(receiver) == set()


def test_a_body_in_chunks_is_accepted_and_limited(receiver: Service) -> None:
    receiver.config["max_body_bytes"] = 5000
    receiver.start(_url(receiver) + "/healthz")

    def post(body: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", receiver.config["port"]), 5) as connection:
            connection.sendall(
                b"POST /alerts HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            )
            return connection.recv(1000)

    assert b" 200 " in post(b'{"alerts": [{"labels": {"alertname": "A"}}]}')
    assert b" 413 " in post(b'{"alerts": [{"labels": {"alertname": "' + b"A" * 6000 + b'"}}]}')


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"prot": 1}, 'unknown setting "prot": did you mean "port"?'),
        ({"database_url": "sqlite:////nonexistent/alerts.db"}, "unable to open database file"),
    ],
)
def test_wrong_settings_end_it_with_one_line(receiver: Service, wrong: dict[str, Any], expected: str) -> None:
    receiver.config |= wrong
    ended = receiver.run()
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("alert_receiver: ")
    assert expected in ended.stderr


def test_an_older_program_refuses_a_newer_database(receiver: Service) -> None:
    store = Store(receiver.config["database_url"])
    with store.write() as session:
        session.execute(update(SchemaVersion).values(version=99))
    store.close()
    ended = receiver.run()
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "install the newer program again" in ended.stderr
