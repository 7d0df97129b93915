"""The dispatcher with the real SendGrid client against the mailbox, over real sockets."""

from __future__ import annotations

import socket
import time
from datetime import UTC, datetime, timedelta
from threading import Thread

import pytest
from sqlalchemy import update

from fleetwatch.dispatcher.channels import DeliveryError, Message, sendgrid
from fleetwatch.store import Notification, State
from tests.common.services import MailboxServer, alert, wait_until
from tests.dispatcher.conftest import Post


def test_fired_and_resolved_are_two_mails_in_order(post: Post, mailbox: MailboxServer) -> None:
    with post.dispatcher() as registry:
        post.accept(alert(), externalURL="http://alertmanager:9093")
        sent = post.wait_sent()
        post.accept(alert(status="resolved", endsAt="2026-01-02T03:14:05Z"))
        post.wait(lambda row: row.transition == "resolved" and row.state == State.SENT)
    first, second = mailbox.messages()
    assert first["subject"] == "[CRITICAL] HighCpu on node1"
    assert second["subject"] == "[RESOLVED] HighCpu on node1"
    assert first["sender"] == "Fleetwatch <fleetwatch@example.org>"
    assert first["recipients"] == ["ops@example.org", "boss@example.org"]
    for link in ("http://prometheus:9090/graph?g0.expr=up", "https://wiki.example.org"):
        assert link in first["text"]
        assert f'href="{link}"' in first["html"]
    assert 'href="http://alertmanager:9093/#/silences/new' in first["html"]
    assert sent.provider_id == first["message_id"]
    assert (sent.attempts, sent.last_error) == (1, None)
    assert sent.sent_at is not None
    labels = {"channel": "mail", "outcome": "sent"}
    assert registry.get_sample_value("alert_dispatcher_deliveries_total", labels) == 2


def test_new_work_is_handed_over_well_within_a_second(post: Post, mailbox: MailboxServer) -> None:
    with post.dispatcher() as registry:
        for number in range(5):
            post.accept(alert(f"A{number}"))
            wait_until(lambda wanted=number: len(mailbox.subjects()) > wanted)  # type: ignore[misc]
            time.sleep(0.05)
    within = registry.get_sample_value("alert_dispatcher_handover_seconds_bucket", {"le": "1.0"})
    assert within == 5


@pytest.mark.slow
def test_many_at_once_each_exactly_once(post: Post, mailbox: MailboxServer) -> None:
    post.accept(*(alert(f"A{number}") for number in range(40)))
    with post.dispatcher():
        wait_until(lambda: post.store.depth().queued == 0)
    assert sorted(mailbox.subjects()) == sorted(f"[CRITICAL] A{number} on node1" for number in range(40))


@pytest.mark.parametrize(
    ("mode", "error"),
    [
        ("500", "SendGrid answered 500: Internal Server Error"),
        ("timeout", "SendGrid cannot be reached: timed out"),
        ("refuse", "SendGrid cannot be reached: Remote end closed connection"),
        ("429", "SendGrid answered 429: too many requests"),
    ],
)
def test_what_may_pass_is_tried_again(post: Post, mailbox: MailboxServer, mode: str, error: str) -> None:
    mailbox.fail(mode, count=2, seconds=0.5 if mode == "timeout" else 0)
    post.accept(alert())
    seen = []
    with post.dispatcher(channel={"timeout": 0.4} if mode == "timeout" else {}) as registry:
        while (row := post.notification()).state == State.QUEUED:
            seen.append(row.last_error or "")
            time.sleep(0.02)
    assert any(error in text for text in seen), seen
    row = post.notification()
    assert (row.attempts, row.last_error) == (3, None)
    assert len(mailbox.subjects()) == 1
    labels = {"channel": "mail", "outcome": "retried"}
    assert registry.get_sample_value("alert_dispatcher_deliveries_total", labels) == 2


def test_rate_limit_reset_is_waited_for(post: Post, mailbox: MailboxServer) -> None:
    mailbox.fail("429", count=1, seconds=30)
    post.accept(alert())
    with post.dispatcher():
        row = post.wait(lambda row: row.attempts == 1 and row.last_error)
    wait = (row.due_at - datetime.now(UTC)).total_seconds()
    assert 27 < wait < 32
    assert mailbox.subjects() == []


@pytest.mark.slow
def test_nothing_listens(post: Post, mailbox: MailboxServer) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but it does not listen
        post.accept(alert())
        with post.dispatcher(channel={"host": f"http://127.0.0.1:{unused.getsockname()[1]}"}):
            row = post.wait(lambda row: row.attempts >= 2)
    assert "Connection refused" in (row.last_error or "")
    with post.dispatcher():
        post.wait_sent()


