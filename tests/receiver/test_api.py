from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from fleetwatch.receiver import cli
from fleetwatch.store import Store
from tests.common.services import alert
from tests.receiver.callers import bearer, run

API = "/api/v1"


@pytest.fixture
def client(database: str) -> Iterator[FlaskClient]:
    with run(database) as app:
        yield app.test_client()


@pytest.fixture
def sqlite_client(sqlite_database: str) -> Iterator[FlaskClient]:
    """Return a client for what never comes to the database."""
    with run(sqlite_database) as app:
        yield app.test_client()


def _fire(client: FlaskClient, *alerts: dict[str, Any]) -> None:
    for one in alerts or (alert(),):
        answer = client.post("/alerts", json={"alerts": [one]}, headers=bearer("prometheus"))
        assert answer.status_code == 200


def _get(client: FlaskClient, path: str, status: int = 200) -> Any:
    answer = client.get(API + path, headers=bearer("rita"))
    assert (answer.status_code, answer.mimetype) == (status, "application/json")
    return answer.get_json()


def _post(client: FlaskClient, path: str, body: object, status: int = 200) -> Any:
    answer = client.post(API + path, json=body, headers=bearer("anna"))
    assert (answer.status_code, answer.mimetype) == (status, "application/json")
    return answer.get_json()


def _park(store: Store, reason: str = "no such address") -> None:
    for rows in store.claim("d1", "mail", 10, lease=60.0):
        store.mark_parked(rows, reason)


def _names(answer: dict[str, Any]) -> list[str]:
    return [incident["labels"]["alertname"] for incident in answer["incidents"]]


def test_an_incident_tells_all(client: FlaskClient) -> None:
    _fire(client)
    (listed,) = _get(client, "/incidents")["incidents"]
    assert list(listed) == [
        *("id", "fingerprint", "status", "severity", "summary", "labels", "annotations", "receiver"),
        *("generator_url", "external_url", "fired_at", "received_at", "resolved_at", "resolved_received_at"),
        *("resolved_by", "acknowledged_at", "acknowledged_by", "silenced", "reopened", "notifications"),
    ]
    assert listed["fired_at"] == "2026-01-02T03:04:05.678Z"
    (notification,) = listed["notifications"]
    assert list(notification) == [
        *("id", "transition", "channel", "state", "attempts", "queued_at", "next_attempt_at", "sent_at"),
        *("last_error", "provider_id"),
    ]
    assert notification["next_attempt_at"] == notification["queued_at"] == listed["received_at"]
    shown = _get(client, f"/incidents/{listed['id']}")
    kinds = [entry["kind"] for entry in shown.pop("timeline")]
    assert kinds == ["fired", "received", "waiting"]
    assert shown == listed


def test_filters_and_pages(client: FlaskClient) -> None:
    _fire(client, alert("A"), alert("B", labels={"query": "a=b"}), alert("C", labels={"severity": "info"}))
    for query, expected in {
        "": ["C", "B", "A"],
        "?severity=info": ["C"],
        "?label=query=a=b": ["B"],
        "?label=query=a%3Db&label=host=node1": ["B"],
        "?label=host=node1&label=host=node2": [],
        "?label=host=node1&label=host=node1&severity=critical": ["B", "A"],
        "?q=a%3DB": ["B"],
        "?acknowledged=true": [],
        "?acknowledged=false&limit=2": ["C", "B"],
        "?status=resolved": [],
        "?status=firing&q=": ["C", "B", "A"],
    }.items():
        assert _names(_get(client, f"/incidents{query}")) == expected, query
    first = _get(client, "/incidents?limit=2")
    rest = _get(client, f"/incidents?limit=2&cursor={first['next']}")
    assert (_names(rest), rest["next"]) == (["A"], None)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/incidents?limit=0", "limit: Input should be greater than or equal to 1"),
        ("/incidents?limit=1001", "limit: Input should be less"),
        ("/incidents?limit=1e2", "limit: must be a number from 1 to 1000"),
        ("/incidents?limit=1&limit=2", "limit is given 2 times"),
        ("/incidents?status=open", "status: Input should be 'firing' or 'resolved'"),
        ("/incidents?acknowledged=yes", "acknowledged: Input should be 'true' or 'false'"),
        ("/incidents?label=host", "label.0: String should match"),
        ("/incidents?label==x", "label.0: String should match"),
        ("/incidents?q=%00", "q: String should match"),
        ("/incidents?cursor=x", "cursor: String should match"),
        ("/incidents?state=firing", '"state" is not known here'),
        ("/incidents/1?verbose=1", '"verbose" is not known here'),
        ("/dead-letters?channel=No", "channel: String should match"),
    ],
)
def test_wrong_questions(sqlite_client: FlaskClient, path: str, reason: str) -> None:
    assert reason in _get(sqlite_client, path, 400)["error"]


def test_acknowledge_note_and_resolve(client: FlaskClient) -> None:
    _fire(client)
    found = _post(client, "/incidents/1/acknowledge", {"note": "on it"})
    assert found["acknowledged_by"] == "anna"
    assert _post(client, "/incidents/1/acknowledge", {}) == found
    found = _post(client, "/incidents/1/notes", {"text": "<b>ünïcode</b>\n"})
    assert found["timeline"][-2] | {"at": ""} == {
        "at": "",
        "kind": "note",
        "author": "anna",
        "channel": None,
        "transition": None,
        "text": "<b>ünïcode</b>\n",
    }
    found = _post(client, "/incidents/1/resolve", {})
    assert (found["status"], found["resolved_by"]) == ("resolved", "anna")
    assert _post(client, "/incidents/1/resolve", {}) == found
    assert _post(client, "/incidents/1/acknowledge", {}, 409) == {"error": "the incident is resolved"}


