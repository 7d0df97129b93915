"""The channel smtp against the mailbox, and against mail servers that refuse."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from fleetwatch.alerting.channels import SmtpSettings
from fleetwatch.dispatcher.channels import DeliveryError
from fleetwatch.dispatcher.channels.smtp import Smtp
from tests.common.services import MailboxServer, free_port, run_mailbox, run_smtp
from tests.dispatcher.servers import Certificate, make_certificate, message

PASSWORD = "the password of the test"  # noqa: S105
USER = {"smtp_username": "fleetwatch", "smtp_password": PASSWORD}


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[MailboxServer]:
    with run_mailbox(tmp_path) as server:
        yield server


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path, "127.0.0.1")


def smtp(port: int, password: str | None = None, **settings: Any) -> Smtp:
    values: dict[str, Any] = {"name": "mail", "type": "smtp", "host": "127.0.0.1", "port": port}
    values |= {"security": "none", "sender": "fleetwatch@example.org", "timeout": 3}
    values |= {"recipients": ["ops@example.org", "boss@example.org"]}
    return Smtp(SmtpSettings.model_validate(values | settings), password)


def refusal(channel: Smtp) -> DeliveryError:
    with pytest.raises(DeliveryError) as failed:
        channel.send(message())
    return failed.value


def secured(certificate: Certificate, security: str) -> dict[str, Any]:
    return {
        "smtp_security": security,
        "smtp_certificate_file": certificate.certificate,
        "smtp_key_file": certificate.key,
    }


def test_a_mail(mailbox: MailboxServer) -> None:
    with run_smtp(mailbox) as port:
        name = smtp(port, sender_name="Wächter, Nacht").send(message())
        smtp(port).send(message("ü/" + "x" * 150))
    first, second = mailbox.messages()
    assert first["subject"] == "[CRITICAL] Grüße von node1"
    assert first["sender"] == '"Wächter, Nacht" <fleetwatch@example.org>'
    assert first["recipients"] == ["ops@example.org", "boss@example.org"]
    assert (first["text"], first["html"]) == (message().parts["mail.txt"], message().parts["mail.html"])
    headers = first["headers"]
    assert headers["To"] == "ops@example.org, boss@example.org"
    assert headers["Content-Type"].startswith("multipart/alternative")
    assert headers["Auto-Submitted"] == "auto-generated"
    assert headers["X-Fleetwatch-Notification"] == "f1/2026-01-02T03:04:05+00:00/firing"
    assert headers["Message-ID"] == name
    assert headers["Date"]
    assert second["headers"]["X-Fleetwatch-Notification"] == "%C3%BC/" + "x" * 150


def test_a_subject_cannot_add_a_header(mailbox: MailboxServer) -> None:
    with run_smtp(mailbox) as port:
        smtp(port).send(message(**{"mail.subject": "Disk\r\nBcc: evil@example.org\r\n"}))
    (kept,) = mailbox.messages()
    assert kept["subject"] == "Disk Bcc: evil@example.org"
    assert "Bcc" not in kept["headers"]


def test_the_same_name_in_each_attempt_another_for_another_message(mailbox: MailboxServer) -> None:
    with run_smtp(mailbox) as port:
        names = [smtp(port).send(message()), smtp(port).send(message()), smtp(port).send(message("f2"))]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_encrypted_with_a_user(mailbox: MailboxServer, certificate: Certificate, security: str) -> None:
    with run_smtp(mailbox, **secured(certificate, security), **USER) as port:
        options: dict[str, Any] = {
            "security": security,
            "username": "fleetwatch",
            "ca_file": certificate.certificate,
        }
        smtp(port, PASSWORD, **options).send(message())
        error = refusal(smtp(port, "wrong password", **options))
        assert str(error).startswith("The mail server answered 535: ")
        assert error.permanent
        assert "wrong password" not in str(error)
        # Without a user the server does not take it.
        assert refusal(smtp(port, **options | {"username": ""})).permanent
        error = refusal(smtp(port, "Paßwort", **options))
        assert "other characters than ASCII" in str(error)
        assert "Pa" not in str(error)
        assert error.__cause__ is None
    assert len(mailbox.messages()) == 1


def test_a_server_that_quotes_the_password(certificate: Certificate) -> None:
    def quote(_server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
        plain = b"\0" + given.login + b"\0" + given.password
        reply = f"535 {given.password.decode()} or {base64.b64encode(plain).decode()} is wrong"
        return AuthResult(success=False, handled=False, message=reply)

    server = Controller(
        object(), hostname="127.0.0.1", port=free_port(), ssl_context=certificate.server,
        authenticator=quote, auth_required=True, auth_require_tls=False,
    )  # fmt: skip
    server.start()
    options: dict[str, Any] = {"security": "tls", "ca_file": certificate.certificate}
    error = refusal(smtp(server.port, PASSWORD, username="fleetwatch", **options))
    server.stop()
    assert str(error) == "The mail server answered 535: *** or *** is wrong"


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_a_certificate_that_is_not_right(
    mailbox: MailboxServer, tmp_path: Path, security: str, wrong: str
) -> None:
    own = make_certificate(tmp_path, "other.example" if wrong == "name" else "127.0.0.1")
    trusted = {"ca_file": own.certificate} if wrong == "name" else {}
    with run_smtp(mailbox, **secured(own, security), **USER) as port:
        error = refusal(smtp(port, PASSWORD, security=security, username="fleetwatch", **trusted))
    assert "certificate verify failed" in str(error)
    assert not error.permanent
    assert mailbox.messages() == []


def test_a_server_without_starttls_gets_neither_mail_nor_password(mailbox: MailboxServer) -> None:
    with run_smtp(mailbox) as port:
        error = refusal(smtp(port, PASSWORD, security="starttls", username="fleetwatch"))
    assert "STARTTLS extension not supported" in str(error)
    assert mailbox.messages() == []


def test_an_authority_that_is_not_there(tmp_path: Path) -> None:
    error = refusal(smtp(free_port(), security="tls", ca_file=tmp_path / "none.pem"))
    assert str(error).endswith("none.pem: No such file or directory")
    assert not error.permanent
    (tmp_path / "none.pem").write_text("rubbish")
    assert "none.pem" in str(refusal(smtp(free_port(), security="tls", ca_file=tmp_path / "none.pem")))


@pytest.mark.parametrize(
    ("mode", "reason", "permanent"),
    [
        ("429", "answered 451: 4.7.1 Too many messages", False),
        ("500", "answered 554: 5.3.0 Told to fail", True),
        ("timeout", "timed out", False),
        ("refuse", "", False),  # the connection is lost after the final dot
        ("half_closed", "Connection unexpectedly closed", False),
        ("drip", "no complete answer within", False),
    ],
)
def test_failures(mailbox: MailboxServer, mode: str, reason: str, permanent: bool) -> None:
    with run_smtp(mailbox) as port:
        channel = smtp(port, timeout=0.4)
        mailbox.fail(mode, count=1, seconds=2)
        began = time.monotonic()
        error = refusal(channel)
        assert time.monotonic() - began < 2 * 0.4 + 0.1
        assert reason in str(error)
        assert error.permanent is permanent
        channel.send(message())
    assert len(mailbox.messages()) == 1


def test_nothing_listens() -> None:
    error = refusal(smtp(free_port()))
    assert "Connection refused" in str(error)
    assert not error.permanent


class Picky:
    """A mail server's opinions."""

    def __init__(self, rcpt: dict[str, str], data: str = "250 Ok") -> None:
        self.rcpt, self.data = rcpt, data
        self.taken: list[list[str]] = []

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _: Any) -> str:  # noqa: N802
        if address in self.rcpt:
            return self.rcpt[address]
        envelope.rcpt_tos.append(address)
        return "250 Ok"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        self.taken.append(envelope.rcpt_tos)
        return self.data

    async def handle_QUIT(self, _server: Any, _session: Any, _envelope: Any) -> str:  # noqa: N802
        return "451 Why so soon"


