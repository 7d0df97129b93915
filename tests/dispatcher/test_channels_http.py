"""The channels over HTTP: against the mailbox, and against servers that misbehave."""

from __future__ import annotations

import hmac
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from urllib3.connection import HTTPConnection

from fleetwatch.alerting.channels import SendGridSettings, SlackSettings, TwilioSettings, WebhookSettings
from fleetwatch.dispatcher.channels import ATTEMPT, Channel, DeliveryError, build, http
from fleetwatch.dispatcher.channels.sendgrid import SendGrid
from fleetwatch.dispatcher.channels.slack import Slack
from fleetwatch.dispatcher.channels.twilio import Twilio
from fleetwatch.dispatcher.channels.webhook import Webhook
from fleetwatch.dispatcher.settings import DispatcherSettings
from tests.common.services import API_KEY, MailboxServer, run_mailbox
from tests.dispatcher.servers import OK, http_server, make_certificate, message

ACCOUNT = "AC" + "0" * 32
AUTH = "twilio-auth-of-the-test"
BEARER = "bearer-of-the-test"
SLACK_PATH = "services/T000/B000/SlackSecretOfTheTest"
LOOPBACK = ["127.0.0.0/8"]
ANSWER = "HTTP/1.1 {}\r\nContent-Length: {}\r\n{}\r\n{}"

Make = Callable[..., Channel]


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[MailboxServer]:
    with run_mailbox(tmp_path, twilio_auth_token=AUTH) as server:
        yield server


def sendgrid(url: str, **settings: Any) -> SendGrid:
    values: dict[str, Any] = {
        "name": "c",
        "type": "sendgrid",
        "sender": "a@example.org",
        "recipients": ["b@example.org"],
    }
    return SendGrid(SendGridSettings.model_validate(values | {"host": url} | settings), API_KEY)


def slack(url: str, **settings: Any) -> Slack:
    values: dict[str, Any] = {"name": "c", "type": "slack", "allowed_networks": LOOPBACK}
    return Slack(SlackSettings.model_validate(values | settings), f"{url}/{SLACK_PATH}")


def webhook(url: str, **settings: Any) -> Webhook:
    values: dict[str, Any] = {
        "name": "c",
        "type": "webhook",
        "allowed_networks": LOOPBACK,
        "url": f"{url}/hooks/x",
    }
    return Webhook(WebhookSettings.model_validate(values | settings), BEARER, "hmac-key-of-the-test")


def twilio(url: str, **settings: Any) -> Twilio:
    values: dict[str, Any] = {"name": "c", "type": "twilio", "account_sid": ACCOUNT, "sender": "+15005550006"}
    values |= {"recipients": ["+4930111111"], "host": url}
    return Twilio(TwilioSettings.model_validate(values | settings), AUTH)


each = pytest.mark.parametrize("make", [sendgrid, slack, webhook, twilio], ids=lambda make: make.__name__)


def refusal(channel: Channel, **parts: Any) -> DeliveryError:
    with pytest.raises(DeliveryError) as failed:
        channel.send(message(**parts))
    return failed.value


def answer(status: str, body: str = "", headers: str = "") -> bytes:
    return ANSWER.format(status, len(body.encode()), headers, body).encode()


# What each does


@each
def test_delivered(make: Make, mailbox: MailboxServer) -> None:
    provider_id = make(mailbox.url).send(message())
    (kept,) = mailbox.messages()
    assert kept["via"] == make.__name__
    assert kept["subject"] == ("[CRITICAL] Grüße von node1" if make is sendgrid else "Disk full")
    assert provider_id == (kept["message_id"] if make in (sendgrid, twilio) else None)


@each
@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("429", "answered 429: "),
        ("500", "answered 500: "),
        ("timeout", "cannot be reached: timed out"),
        ("refuse", "cannot be reached: Remote end closed"),
        ("half_closed", "cannot be reached: Remote end closed"),
        ("drip", "cannot be reached: no complete answer within"),
    ],
)
def test_what_may_pass_is_temporary_and_bounded(
    make: Make, mailbox: MailboxServer, mode: str, reason: str
) -> None:
    channel = make(mailbox.url, timeout=0.4)
    mailbox.fail(mode, count=1, seconds=3)
    began = time.monotonic()
    error = refusal(channel)
    assert time.monotonic() - began < 2 * 0.4
    assert reason in str(error)
    assert not error.permanent
    if mode == "429":
        assert error.retry_after == pytest.approx(3, abs=1.1)
    channel.send(message())
    assert len(mailbox.messages()) == 1


@each
def test_nothing_listens(make: Make) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but it does not listen
        error = refusal(make(f"http://127.0.0.1:{unused.getsockname()[1]}"))
    assert "cannot be reached: Connection refused" in str(error)
    assert not error.permanent


