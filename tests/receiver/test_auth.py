from __future__ import annotations

import base64
import logging
import time
from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from fleetwatch.receiver import auth
from tests.receiver.callers import SECRETS, bearer, run

INCIDENTS = "/api/v1/incidents"
ALERTS = {"alerts": [{"labels": {"alertname": "A"}}]}


def _basic(name: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}


def _add_views(app: Flask) -> None:
    """Add a form, so that its protection is tested whatever the pages look like."""

    @app.get("/form")
    @auth.require("read")
    def form() -> dict[str, object]:
        return {"token": auth.csrf_token(), "user": auth.current_user(), "may_act": auth.may("act")}

    @app.post("/form")
    @auth.require("act")
    def send() -> str:
        auth.check_form()
        return auth.current_user()


@pytest.fixture
def app(sqlite_database: str) -> Iterator[Flask]:
    with run(sqlite_database) as app:
        _add_views(app)
        yield app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def _failures(client: FlaskClient, reason: str) -> float:
    line = f'alert_receiver_auth_failures_total{{reason="{reason}"}} '
    (found,) = [text for text in client.get("/metrics").text.splitlines() if text.startswith(line)]
    return float(found.split()[-1])


@pytest.mark.parametrize(
    ("user", "send", "read", "act"),
    [("prometheus", 200, 403, 403), ("rita", 403, 200, 403), ("anna", 403, 200, 200), (None, 401, 401, 401)],
)
def test_roles(client: FlaskClient, user: str | None, send: int, read: int, act: int) -> None:
    client.post("/alerts", json=ALERTS, headers=bearer("prometheus"))
    headers = bearer(user) if user else {}
    assert client.post("/alerts", json=ALERTS, headers=headers).status_code == send
    assert client.get(INCIDENTS, headers=headers).status_code == read
    assert client.post(f"{INCIDENTS}/1/acknowledge", json={}, headers=headers).status_code == act


@pytest.mark.parametrize(
    "headers",
    [
        bearer("anna"),
        {"Authorization": bearer("anna")["Authorization"].replace("Bearer", "bearer")},
        _basic("anna", SECRETS["anna"]),
    ],
)
def test_a_user_is_known_by_token_and_password(client: FlaskClient, headers: dict[str, str]) -> None:
    found = client.get("/form", headers=headers).get_json()
    assert (found["user"], found["may_act"]) == ("anna", True)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer"},
        {"Authorization": "nonsense"},
        {"Authorization": f"Digest {SECRETS['rita']}"},
        {"Authorization": "Basic ***"},
        _basic("rita", "wrong"),
        _basic("", SECRETS["rita"]),
        _basic("nobody", SECRETS["rita"]),
        _basic("anna", SECRETS["rita"]),
        _basic("rita", ""),
    ],
)
def test_wrong_credentials(client: FlaskClient, headers: dict[str, str]) -> None:
    answer = client.get(INCIDENTS, headers=headers)
    assert answer.status_code == 401
    assert answer.get_json() == {"error": "wrong user, password or token"}
    schemes = [value.split()[0] for value in answer.headers.getlist("WWW-Authenticate")]
    assert schemes == ["Basic", "Bearer"]
    assert _failures(client, "bad_credentials") == 1


def test_every_user_is_compared(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(len(one) == len(other))
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare)
    for headers in (bearer("prometheus"), bearer("anna"), _basic("nobody", "x" * 1000)):
        compared.clear()
        client.get(INCIDENTS, headers=headers)
        assert compared == [True] * 2 * len(SECRETS)


@pytest.mark.parametrize(("roles", "read", "act"), [(["read"], 200, 401), (["act"], 200, 404)])
def test_anonymous_roles(sqlite_database: str, roles: list[str], read: int, act: int) -> None:
    with run(sqlite_database, anonymous_roles=roles) as app:
        client = app.test_client()
        assert client.get(INCIDENTS).status_code == read
        assert client.post(f"{INCIDENTS}/1/acknowledge", json={}).status_code == act
        # Who gives wrong credentials is told so, whatever is open to all.
        assert client.get(INCIDENTS, headers={"Authorization": "Bearer wrong"}).status_code == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_health_is_open_to_all(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 200


def test_the_log_tells_of_failures_without_the_secret_and_not_of_all(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(20):
        client.get(INCIDENTS, headers=_basic("rita", "almost-right"))
    events = [record for record in caplog.records if record.message == "caller refused"]
    assert 1 <= len(events) <= 3
    assert events[0].reason == "bad_credentials"  # type: ignore[attr-defined] # from extra
    assert "almost-right" not in repr([record.__dict__ for record in caplog.records])
    assert _failures(client, "bad_credentials") == 20


def _token(client: FlaskClient, user: str) -> str:
    return str(client.get("/form", headers=bearer(user)).get_json()["token"])


def test_a_form_is_good_for_whom_it_was_shown(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def send(token: str | None) -> int:
        data = {} if token is None else {auth.CSRF_FIELD: token}
        return client.post("/form", data=data, headers=bearer("anna")).status_code

    now = time.time() // 3600 * 3600 + 1800  # the hour must not change in between
    monkeypatch.setattr("time.time", lambda: now)
    token = _token(client, "anna")
    assert send(token) == 200
    hour, _, mac = token.partition(".")
    forged = (None, "", "0.", token[:-1], f"{int(hour) - 1}.{mac}", f"{int(hour) + 1}.{mac}", "ü", "9" * 5000)
    for wrong in (*forged, _token(client, "rita")):
        assert send(wrong) == 403
    assert _failures(client, "csrf") == 9
    monkeypatch.setattr("time.time", lambda: now + (auth.CSRF_HOURS - 1) * 3600)
    assert send(token) == 200
    monkeypatch.setattr("time.time", lambda: now + auth.CSRF_HOURS * 3600)
    assert send(token) == 403
    monkeypatch.setattr("time.time", lambda: now - 3600)
    assert send(token) == 403


def test_an_anonymous_form_is_no_other_receivers(sqlite_database: str) -> None:
    tokens = []
    for _ in range(2):
        with run(sqlite_database, anonymous_roles=["act"]) as app:
            _add_views(app)
            tokens.append(app.test_client().get("/form").get_json()["token"])
    assert tokens[0] != tokens[1]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost"}, 200),
        ({"Origin": "https://alerts.example.org"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:81"}, 403),
        ({"Origin": "http://localhost.evil.org"}, 403),
        ({"Origin": "https://evil.org"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, 403),
    ],
)
def test_other_sites_cannot_act(sqlite_database: str, headers: dict[str, str], status: int) -> None:
    with run(sqlite_database, external_url="https://alerts.example.org/") as app:
        _add_views(app)
        client = app.test_client()
        client.post("/alerts", json=ALERTS, headers=bearer("prometheus"))
        data = {auth.CSRF_FIELD: _token(client, "anna")}
        assert client.post("/form", data=data, headers=bearer("anna") | headers).status_code == status
        url = f"{INCIDENTS}/1/acknowledge"
        assert client.post(url, json={}, headers=bearer("anna") | headers).status_code == status


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", None])
def test_what_a_form_can_send_is_not_taken_for_json(client: FlaskClient, media_type: str | None) -> None:
    url = f"{INCIDENTS}/1/acknowledge"
    answer = client.post(url, data="{}", content_type=media_type, headers=bearer("anna"))
    assert answer.status_code == 415


@pytest.mark.parametrize("path", ["/healthz", "/metrics", INCIDENTS, "/none", "/form"])
def test_every_answer_has_the_security_headers(client: FlaskClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"
    assert "Permissions-Policy" in headers