def test_a_wrong_key_is_parked(post: Post, mailbox: MailboxServer) -> None:
    post.accept(alert())
    with post.dispatcher(channel_secrets={"mail.api_key": "SG.wrong"}):
        row = post.wait(lambda row: row.state == State.PARKED)
    assert (row.last_error or "").startswith(
        "SendGrid answered 401: The provided authorization grant is invalid"
    )
    assert "SG.wrong" not in (row.last_error or "")
    assert mailbox.subjects() == []


def test_a_mail_that_sendgrid_refuses_is_parked(
    post: Post, mailbox: MailboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = sendgrid.SendGrid._mail

    def forge(self: sendgrid.SendGrid, message: Message) -> dict[str, object]:
        return build(self, message) | {"from": {"email": "nobody"}}

    monkeypatch.setattr(sendgrid.SendGrid, "_mail", forge)
    post.accept(alert())
    with post.dispatcher():
        row = post.wait(lambda row: row.state == State.PARKED)
    assert row.last_error == "SendGrid answered 400: Does not contain a valid address. (from.email)"
    assert mailbox.subjects() == []


def test_an_unexpected_error_is_tried_again(
    post: Post, mailbox: MailboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, calls = sendgrid.SendGrid._mail, []

    def fragile(self: sendgrid.SendGrid, message: Message) -> dict[str, object]:
        calls.append(message)
        if len(calls) == 1:
            raise KeyError("detail")
        return build(self, message)

    monkeypatch.setattr(sendgrid.SendGrid, "_mail", fragile)
    post.accept(alert())
    with post.dispatcher(retry_base=0.5, retry_max=0.5):
        row = post.wait(lambda row: row.last_error)
        assert row.last_error == "internal error (KeyError), see the log"
        post.wait_sent()


def test_given_up_after_a_time(post: Post, mailbox: MailboxServer) -> None:
    mailbox.fail("500")
    post.accept(alert())
    with post.store.write() as session:
        session.execute(update(Notification).values(wanted_at=datetime.now(UTC) - timedelta(days=4)))
    with post.dispatcher():
        row = post.wait(lambda row: row.state == State.PARKED)
    assert (row.last_error or "").startswith("given up after 1 attempts, the last: SendGrid answered 500")


def test_a_channel_that_is_not_configured(post: Post, mailbox: MailboxServer) -> None:
    post.accept(alert())
    long_ago = datetime.now(UTC) - timedelta(minutes=6)
    with post.store.write() as session:
        session.execute(update(Notification).values(channel="pigeon", due_at=long_ago))
    with post.dispatcher():
        row = post.wait(lambda row: row.state == State.PARKED)
    assert row.last_error == 'channel "pigeon" is not configured'
    assert [event.kind for event in post.incidents()[0].events] == ["parked"]


def test_a_summary_cannot_forge_a_header(post: Post, mailbox: MailboxServer) -> None:
    summary = "CPU\r\nBcc: victim@example.org\r\n\r\n<script>alert(1)</script>\u2028\u202eend\x00"
    post.accept(
        alert(
            annotations={
                "summary": summary,
                "description": "<img src=x>{{ 7 * 7 }}",
                "runbook_url": "data:x",
            },
            generatorURL="javascript:alert(1)",
            labels={"severity": "critical\r\nX-Evil: 1", "note": '"><b>'},
        )
    )
    with post.dispatcher():
        post.wait_sent()
    (mail,) = mailbox.messages()
    subject = "[CRITICAL X-EVIL: 1] CPU Bcc: victim@example.org <script>alert(1)</script> end"
    assert mail["subject"].rstrip("\ufffd") == subject
    assert mail["recipients"] == ["ops@example.org", "boss@example.org"]
    for forbidden in ("<script", "<img", "<b>", 'href="javascript', 'href="data', "\x00"):
        assert forbidden not in mail["html"]
    assert "{{ 7 * 7 }}" in mail["text"]
    assert "{{ 7 * 7 }}" in mail["html"]
    assert "\nBcc:" not in mail["text"]


def test_a_redirect_is_not_taken_for_success(post: Post, mailbox: MailboxServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def redirect() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100_000)
                connection.sendall(
                    b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: %b/healthz\r\n\r\n"
                    % mailbox.url.encode()
                )
                time.sleep(0.3)

        Thread(target=redirect, daemon=True).start()
        post.accept(alert())
        with post.dispatcher(channel={"host": f"http://127.0.0.1:{listener.getsockname()[1]}"}):
            row = post.wait(lambda row: row.state == State.PARKED)
    assert "SendGrid answered 302: a redirect, which is never followed" in (row.last_error or "")


def test_delivery_error_says_what_it_is() -> None:
    error = DeliveryError("no", permanent=True, retry_after=3)
    assert (str(error), error.permanent, error.retry_after) == ("no", True, 3)