@each
def test_a_name_that_does_not_resolve(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = refusal(make("http://nowhere.example"))
    assert str(error).endswith("cannot be reached: its name cannot be resolved")
    assert not error.permanent


@each
@pytest.mark.parametrize("status", ["400 Bad", "401 No", "403 No", "404 None", "410 Gone", "413 Big"])
def test_refused_for_good(make: Make, status: str) -> None:
    with http_server(lambda _: answer(status, "because")) as server:
        error = refusal(make(server.url))
    assert f"answered {status[:3]}: because" in str(error)
    assert error.permanent


@each
@pytest.mark.parametrize("status", ["408 Late", "425 Early", "502 Bad", "503 Busy"])
def test_refused_for_now(make: Make, status: str) -> None:
    with http_server(lambda _: answer(status, headers="Retry-After: 17\r\n")) as server:
        error = refusal(make(server.url))
    assert not error.permanent
    assert error.retry_after == 17


@each
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Other", "308 Other"])
def test_a_redirect_is_not_followed(make: Make, status: str) -> None:
    with (
        http_server(lambda _: OK) as elsewhere,
        http_server(lambda _: answer(status, headers=f"Location: {elsewhere.url}/\r\n")) as server,
    ):
        error = refusal(make(server.url))
        assert elsewhere.requests == []
    assert "a redirect, which is never followed" in str(error)
    assert error.permanent


@each
def test_secrets_are_not_in_errors_even_if_the_service_quotes_them(make: Make) -> None:
    def quote(request: bytes) -> bytes:
        return answer("400 Bad", request.decode(errors="replace"))

    with http_server(quote) as server:
        # Far at the beginning of the answer, since errors are cut.
        error = refusal(make(server.url))
        (request,) = server.requests
    assert "***" in str(error)
    for secret in (API_KEY, AUTH, BEARER, "SlackSecretOfTheTest", "hmac-key-of-the-test"):
        assert secret not in str(error)
        assert secret not in repr(error.__cause__)
    credential = request.decode(errors="replace").partition("Basic ")[2].partition("\r\n")[0]
    assert not credential or credential not in str(error)


@each
def test_an_endless_answer_does_not_matter(make: Make) -> None:
    status = {sendgrid: "202 Accepted", twilio: "201 Created"}.get(make, "200 OK")
    sent = 0

    def endless(_: bytes) -> Iterator[bytes]:
        nonlocal sent
        yield f"HTTP/1.1 {status}\r\n\r\n".encode()
        while True:
            yield b"x" * 65536
            sent += 65536

    with http_server(endless) as server:
        make(server.url).send(message())
        assert sent < 16 * 1024 * 1024


@each
def test_the_status_counts_though_the_rest_of_the_answer_never_comes(make: Make) -> None:
    """It was accepted: an error would send it again."""
    status = {sendgrid: "202 Accepted", twilio: "201 Created"}.get(make, "200 OK")

    def stuck(_: bytes) -> Iterator[bytes]:
        yield f"HTTP/1.1 {status}\r\nContent-Length: 100\r\n\r\n".encode()
        time.sleep(1)

    with http_server(stuck) as server:
        began = time.monotonic()
        make(server.url, timeout=0.3).send(message())
        assert time.monotonic() - began < 0.6


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://", "http://[::1", "http://u:pw@127.0.0.1", "x"])
def test_an_unusable_url_is_said_without_quoting_it(url: str) -> None:
    error = refusal(Slack(SlackSettings.model_validate({"name": "c", "type": "slack"}), f"{url}/SecretOfIt"))
    assert error.permanent
    assert "the URL is not one such as" in str(error)
    assert "SecretOfIt" not in str(error)


# Slack, webhook


def test_slack_says_why(mailbox: MailboxServer) -> None:
    error = refusal(slack(mailbox.url), **{"slack.json": '{"blocks": [{"type": "poem"}]}'})
    assert str(error) == "Slack answered 400: invalid_blocks"
    assert error.permanent


@pytest.mark.parametrize(("make", "part"), [(slack, "slack.json"), (webhook, "webhook.json")])
def test_a_template_that_makes_no_json(make: Make, part: str) -> None:
    with http_server(lambda _: OK) as server:
        error = refusal(make(server.url), **{part: "{"})
        assert server.requests == []
    assert error.permanent
    assert str(error).startswith(f"template {part}: the result is not JSON")


def test_a_webhook_is_signed_as_its_documentation_says() -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"X-Team": "ops", "idempotency-key": "mine", "User-Agent": "Other"}
    with http_server(lambda _: answer("204 No Content")) as server:
        webhook(server.url, headers=headers).send(message("f/ü\n1", traceparent=traceparent))
        webhook(server.url).send(message(traceparent="00-x\r\nX-Evil: 1"))
        first, second = server.requests
    head, _, body = first.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    got = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
    assert lines[0] == "POST /hooks/x HTTP/1.1"
    assert len(got) == len(lines) - 1  # no header twice
    assert got["host"] == f"127.0.0.1:{server.port}"
    assert got["content-type"] == "application/json"
    assert got["authorization"] == f"Bearer {BEARER}"
    assert got["idempotency-key"] == "f/%C3%BC%0A1"
    assert (got["x-team"], got["user-agent"]) == ("ops", "Other")
    assert got["traceparent"] == traceparent
    # As in the documentation of the module.
    timestamp = got["x-fleetwatch-timestamp"]
    signed = timestamp.encode() + b"." + body
    expected = "sha256=" + hmac.new(b"hmac-key-of-the-test", signed, "sha256").hexdigest()
    assert hmac.compare_digest(expected, got["x-fleetwatch-signature"])
    assert abs(time.time() - int(timestamp)) < 5
    assert body.decode() == message().parts["webhook.json"]
    assert b"traceparent" not in second
    assert b"X-Evil" not in second


