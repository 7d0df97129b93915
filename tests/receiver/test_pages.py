from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.exc import OperationalError
from werkzeug.test import TestResponse

from fleetwatch.receiver import pages
from fleetwatch.receiver.app import create_app
from fleetwatch.receiver.settings import ReceiverSettings
from fleetwatch.store import AlertEvent, Notification, Status, Store

ACT, READ, SEND = ("ada", "secret-of-ada"), ("grace", "secret-of-grace"), ("am", "secret-of-am")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
XSS = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


def settings(database: str, **values: Any) -> ReceiverSettings:
    """Return settings with one user for each role and a channel that leads nowhere."""
    return ReceiverSettings.model_validate(
        {
            "database_url": database,
            "users": [
                {"name": name, "roles": [role]}
                for (name, _), role in zip((ACT, READ, SEND), ("act", "read", "send"), strict=True)
            ],
            "user_secrets": dict((ACT, READ, SEND)),
            "channels": [{"name": "chat", "type": "webhook", "url": "https://chat.example.org/"}],
            **values,
        }
    )


def event(number: int = 1, **values: Any) -> AlertEvent:
    """Return an alert; its number makes it an incident of its own and older than those of lower numbers."""
    labels = {"alertname": "HostDown", "severity": "critical", "host": f"db{number}"}
    annotations = {"summary": f"Host db{number} does not answer"}
    known: dict[str, Any] = {
        "status": Status.FIRING,
        "fingerprint": f"{number:016x}",
        "labels": labels | values.pop("labels", {}),
        "annotations": annotations | values.pop("annotations", {}),
        "starts_at": NOW - timedelta(minutes=number),
        "generator_url": "http://prometheus:9090/graph?g0.expr=up",
        "external_url": "http://alertmanager:9093",
        "receiver": "fleetwatch",
    }
    return AlertEvent(**known | values)


@pytest.fixture
def app(sqlite_database: str) -> Iterator[Flask]:
    app = create_app(settings(sqlite_database))
    yield app
    app.extensions["receiver"].close()


@pytest.fixture
def store(app: Flask) -> Store:
    return app.extensions["receiver"].store  # type: ignore[no-any-return]


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def accept(app: Flask, *events: AlertEvent) -> None:
    found = app.extensions["receiver"]
    found.store.accept([events], found.router)


def park(store: Store, reason: str = "HTTP 403: signature unknown") -> None:
    """Give up all messages."""
    with store.work() as session:
        for row in session.query(Notification):
            row.state, row.last_error, row.attempts = "parked", reason, 3


def get(client: FlaskClient, url: str, user: tuple[str, str] = ACT, etag: str = "") -> TestResponse:
    return client.get(url, auth=user, headers={"If-None-Match": etag} if etag else {})


def post(client: FlaskClient, url: str, user: tuple[str, str] = ACT, **form: str) -> TestResponse:
    """Send a form as a browser does that was shown the page."""
    token = re.search(r'name="csrf_token" value="([^"]+)"', get(client, "/incidents/1", user).text)
    return client.post(url, auth=user, data={"csrf_token": token[1] if token else "", **form})


def follow(client: FlaskClient, answer: TestResponse) -> str:
    assert answer.status_code == 303
    return get(client, answer.headers["Location"]).text


