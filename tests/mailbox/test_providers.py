"""Slack, Twilio and the generic webhook in the mailbox."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.common.services import Answer, MailboxServer, call, run_mailbox

ACCOUNT = "AC" + "0" * 32
AUTH = "twilio-token"
SLACK = {"blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": "*Disk full*"}}]}


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[MailboxServer]:
    with run_mailbox(tmp_path, twilio_auth_token=AUTH) as server:
        yield server


def _sms(mailbox: MailboxServer, token: str = AUTH, user: str = ACCOUNT, **form: str) -> Answer:
    credentials = base64.b64encode(f"{user}:{token}".encode()).decode()
    values = {"To": "+4930123456", "From": "+15005550006", "Body": "Disk full"} | form
    return call(
        "POST",
        f"{mailbox.url}/2010-04-01/Accounts/{ACCOUNT}/Messages.json",
        urlencode({name: value for name, value in values.items() if value}).encode(),
        {"Authorization": f"Basic {credentials}", "Content-Type": "application/x-www-form-urlencoded"},
    )


def test_slack(mailbox: MailboxServer) -> None:
    answer = call("POST", f"{mailbox.url}/services/T1/B1/secret", SLACK | {"text": "Fallback"})
    assert (answer.status, answer.text) == (200, "ok")
    (message,) = mailbox.messages()
    assert (message["via"], message["subject"], message["recipients"]) == ("slack", "Fallback", ["T1/B1"])
    assert message["text"] == "Fallback\n*Disk full*\n"
    assert message["headers"]["Content-Type"] == "application/json"
    assert '"blocks"' in message["raw"]


@pytest.mark.parametrize(
    ("path", "payload", "status", "word"),
    [
        ("T1/B1", SLACK, 404, "no_service"),
        ("T1/B1/s", b"{", 400, "invalid_payload"),
        ("T1/B1/s", [], 400, "invalid_payload"),
        ("T1/B1/s", {}, 400, "no_text"),
        ("T1/B1/s", {"blocks": [{"type": "poem"}]}, 400, "invalid_blocks"),
        ("T1/B1/s", {"blocks": [{"type": "divider"}] * 51}, 400, "invalid_blocks"),
        ("T1/B1/s", {"blocks": [{"type": "section", "text": {"text": "x" * 3001}}]}, 400, "invalid_blocks"),
        ("T1/B1/s", {"blocks": [{"type": "header", "text": {"text": "x"}}]}, 400, "invalid_blocks"),
        ("T1/B1/s", {"attachments": [{"blocks": ["x"]}]}, 400, "invalid_blocks"),
    ],
)
def test_slack_refuses_what_is_malformed(
    mailbox: MailboxServer, path: str, payload: object, status: int, word: str
) -> None:
    answer = call("POST", f"{mailbox.url}/services/{path}", payload)
    assert (answer.status, answer.text) == (status, word)
    assert mailbox.messages() == []


def test_twilio(mailbox: MailboxServer) -> None:
    answer = _sms(mailbox)
    assert answer.status == 201
    assert answer.json["sid"].startswith("SM")
    assert (answer.json["status"], answer.json["to"]) == ("queued", "+4930123456")
    (message,) = mailbox.messages()
    assert (message["via"], message["sender"], message["text"]) == ("twilio", "+15005550006", "Disk full")
    assert message["message_id"] == answer.json["sid"]
    assert message["raw"] == "To=%2B4930123456&From=%2B15005550006&Body=Disk+full"
    assert message["headers"]["Authorization"] == "(hidden)"


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"token": "wrong"}, 401, 20003),
        ({"user": "AC1"}, 401, 20003),
        ({"To": ""}, 400, 21604),
        ({"From": ""}, 400, 21603),
        ({"Body": ""}, 400, 21602),
        ({"Body": "x" * 1601}, 400, 21617),
        ({"To": "0301234"}, 400, 21211),
        ({"To": "+15005550009"}, 400, 21614),
    ],
)
def test_twilio_refuses(mailbox: MailboxServer, changes: dict[str, str], status: int, code: int) -> None:
    answer = _sms(mailbox, **changes)
    assert (answer.status, answer.json["code"], answer.json["status"]) == (status, code, status)
    assert mailbox.messages() == []


def test_a_webhook_takes_anything(mailbox: MailboxServer) -> None:
    assert call("POST", f"{mailbox.url}/hooks/chat", {"title": "Disk full"}).status == 200
    assert call("POST", f"{mailbox.url}/hooks/chat", b"\xff rubbish").status == 200
    first, second = mailbox.messages()
    assert (first["via"], first["subject"], first["recipients"]) == ("webhook", "Disk full", ["chat"])
    assert first["raw"] == '{"title": "Disk full"}'
    assert second["raw"] == "\ufffd rubbish"


@pytest.mark.parametrize(
    ("path", "word"),
    [("services/T/B/s", "rate_limited"), ("hooks/x", "told to fail"), ("twilio", "20429")],
)
def test_each_fails_in_its_own_words(mailbox: MailboxServer, path: str, word: str) -> None:
    def send() -> Answer:
        if path == "twilio":
            return _sms(mailbox)
        return call("POST", f"{mailbox.url}/{path}", SLACK)

    mailbox.fail("429", count=1, seconds=6.5)
    answer = send()
    assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
    assert word in answer.text
    mailbox.fail("500", count=1, deliver=True)
    assert send().status == 500
    assert send().status in (200, 201)
    assert len(mailbox.messages()) == 2


def _read(mailbox: MailboxServer, seconds: float) -> tuple[float, bytes, socket.socket]:
    """Send a request; return when the answer ended, the answer, and the connection."""
    host, port = mailbox.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=seconds)
    connection.sendall(b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    began, answer = time.monotonic(), b""
    while piece := connection.recv(1000):
        answer += piece
    return time.monotonic() - began, answer, connection


def test_half_closed(mailbox: MailboxServer) -> None:
    mailbox.fail("half_closed", count=1, seconds=0.6)
    after, answer, connection = _read(mailbox, 5)
    with connection:
        assert after < 0.4
        assert answer == b""
        connection.sendall(b"still open")
        time.sleep(0.2)
        connection.sendall(b"still open")  # would be a broken pipe after a full close


def test_drip(mailbox: MailboxServer) -> None:
    mailbox.fail("drip", count=1, seconds=0.5)
    after, answer, connection = _read(mailbox, 5)
    connection.close()
    assert after >= 0.4
    assert answer.startswith(b"HTTP/1.1 200 OK\r\nX-Drip: ...")
    assert b"\r\n\r\n" not in answer


def test_pages_show_the_new_kinds(mailbox: MailboxServer) -> None:
    call("POST", f"{mailbox.url}/hooks/chat", {"title": "<b>Disk</b>"})
    _sms(mailbox)
    page = call("GET", f"{mailbox.url}/").text
    assert "webhook" in page
    assert "twilio" in page
    page = call("GET", f"{mailbox.url}/messages/1").text
    assert "Body as it came" in page
    assert "&lt;b&gt;Disk" in page
    assert "<b>Disk" not in page
    page = call("GET", f"{mailbox.url}/messages/2").text
    assert "(hidden)" in page
    assert AUTH not in page