def test_a_webhook_without_secrets_has_no_header_of_them() -> None:
    settings = {"name": "c", "type": "webhook", "allowed_networks": LOOPBACK}
    with http_server(lambda _: OK) as server:
        Webhook(WebhookSettings.model_validate(settings | {"url": server.url})).send(message())
        (request,) = server.requests
    assert b"Authorization" not in request
    assert b"Signature" not in request


# Twilio


def test_who_has_the_text_message_does_not_get_it_again(mailbox: MailboxServer) -> None:
    channel = twilio(mailbox.url, recipients=["+4930111111", "+4930222222", "+4930333333"])
    mailbox.fail("500", count=1)
    assert not refusal(channel).permanent
    assert [kept["recipients"] for kept in mailbox.messages()] == [["+4930222222"], ["+4930333333"]]
    sids = channel.send(message())
    messages = mailbox.messages()
    assert [kept["recipients"][0] for kept in messages][2:] == ["+4930111111"]
    assert sorted((sids or "").split(",")) == sorted(kept["message_id"] for kept in messages)
    channel.send(message())  # the same once more, as after a requeue
    assert len(mailbox.messages()) == 6


def test_some_recipients_refused_for_good(mailbox: MailboxServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        twilio(mailbox.url, recipients=["+15005550009", "+4930222222"]).send(message())
    (warning,) = caplog.records
    assert "21614" in warning.__dict__["refused"]["+15005550009"]
    assert len(mailbox.messages()) == 1


def test_all_recipients_refused_for_good(mailbox: MailboxServer) -> None:
    error = refusal(twilio(mailbox.url, recipients=["+15005550009", "+15005550001"]))
    assert error.permanent
    assert str(error) == "Twilio answered 400: To number: +15005550009 is not a mobile number (code 21614)"


@pytest.mark.parametrize("status", ["401 No", "404 None", "429 Many"])
def test_what_concerns_the_account_ends_the_attempt(status: str) -> None:
    with http_server(lambda _: answer(status, '{"code": 20003, "message": "no"}')) as server:
        error = refusal(twilio(server.url, recipients=["+4930111111", "+4930222222"]))
        assert len(server.requests) == 1
    assert str(error) == f"Twilio answered {status[:3]}: no (code 20003)"


def test_many_slow_recipients_are_done_in_several_attempts(mailbox: MailboxServer) -> None:
    def slow(_: bytes) -> bytes:
        time.sleep(0.25)
        return answer("201 Created", '{"sid": "SM1"}')

    with http_server(slow) as server:
        channel = twilio(server.url, timeout=0.4, recipients=[f"+493011111{n}" for n in range(4)])
        began = time.monotonic()
        assert not refusal(channel).permanent
        assert time.monotonic() - began < 0.8
        while len(server.requests) < 20:
            try:
                assert channel.send(message()) == "SM1,SM1,SM1,SM1"
            except DeliveryError:
                continue
            break
        assert len(server.requests) <= 6


# Where it may go


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Let every name mean these addresses; return the list of names that are asked for."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *args: Any, **options: Any) -> list[Any]:
        if not host.endswith(".example"):
            return real(host, port, *args, **options)
        asked.append(host)
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (address, port),
            )
            for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


SPECIAL = [
    "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "169.254.169.254", "fe80::1", "fe80::1%1", "224.0.0.1",  # noqa: S104
    "255.255.255.255", "ff02::1", "240.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1",
    "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
]  # fmt: skip