@pytest.mark.parametrize("action", ["acknowledge", "notes", "resolve"])
def test_unknown_incidents(client: FlaskClient, action: str) -> None:
    body = {"text": "x"} if action == "notes" else {}
    for number in (0, 1, 2**31, 10**30):
        assert _post(client, f"/incidents/{number}/{action}", body, 404) == {
            "error": f"there is no incident {number}"
        }
    assert "error" in _get(client, "/incidents/one", 404)


@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        ("/incidents/1/notes", b"{", 400, "Invalid JSON"),
        ("/incidents/1/notes", b"", 400, "Invalid JSON"),
        ("/incidents/1/notes", b"[]", 400, "Input should be an object"),
        ("/incidents/1/notes", b"{}", 400, "text: Field required"),
        ("/incidents/1/notes", b'{"text": ""}', 400, "text: String should have at least 1 character"),
        ("/incidents/1/notes", b'{"text": 5}', 400, "text: Input should be a valid string"),
        ("/incidents/1/notes", rb'{"text": "\ud800"}', 400, "Invalid JSON"),
        ("/incidents/1/notes", rb'{"text": "\u0000"}', 400, "text: String should match"),
        (
            "/incidents/1/notes",
            b'{"text": "' + b"x" * 10_001 + b'"}',
            400,
            "text: String should have at most",
        ),
        ("/incidents/1/notes", b'{"text": "' + b"x" * 300_000 + b'"}', 413, ""),
        ("/incidents/1/acknowledge", b'{"notes": "x"}', 400, '"notes" is not known here'),
        ("/dead-letters/requeue", b"{}", 400, 'send {"ids": [17, 18]}, {"channel": "mail"} or {"all": true}'),
        ("/dead-letters/requeue", b'{"ids": [1], "all": true}', 400, 'send {"ids"'),
        ("/dead-letters/requeue", b'{"all": 1}', 400, 'send {"ids"'),
        ("/dead-letters/requeue", b'{"ids": ["1"]}', 400, 'send {"ids"'),
    ],
)
def test_wrong_bodies(sqlite_client: FlaskClient, path: str, body: bytes, status: int, reason: str) -> None:
    _fire(sqlite_client)
    answer = sqlite_client.post(
        API + path, data=body, content_type="application/json", headers=bearer("anna")
    )
    assert answer.status_code == status
    assert reason in answer.get_json()["error"]


@pytest.mark.parametrize("path", ["/incidents", "/incidents/1", "/dead-letters", "/openapi.json"])
def test_only_the_methods_there_are(sqlite_client: FlaskClient, path: str) -> None:
    answer = sqlite_client.delete(API + path, headers=bearer("anna"))
    assert (answer.status_code, "GET" in answer.headers["Allow"]) == (405, True)
    assert "error" in answer.get_json()


def test_dead_letters(client: FlaskClient) -> None:
    store: Store = client.application.extensions["receiver"].store
    _fire(client, alert("A"), alert("B"), alert("C"))
    _park(store)
    first = _get(client, "/dead-letters?limit=2")
    (last,) = _get(client, f"/dead-letters?cursor={first['next']}")["dead_letters"]
    assert (last["last_error"], last["state"], last["next_attempt_at"]) == ("no such address", "parked", None)
    assert last["incident"]["summary"] == "A on node1"
    assert _get(client, "/dead-letters?channel=chat")["dead_letters"] == []
    assert _post(client, "/dead-letters/requeue", {"ids": [last["id"]]}) == {"requeued": 1}
    assert _post(client, "/dead-letters/requeue", {"channel": "chat"}) == {"requeued": 0}
    assert _post(client, "/dead-letters/requeue", {"channel": "mail"}) == {"requeued": 2}
    _park(store)
    assert _post(client, "/dead-letters/requeue", {"all": True}) == {"requeued": 3}
    assert _get(client, "/dead-letters") == {"dead_letters": [], "next": None}
    entry = next(entry for entry in _get(client, "/incidents/1")["timeline"] if entry["kind"] == "requeued")
    assert (entry["author"], entry["text"]) == ("anna", "firing by mail")


def test_dead_letters_on_the_command_line(
    client: FlaskClient,
    database: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALERT_RECEIVER_DATABASE_URL", database)
    monkeypatch.setenv(
        "ALERT_RECEIVER_CHANNELS", '[{"name": "mail", "type": "webhook", "url": "https://example.org"}]'
    )
    monkeypatch.setenv("SUDO_USER", "bert")

    def call(*arguments: str) -> str:
        assert cli.main(arguments) == 0
        return capsys.readouterr().out

    _fire(client, alert("A", annotations={"summary": "\x1b[31mred\nalert"}), alert("B"))
    _park(client.application.extensions["receiver"].store)
    lines = call("dead-letters").splitlines()
    assert [line.split()[0] for line in lines] == ["2", "1"]
    assert lines[1].endswith("mail  firing  1  incident 1 [critical] [31mred alert: no such address")
    assert call("dead-letters", "--channel", "chat") == ""
    assert '"id":2,' in call("dead-letters", "--json").splitlines()[0]
    assert call("requeue", "--id", "2") == "messages queued again: 1\n"
    assert call("requeue", "--all") == "messages queued again: 1\n"
    assert call("dead-letters") == ""
    assert "bert" in {entry["author"] for entry in _get(client, "/incidents/2")["timeline"]}
    with pytest.raises(SystemExit):
        cli.main(["requeue"])  # what, must be said
