from __future__ import annotations

import smtplib
import time
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from tests.common.services import API_KEY, MailboxServer, Service, call, free_port, run_mailbox, run_smtp

KEY = {"Authorization": f"Bearer {API_KEY}"}


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[MailboxServer]:
    with run_mailbox(tmp_path, max_messages=3) as server:
        yield server


@pytest.fixture
def smtp_port(mailbox: MailboxServer) -> Iterator[int]:
    with run_smtp(mailbox) as port:
        yield port


def _mail(**changes: Any) -> dict[str, Any]:
    mail = {
        "personalizations": [{"to": [{"email": "ops@example.org", "name": "Ops"}]}],
        "from": {"email": "fleetwatch@example.org"},
        "subject": "Hello",
        "content": [
            {"type": "text/plain", "value": "plain"},
            {"type": "text/html", "value": "<p>rich</p>"},
        ],
        "custom_args": {"n": "1"},
    }
    return {name: value for name, value in (mail | changes).items() if value is not None}


def _send(mailbox: MailboxServer, **changes: Any) -> Any:
    return call("POST", f"{mailbox.url}/v3/mail/send", _mail(**changes), KEY)


def test_sendgrid_accepts(mailbox: MailboxServer) -> None:
    answer = _send(mailbox)
    assert (answer.status, answer.body) == (202, b"")
    (message,) = mailbox.messages()
    assert message.pop("received_at").endswith("Z")
    assert message == {
        "id": 1,
        "message_id": answer.headers["X-Message-Id"],
        "via": "sendgrid",
        "sender": "fleetwatch@example.org",
        "recipients": ["Ops <ops@example.org>"],
        "subject": "Hello",
        "text": "plain",
        "html": "<p>rich</p>",
        "headers": {},
        "custom_args": {"n": "1"},
        "raw": "",
    }
    assert call("GET", f"{mailbox.url}/api/messages/1").json["subject"] == "Hello"
    assert call("GET", f"{mailbox.url}/api/messages/2").status == 404


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer "}, {"Authorization": "Bearer wrong"},
                                    {"Authorization": f"Basic {API_KEY}"}])  # fmt: skip
def test_sendgrid_wants_its_key(mailbox: MailboxServer, header: dict[str, str]) -> None:
    answer = call("POST", f"{mailbox.url}/v3/mail/send", _mail(), header)
    assert answer.status == 401
    assert "authorization grant is invalid" in answer.json["errors"][0]["message"]
    assert mailbox.messages() == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"from": None}, "from.email"),
        ({"from": {"email": "nobody"}}, "from.email"),
        ({"personalizations": []}, "personalizations"),
        ({"personalizations": [{"to": []}]}, "personalizations.0.to"),
        ({"personalizations": [{"to": [{"email": "x"}]}]}, "personalizations.0.to.0.email"),
        ({"personalizations": [{"to": [{"email": "a@b"}, {"email": "A@B"}]}]}, "personalizations.0"),
        ({"subject": ""}, "subject"),
        ({"content": []}, "content"),
        ({"content": [{"type": "text/plain", "value": ""}]}, "content.0.value"),
        ({"content": [{"type": "text/html", "value": "x"}, {"type": "text/plain", "value": "x"}]}, "content"),
        ({"custom_args": {"n": 1}}, "custom_args"),
    ],
)
def test_sendgrid_refuses_what_is_malformed(
    mailbox: MailboxServer, changes: dict[str, Any], field: str
) -> None:
    answer = _send(mailbox, **changes)
    assert answer.status == 400
    (error,) = answer.json["errors"]
    assert error["field"] == field
    assert error["message"]
    assert mailbox.messages() == []


@pytest.mark.parametrize("body", [b"{", b"[]", b""])
def test_sendgrid_refuses_what_is_not_json(mailbox: MailboxServer, body: bytes) -> None:
    assert call("POST", f"{mailbox.url}/v3/mail/send", body, KEY).status == 400


def test_the_newest_are_kept(mailbox: MailboxServer) -> None:
    for number in range(5):
        _send(mailbox, subject=f"Number {number}")
    assert mailbox.subjects() == ["Number 2", "Number 3", "Number 4"]
    found = call("GET", f"{mailbox.url}/api/messages?q=NUMBER+3").json["messages"]
    assert [message["subject"] for message in found] == ["Number 3"]
    assert len(call("GET", f"{mailbox.url}/api/messages?limit=2").json["messages"]) == 2
    assert call("DELETE", f"{mailbox.url}/api/messages").json == {"deleted": 3}
    assert mailbox.messages() == []


def test_failing_on_demand(mailbox: MailboxServer) -> None:
    mailbox.fail("429", count=1, seconds=30)
    answer = _send(mailbox)
    assert answer.status == 429
    assert 28 <= int(answer.headers["X-RateLimit-Reset"]) - time.time() <= 31
    mailbox.fail("500", count=2)
    assert [_send(mailbox).status for _ in range(3)] == [500, 500, 202]
    mailbox.fail("refuse")
    with pytest.raises(ConnectionError):
        _send(mailbox)
    mailbox.fail("timeout", seconds=0.3, deliver=True)
    began = time.monotonic()
    with pytest.raises(ConnectionError):
        _send(mailbox, subject="Delivered all the same")
    assert time.monotonic() - began >= 0.3
    assert mailbox.subjects()[-1] == "Delivered all the same"
    assert call("GET", f"{mailbox.url}/api/failure").json["mode"] == "timeout"
    mailbox.fail("ok")
    assert _send(mailbox).status == 202