@pytest.mark.parametrize("address", SPECIAL)
@pytest.mark.parametrize("make", [slack, webhook], ids=lambda make: make.__name__)
def test_special_addresses_are_refused(make: Make, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(_: object) -> None:
        pytest.fail("connected")

    monkeypatch.setattr(HTTPConnection, "connect", connect)
    resolve(monkeypatch, "203.0.113.7", address)  # one among others is enough
    error = refusal(make("http://hook.example", allowed_networks=[]))
    assert error.permanent
    assert "allowed_networks" in str(error)


@pytest.mark.parametrize(
    "address", ["10.1.2.3", "172.16.0.1", "192.168.1.1", "fd00::1", "203.0.113.7", "2001:4860::8888",
                "64:ff9b::cb00:7107"],
)  # fmt: skip
def test_other_addresses_are_tried(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def connect(connection: Any) -> None:
        tried.append(connection.host)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(HTTPConnection, "connect", connect)
    resolve(monkeypatch, address)
    assert "Connection refused" in str(refusal(webhook("http://hook.example", allowed_networks=[])))
    assert tried == [address]


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f000001", "[::1]", "[::ffff:7f00:1]", "0"]
)
def test_every_way_to_write_loopback(host: str) -> None:
    error = refusal(webhook(f"http://{host}:9", allowed_networks=[]))
    assert error.permanent
    assert "allowed_networks" in str(error)


def test_an_allowed_network_allows_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    with http_server(lambda _: OK) as server:
        resolve(monkeypatch, "::ffff:127.0.0.1")
        webhook(f"http://hook.example:{server.port}").send(message())
        resolve(monkeypatch, "169.254.169.254")
        assert refusal(webhook(f"http://hook.example:{server.port}")).permanent


def test_a_name_that_changes_its_address_after_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        http_server(lambda _: OK, "127.0.0.2") as meant,
        http_server(lambda _: OK, "127.0.0.1", meant.port) as rebound,
    ):
        answers = iter(["127.0.0.2", "127.0.0.1", "127.0.0.1"])
        real = socket.getaddrinfo

        def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
            return real(next(answers) if host == "hook.example" else host, *args, **options)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        webhook(f"http://hook.example:{meant.port}", allowed_networks=["127.0.0.2/32"]).send(message())
        assert rebound.requests == []
        (request,) = meant.requests
    assert f"Host: hook.example:{meant.port}\r\n".encode() in request
    assert list(answers) == ["127.0.0.1", "127.0.0.1"]  # asked once


def test_the_next_address_when_one_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with http_server(lambda _: OK) as server:
        resolve(monkeypatch, "127.0.0.3", "127.0.0.1")
        webhook(f"http://hook.example:{server.port}").send(message())
        assert len(server.requests) == 1


# TLS


@pytest.mark.parametrize("certified", ["hook.example", "other.example"])
def test_the_certificate_must_be_that_of_the_name(
    certified: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path, certified)
    trust = ssl.create_default_context(cafile=certificate.certificate)
    names: list[str | None] = []
    context = certificate.server
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    monkeypatch.setattr(http, "_tls_context", lambda: trust)
    resolve(monkeypatch, "127.0.0.1")
    with http_server(lambda _: OK, tls=context) as server:
        channel = webhook(f"https://hook.example:{server.port}")
        if certified == "hook.example":
            channel.send(message())
            assert len(server.requests) == 1
        else:
            error = refusal(channel)
            assert "certificate verify failed" in str(error)
            assert not error.permanent  # certificates get renewed
            assert server.requests == []
    assert names == ["hook.example"]


def test_a_certificate_nobody_knows(tmp_path: Path) -> None:
    with http_server(lambda _: OK, tls=make_certificate(tmp_path, "127.0.0.1").server) as server:
        error = refusal(twilio(f"https://127.0.0.1:{server.port}"))
        assert server.requests == []
    assert "certificate verify failed" in str(error)


# All together


def test_all_types_are_built() -> None:
    channels = [
        {"name": "a", "type": "sendgrid", "sender": "a@b.c", "recipients": ["d@e.f"]},
        {"name": "b", "type": "smtp", "host": "mail", "sender": "a@b.c", "recipients": ["d@e.f"]},
        {"name": "c", "type": "slack"},
        {"name": "d", "type": "webhook", "url": "https://example.org"},
        {"name": "e", "type": "twilio", "account_sid": ACCOUNT, "sender": "+15005550006",
         "recipients": ["+4930111111"]},
    ]  # fmt: skip
    secrets = {"a.api_key": "x", "c.url": "https://example.org/x", "e.auth_token": "x"}
    built = build(DispatcherSettings.model_validate({"channels": channels, "channel_secrets": secrets}))
    assert {name: type(channel).__name__ for name, channel in built.items()} == {
        "a": "SendGrid", "b": "Smtp", "c": "Slack", "d": "Webhook", "e": "Twilio",
    }  # fmt: skip


def test_an_attempt_ends_before_its_lease() -> None:
    assert ATTEMPT < 2  # as the settings demand of lease and timeout
