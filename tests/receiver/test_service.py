"""The receiver as it runs in production: a process of its own under gunicorn."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from sqlalchemy import select, text

from fleetwatch.store import Incident, Store
from tests.common.services import MAIL, Service, alert, call, free_port

pytestmark = pytest.mark.slow

_FILE_SIZE = 400_000  # bytes


@pytest.fixture
def receiver(tmp_path: Path, sqlite_database: str) -> Iterator[Service]:
    config = {
        "port": free_port(),
        "database_url": sqlite_database,
        "channels": [MAIL],
        "anonymous_roles": ["send", "read"],
    }
    service = Service("receiver", config, tmp_path)
    yield service
    service.kill()


def _url(service: Service) -> str:
    return f"http://127.0.0.1:{service.config['port']}"


def _known(service: Service) -> set[str]:
    store = Store(service.config["database_url"])
    try:
        with store.read() as session:
            return {labels["alertname"] for labels in session.scalars(select(Incident.labels))}
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
        ({"database_url": "sqlite:////nonexistent/alerts.db"}, "/nonexistent/alerts.db does not exist"),
        ({"anonymous_roles": []}, 'setting "users" is missing'),
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
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    ended = receiver.run()
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "install the newer program again" in ended.stderr


def test_concurrent_posts_share_commits(receiver: Service) -> None:
    receiver.start(_url(receiver) + "/healthz")

    def post(worker: int) -> None:
        for number in range(40):
            answer = call("POST", f"{_url(receiver)}/alerts", {"alerts": [alert(f"A{worker}-{number}")]})
            assert answer.status == 200

    posters = [Thread(target=post, args=(worker,)) for worker in range(8)]
    for poster in posters:
        poster.start()
    for poster in posters:
        poster.join(30)
    assert len(_known(receiver)) == 320
    metrics = call("GET", f"{_url(receiver)}/metrics").text
    transactions = float(metrics.partition("alert_receiver_commit_group_requests_count ")[2].split()[0])
    assert transactions < 300


def test_stopping_answers_what_is_under_way(receiver: Service) -> None:
    receiver.start(_url(receiver) + "/healthz")
    accepted: list[str] = []
    refused: list[object] = []

    def post(worker: int) -> None:
        for number in range(100_000):
            name = f"A{worker}-{number}"
            try:
                answer = call("POST", f"{_url(receiver)}/alerts", {"alerts": [alert(name)]})
            except OSError:
                return
            (accepted if answer.status == 200 else refused).append(name)

    posters = [Thread(target=post, args=(worker,)) for worker in range(4)]
    for poster in posters:
        poster.start()
    while len(accepted) < 40:
        pass
    assert receiver.terminate() == 0
    for poster in posters:
        poster.join(10)
    assert refused == []
    assert set(accepted) <= _known(receiver)


def test_every_event_of_a_request_has_its_id(receiver: Service) -> None:
    receiver.start(_url(receiver) + "/healthz")
    body = {"alerts": [alert(), {"labels": 5}]}
    call("POST", f"{_url(receiver)}/alerts", body, {"X-Request-ID": "from-a-proxy.1"})
    call("POST", f"{_url(receiver)}/alerts", body, {"X-Request-ID": 'forged" id'})
    receiver.terminate()
    ids = [event["request_id"] for event in receiver.events() if "request_id" in event]
    assert ids[:2] == ["from-a-proxy.1"] * 2
    assert len(set(ids)) == 2
    assert "forged" not in ids[2]