@pytest.mark.parametrize("failure", [{"mode": "explode"}, {"mode": "500", "count": 0}, {"mood": "ok"}, []])
def test_a_wrong_failure_is_refused(mailbox: MailboxServer, failure: object) -> None:
    answer = call("PUT", f"{mailbox.url}/api/failure", failure)
    assert answer.status == 400
    assert answer.json["error"]
    assert _send(mailbox).status == 202


def test_pages_show_a_message_without_trusting_it(mailbox: MailboxServer) -> None:
    html = "<script>alert(1)</script><p>rich</p>"
    _send(mailbox, subject="<b>bold</b>", content=[{"type": "text/html", "value": html}])
    page = call("GET", f"{mailbox.url}/")
    assert "&lt;b&gt;bold&lt;/b&gt;" in page.text
    assert "<b>bold" not in page.text
    page = call("GET", f"{mailbox.url}/messages/1")
    assert "&lt;b&gt;bold&lt;/b&gt;" in page.text
    assert "<script" not in page.text
    assert 'sandbox="allow-popups allow-popups-to-escape-sandbox"' in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    part = call("GET", f"{mailbox.url}/messages/1/html")
    assert html in part.text
    assert part.headers["Content-Security-Policy"].startswith("sandbox allow-popups")
    assert "script-src" not in part.headers["Content-Security-Policy"]  # so default-src 'none' counts


def test_pages_say_that_it_fails_on_demand(mailbox: MailboxServer) -> None:
    assert "Failing on demand" not in call("GET", f"{mailbox.url}/").text
    mailbox.fail("500", count=4)
    assert "Failing on demand: 500, 4 more" in call("GET", f"{mailbox.url}/").text


def test_only_its_own_page_may_clear_it(mailbox: MailboxServer) -> None:
    _send(mailbox)
    assert call("POST", f"{mailbox.url}/clear", headers={"Sec-Fetch-Site": "cross-site"}).status == 403
    assert len(mailbox.messages()) == 1
    call("POST", f"{mailbox.url}/clear", headers={"Sec-Fetch-Site": "same-origin"})
    assert mailbox.messages() == []


def _by_smtp(port: int, subject: str = "Grüße") -> None:
    message = EmailMessage()
    message["From"] = "Fleetwatch <fleetwatch@example.org>"
    message["To"] = "ops@example.org"
    message["Subject"] = subject
    message.set_content("schön\n")
    message.add_alternative("<p>schön</p>\n", subtype="html")
    with smtplib.SMTP("127.0.0.1", port, timeout=5) as client:
        client.send_message(message, to_addrs=["ops@example.org", "hidden@example.org"])


def test_smtp(mailbox: MailboxServer, smtp_port: int) -> None:
    _by_smtp(smtp_port)
    (message,) = mailbox.messages()
    assert (message["via"], message["subject"]) == ("smtp", "Grüße")
    assert message["sender"] == "Fleetwatch <fleetwatch@example.org>"
    assert message["recipients"] == ["ops@example.org", "hidden@example.org"]
    assert (message["text"], message["html"]) == ("schön\n", "<p>schön</p>\n")


def test_smtp_takes_any_rubbish(mailbox: MailboxServer, smtp_port: int) -> None:
    with smtplib.SMTP("127.0.0.1", smtp_port, timeout=5) as client:
        client.sendmail("a@b", ["c@d"], b"Content-Type: text/plain; charset=nonsense\r\n\r\n\xff\xfe")
        client.sendmail("a@b", ["c@d"], b"no header at all")
    assert len(mailbox.messages()) == 2


@pytest.mark.parametrize(("mode", "code"), [("429", 451), ("500", 554)])
def test_smtp_fails_on_demand(mailbox: MailboxServer, smtp_port: int, mode: str, code: int) -> None:
    mailbox.fail(mode, count=1)
    with pytest.raises(smtplib.SMTPDataError) as failed:
        _by_smtp(smtp_port)
    assert failed.value.smtp_code == code
    assert mailbox.messages() == []
    _by_smtp(smtp_port)


@pytest.mark.parametrize("mode", ["refuse", "timeout", "half_closed", "drip"])
def test_smtp_hangs_up_on_demand(mailbox: MailboxServer, smtp_port: int, mode: str) -> None:
    mailbox.fail(mode, count=1, seconds=0.2)
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
        _by_smtp(smtp_port)
    _by_smtp(smtp_port)
    assert len(mailbox.messages()) == 1


@pytest.mark.slow
def test_as_a_service(tmp_path: Path) -> None:
    smtp_port = free_port()
    config = {"port": free_port(), "smtp_port": smtp_port, "state_directory": str(tmp_path)}
    service = Service("mailbox", config, tmp_path)
    url = f"http://127.0.0.1:{config['port']}"
    service.start(f"{url}/readyz")
    assert call("POST", f"{url}/v3/mail/send", _mail(), {"Authorization": "Bearer any"}).status == 202
    _by_smtp(smtp_port)
    assert 'lab_mailbox_messages_received_total{via="smtp"} 1.0' in call("GET", f"{url}/metrics").text
    assert service.terminate() == 0
    service.start(f"{url}/readyz")
    assert len(call("GET", f"{url}/api/messages").json["messages"]) == 2
    service.kill()
    assert all("event" in event for event in service.events())