class Outline(HTMLParser):
    """The tags of a page, and what is in its rows."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    @property
    def rows(self) -> list[str]:
        return [attrs["href"] or "" for tag, attrs in self.tags if tag == "a" and "data-row" in attrs]

    @property
    def forms(self) -> list[str]:
        return [
            attrs["action"] or ""
            for tag, attrs in self.tags
            if tag == "form" and attrs.get("method") == "post"
        ]


# The list


def test_nothing_is_firing(client: FlaskClient) -> None:
    page = get(client, "/").text
    assert "<h2>Nothing is firing</h2>" in page
    assert "<title>Incidents · Fleetwatch</title>" in page
    assert "icon.svg" in page
    assert "icon-firing.svg" not in page


def test_open_incidents_by_severity_then_age(app: Flask, client: FlaskClient) -> None:
    accept(
        app,
        event(1, labels={"severity": "info"}),
        event(2, labels={"severity": "warning"}),
        event(3),
        event(4, labels={"severity": "odd"}),
        event(5),
        event(6, status=Status.RESOLVED, ends_at=NOW),
    )
    page = get(client, "/").text
    assert Outline(page).rows == [f"/incidents/{number}" for number in (5, 3, 2, 1, 4)]
    assert "<title>(5) Incidents · Fleetwatch</title>" in page
    assert "icon-firing.svg" in page
    counts = re.findall(r'<span class="badge (\w+)">(\w+)</span>(\d+)</a>', page)
    assert counts == [
        ("critical", "critical", "2"),
        ("warning", "warning", "1"),
        ("info", "info", "1"),
        ("other", "odd", "1"),
    ]
    assert get(client, "/incidents").text == page


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", [2, 1]),
        ("status=nonsense", [2, 1]),
        ("status=new", [1]),
        ("status=resolved", [3]),
        ("status=all", [3, 2, 1]),
        ("severity=warning", []),
        ("text=DB1", [1]),
        ("label=host%3Ddb2", [2]),
        ("label=host%3Ddb2+alertname%3DHostDown", [2]),
        ("label=note%3D%22two+words%22", [1]),
        ("label=host%3Ddb", []),
        ("status=all&text=answer&label=host%3Ddb3", [3]),
    ],
)
def test_filters(app: Flask, store: Store, client: FlaskClient, query: str, found: list[int]) -> None:
    resolved = event(3, status=Status.RESOLVED, ends_at=NOW)
    accept(app, event(1, labels={"note": "two words"}), event(2), resolved)
    store.acknowledge(2, "grace")
    page = get(client, f"/?{query}").text
    assert Outline(page).rows == [f"/incidents/{number}" for number in found]
    assert ("No incident matches" in page) == (not found)


@pytest.mark.parametrize("query", ["label=host", "label=%22open", "page=0", "page=x1", "status=all&cursor=?"])
def test_a_wrong_filter_is_explained(app: Flask, client: FlaskClient, query: str) -> None:
    accept(app, event())
    answer = get(client, f"/?{query}")
    if query == "page=x1":  # as if it were not there
        assert (answer.status_code, Outline(answer.text).rows) == (200, ["/incidents/1"])
    else:
        assert (answer.status_code, Outline(answer.text).rows) == (400, [])
        assert 'role="alert"' in answer.text


@pytest.mark.parametrize("status", ["firing", "all"])
def test_paging(app: Flask, client: FlaskClient, status: str) -> None:
    accept(app, *(event(number) for number in range(1, 251)))
    url: str | None = f"/?status={status}&severity=critical"
    seen: list[str] = []
    while url and len(seen) < 250:
        page = Outline(get(client, url).text)
        assert len(page.rows) <= pages.PAGE_SIZE
        seen += page.rows
        url = next((attrs["href"] for _, attrs in page.tags if attrs.get("id") == "next"), None)
    assert url is None
    assert sorted(seen) == sorted(f"/incidents/{number}" for number in range(1, 251))


def test_row_tells_who_takes_care_and_what_failed(app: Flask, store: Store, client: FlaskClient) -> None:
    accept(app, event())
    store.acknowledge(1, "grace")
    park(store)
    page = get(client, "/").text
    assert "acknowledged by </span>grace" in page
    assert "1 not delivered" in page
    assert "1 message was given up" in page
    assert f'<time datetime="{(NOW - timedelta(minutes=1)).isoformat(timespec="milliseconds")}"' in page
    assert 'title="2026-01-02 03:03:05 UTC"' in page


def test_late_outbox_is_told(
    app: Flask, store: Store, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(app, event())
    assert "Messages are late" not in get(client, "/").text
    monkeypatch.setattr(pages, "LATE", 0)
    assert "Messages are late: 1 waits" in get(client, "/").text


# One incident


def test_incident_shows_all(app: Flask, store: Store, client: FlaskClient) -> None:
    runbook = "https://runbooks.example.org/HostDown"
    accept(app, event(annotations={"runbook_url": runbook, "description": "one\ntwo"}, labels={"rack": "b7"}))
    store.acknowledge(1, "grace", "on it")
    store.add_note(1, "ada", "kernel panic")
    page = get(client, "/incidents/1").text
    for text in ("Host db1 does not answer", "one\ntwo", "rack", "b7", "kernel panic", "Note by ada"):
        assert text in page
    for text in ("Began to fire", "by fleetwatch", "Acknowledged by grace", "on it", "To be sent by chat"):
        assert text in page
    links = [attrs for tag, attrs in Outline(page).tags if tag == "a" and "rel" in attrs]
    assert {attrs["rel"] for attrs in links} == {"noreferrer noopener"}
    assert [(attrs["href"] or "").partition("?")[0] for attrs in links] == [
        runbook,  # among the annotations
        runbook,
        "http://prometheus:9090/graph",
        "http://alertmanager:9093",
        "http://alertmanager:9093/#/silences/new",
    ]


def test_only_http_becomes_a_link(app: Flask, client: FlaskClient) -> None:
    bad = "javascript:alert(1)"
    accept(app, event(annotations={"runbook_url": bad}, generator_url=bad, external_url="data:text/html,x"))
    page = get(client, "/incidents/1").text
    assert not [attrs for tag, attrs in Outline(page).tags if tag == "a" and "rel" in attrs]


@pytest.mark.parametrize("path", ["/incidents/7", "/incidents/99999999999999999999"])
def test_unknown_incident(client: FlaskClient, path: str) -> None:
    answer = get(client, path)
    assert (answer.status_code, answer.mimetype) == (404, "text/html")
    assert "there is no incident" in answer.text


# Acting


def test_acknowledge(app: Flask, store: Store, client: FlaskClient) -> None:
    accept(app, event())
    page = follow(client, post(client, "/incidents/1/acknowledge"))
    assert store.incident(1).acknowledged_by == "ada"
    assert pages._DONE["acknowledged"] in page
    assert "/incidents/1/acknowledge" not in Outline(page).forms
    assert pages._DONE["already"] in follow(client, post(client, "/incidents/1/acknowledge"))


def test_note(app: Flask, store: Store, client: FlaskClient) -> None:
    accept(app, event())
    page = follow(client, post(client, "/incidents/1/notes", text="  one\r\ntwo \x00\u202e"))
    assert [entry.text for entry in store.incident(1).events] == ["one\ntwo \ufffd\ufffd"]
    assert "Note by ada" in page


@pytest.mark.parametrize("text", ["", " \n", "x" * (pages.MAX_NOTE + 1)])
def test_bad_note_is_refused_and_kept_in_the_form(
    app: Flask, store: Store, client: FlaskClient, text: str
) -> None:
    accept(app, event())
    answer = post(client, "/incidents/1/notes", text=text)
    assert answer.status_code == 400
    assert f"required>{text.strip()}</textarea>" in answer.text
    assert not store.incident(1).events


def test_resolve_by_hand(app: Flask, store: Store, client: FlaskClient) -> None:
    accept(app, event())
    page = follow(client, post(client, "/incidents/1/resolve"))
    found = store.incident(1)
    assert (found.status, found.resolved_by) == (Status.RESOLVED, "ada")
    assert "Resolved by ada" in page
    assert Outline(page).forms == ["/incidents/1/notes"]
    answer = post(client, "/incidents/1/acknowledge")
    assert answer.status_code == 409
    assert "the incident is resolved" in answer.text


def test_dead_letters(app: Flask, store: Store, client: FlaskClient) -> None:
    assert "No dead letters" in get(client, "/dead-letters").text
    accept(app, event(1), event(2), event(3))
    park(store)
    page = get(client, "/dead-letters")
    assert "3 dead letters" in page.text
    assert "HTTP 403: signature unknown" in page.text
    assert Outline(page.text).rows == ["/incidents/3", "/incidents/2", "/incidents/1"]
    assert pages._DONE["requeued"] in follow(client, post(client, "/dead-letters/2/requeue"))
    assert [row.incident_id for row in store.dead_letters().rows] == [3, 1]
    follow(client, post(client, "/dead-letters/requeue"))
    assert not store.dead_letters().rows
    assert pages._DONE["already"] in follow(client, post(client, "/dead-letters/2/requeue"))


# Who may

ACTIONS = [
    "/incidents/1/acknowledge",
    "/incidents/1/notes",
    "/incidents/1/resolve",
    "/dead-letters/requeue",
    "/dead-letters/1/requeue",
]


@pytest.mark.parametrize("path", ["/", "/incidents/1", "/dead-letters"])
def test_who_may_look(app: Flask, store: Store, client: FlaskClient, path: str) -> None:
    accept(app, event())
    park(store)
    assert Outline(get(client, path, READ).text).forms == []
    assert bool(Outline(get(client, path, ACT).text).forms) == (path != "/")
    stranger = client.get(path)
    assert (stranger.status_code, stranger.mimetype) == (401, "text/html")
    assert "basic" in stranger.headers["WWW-Authenticate"].lower()
    assert get(client, path, SEND).status_code == 403
    for answer in (stranger, get(client, path, SEND)):
        assert "db1" not in answer.text


@pytest.mark.parametrize("path", ACTIONS)
def test_who_may_act(app: Flask, store: Store, client: FlaskClient, path: str) -> None:
    accept(app, event())
    park(store)
    token = re.search(r'name="csrf_token" value="([^"]+)"', get(client, "/incidents/1").text)
    assert token
    form = {"csrf_token": token[1], "text": "a note"}
    cross_site = {"Origin": "https://evil.example"}
    assert client.post(path, data=form).status_code == 401
    assert client.post(path, auth=READ, data=form).status_code == 403
    assert client.post(path, auth=ACT, data=form | {"csrf_token": ""}).status_code == 403
    assert client.post(path, auth=ACT, data=form | {"csrf_token": token[1] + "0"}).status_code == 403
    assert client.post(path, auth=ACT, data=form, headers=cross_site).status_code == 403
    assert client.post(path, auth=ACT, data=form, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.get(path, auth=ACT).status_code == 405
    found = store.incident(1)
    untouched = (found.status, found.acknowledged_by, len(found.events), found.notifications[0].state)
    assert untouched == (Status.FIRING, None, 0, "parked")
    assert client.post(path, auth=ACT, data=form).status_code == 303


# What comes from outside


@pytest.mark.parametrize("path", ["/", "/?status=all", "/incidents/1", "/dead-letters"])
def test_what_an_alert_says_is_text(app: Flask, store: Store, client: FlaskClient, path: str) -> None:
    hidden = "a\u202eb\u2066c\x1b[31md"
    labels = {"severity": XSS, "host": XSS, "alertname": hidden, XSS: "x" * 5000, "time": "<time x>"}
    accept(app, event(labels=labels, annotations={"summary": XSS + hidden, XSS: XSS}, receiver=XSS))
    park(store, XSS)
    store.acknowledge(1, XSS)
    with store.write() as session:
        session.merge(store.incident(1)).silenced = XSS
    page = get(client, path).text
    assert "&lt;script&gt;" in page
    outline = Outline(page)
    assert [attrs["src"] for tag, attrs in outline.tags if tag == "script"] == ["/static/app.js"]
    assert [attrs["src"] for tag, attrs in outline.tags if tag == "img"] == ["/static/icon.svg"]
    assert not [
        name for _, attrs in outline.tags for name in attrs if name.startswith("on") or name == "style"
    ]
    assert not set("\u202e\u2066\x1b") & set(page)


def test_what_a_visitor_says_is_text(client: FlaskClient) -> None:
    page = client.get("/", query_string={"text": XSS, "label": f"a='{XSS}", "severity": XSS}, auth=ACT).text
    assert [attrs["src"] for tag, attrs in Outline(page).tags if tag == "script"] == ["/static/app.js"]
    assert get(client, "/?text=%00%ff&severity=%00").status_code == 200


def test_policy_forbids_what_is_inline(client: FlaskClient) -> None:
    answer = get(client, "/")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "<style" not in answer.text
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("name", ["style.css", "app.js", "icon.svg", "icon-firing.svg"])
def test_static_files(client: FlaskClient, name: str) -> None:
    assert client.get(f"/static/{name}").status_code == 200


# Live update


@pytest.mark.parametrize("path", ["/", "/incidents/1", "/dead-letters"])
def test_a_look_without_news_is_304(
    app: Flask, store: Store, client: FlaskClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(hours=5)

    accept(app, event())
    first = get(client, path)
    monkeypatch.setattr(pages, "datetime", Later)  # all that follows from it is how long ago things were
    if path == "/":
        assert get(client, path).text != first.text
    again = get(client, path, etag=first.headers["ETag"])
    assert (again.status_code, again.data) == (304, b"")
    park(store)
    news = get(client, path, etag=first.headers["ETag"])
    assert news.status_code == 200
    assert news.headers["ETag"] != first.headers["ETag"]


def test_store_that_does_not_answer(
    app: Flask, store: Store, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OperationalError("SELECT secret", {}, Exception("disk I/O error"))

    monkeypatch.setattr(store, "open_by_severity", fail)
    answer = get(client, "/")
    assert (answer.status_code, answer.mimetype) == (503, "text/html")
    assert "secret" not in answer.text