@contextmanager
def picky(**rcpt: str) -> Iterator[tuple[Picky, int]]:
    handler = Picky({f"{name}@example.org": reply for name, reply in rcpt.items()})
    server = Controller(handler, hostname="127.0.0.1", port=free_port())
    server.start()
    try:
        yield handler, server.port
    finally:
        server.stop()


def test_some_recipients_refused(caplog: pytest.LogCaptureFixture) -> None:
    """Also: what QUIT is answered does not matter."""
    with picky(boss="550 5.1.1 No such\tuser") as (server, port), caplog.at_level(logging.WARNING):
        smtp(port).send(message())
        assert server.taken == [["ops@example.org"]]
    (warning,) = (record for record in caplog.records if record.name.startswith("fleetwatch"))
    assert warning.__dict__["refused"] == {"boss@example.org": "550: 5.1.1 No such user"}


@pytest.mark.parametrize(
    ("boss", "permanent"), [("550 No", True), ("450 Greylisted", False), ("421 Bye", False)]
)
def test_all_recipients_refused(boss: str, permanent: bool) -> None:
    with picky(ops="550 5.1.1 No such user", boss=boss) as (server, port):
        error = refusal(smtp(port))
        assert server.taken == []
    assert error.permanent is permanent
    assert "550" in str(error) or "421" in str(error)
