"""The SMTP server."""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time
from collections.abc import Callable
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as policy
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from fleetwatch.mailbox.failure import DRIP_PAUSE, Failure, FailureSwitch
from fleetwatch.mailbox.messages import Received
from fleetwatch.mailbox.settings import MailboxSettings

Keep = Callable[[Received], str]
"""Keeps a message and returns its name."""


class _Handler:
    def __init__(self, keep: Keep, failures: FailureSwitch) -> None:
        self._keep = keep
        self._failures = failures

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        """Take one message, or fail as told."""
        failure = self._failures.next()
        if failure.mode == "ok" or failure.deliver:
            name = self._keep(parse(envelope))
        if failure.mode == "ok":
            return f"250 2.0.0 Ok: kept as {name}"
        if failure.mode == "429":
            return "451 4.7.1 Too many messages, try again later"
        if failure.mode == "500":
            return "554 5.3.0 Told to fail"
        if isinstance(server.transport, asyncio.WriteTransport):
            await _hang(server.transport, failure)
            server.transport.abort()
        return "421 4.3.0 Closing connection"


async def _hang(transport: asyncio.WriteTransport, failure: Failure) -> None:
    """Keep the connection as the failure says; the caller closes it."""
    if failure.mode == "half_closed" and transport.can_write_eof():
        transport.write_eof()
    if failure.mode == "drip":
        ends = time.monotonic() + failure.seconds
        transport.write(b"250-")
        while time.monotonic() < ends and not transport.is_closing():
            transport.write(b".")
            await asyncio.sleep(DRIP_PAUSE)
    elif failure.mode != "refuse":
        await asyncio.sleep(failure.seconds)


def parse(envelope: Envelope) -> Received:
    """Return the message in an envelope; recipients are those of the envelope."""
    content = envelope.content or b""
    raw = content if isinstance(content, bytes) else content.encode(errors="replace")
    message = message_from_bytes(raw, policy=policy)
    return Received(
        via="smtp",
        sender=str(message.get("From") or envelope.mail_from or ""),
        recipients=list(envelope.rcpt_tos),
        subject=str(message.get("Subject", "")),
        text=_part(message, "plain"),
        html=_part(message, "html"),
        headers={name: str(value) for name, value in message.items()},
    )


def _part(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    if part is None:
        return ""
    try:
        return str(part.get_content()).replace("\r\n", "\n")
    except (LookupError, UnicodeError):  # a charset that does not exist, or that the text does not keep to
        payload = part.get_payload(decode=True)
        return payload.decode(errors="replace") if isinstance(payload, bytes) else str(payload)


def server(settings: MailboxSettings, keep: Keep, failures: FailureSwitch) -> Controller:
    """Return an SMTP server that runs in a thread of its own after ``start()``.

    Raises OSError when the certificate cannot be read.
    """
    options: dict[str, Any] = {}
    if settings.smtp_security != "none" and settings.smtp_certificate_file:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(settings.smtp_certificate_file, settings.smtp_key_file)
        if settings.smtp_security == "tls":
            options["ssl_context"] = context
        else:
            options |= {"tls_context": context, "require_starttls": True}
    if settings.smtp_username and settings.smtp_password:
        username, password = settings.smtp_username, settings.smtp_password.get_secret_value()

        def authenticate(
            _server: object, _session: object, _envelope: object, _way: str, given: object
        ) -> AuthResult:
            matches = isinstance(given, LoginPassword) and all(
                secrets.compare_digest(*pair)
                for pair in ((given.login, username.encode()), (given.password, password.encode()))
            )
            return AuthResult(success=matches, handled=False)

        options |= {
            "authenticator": authenticate,
            "auth_required": True,
            # With tls the whole connection is encrypted, which aiosmtpd does not know.
            "auth_require_tls": settings.smtp_security == "starttls",
        }
    return Controller(
        _Handler(keep, failures),
        hostname=settings.listen_address,
        port=settings.smtp_port,
        data_size_limit=settings.max_message_bytes,
        ident="Fleetwatch lab mailbox",
        enable_SMTPUTF8=True,
        **options,
    )
