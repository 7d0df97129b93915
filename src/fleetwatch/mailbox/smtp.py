"""The SMTP server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as policy

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from fleetwatch.mailbox.failure import FailureSwitch
from fleetwatch.mailbox.messages import Received

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
        if failure.mode == "timeout":
            await asyncio.sleep(failure.seconds)
        if isinstance(server.transport, asyncio.WriteTransport):
            server.transport.abort()
        return "421 4.3.0 Closing connection"


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


def server(address: str, port: int, max_bytes: int, keep: Keep, failures: FailureSwitch) -> Controller:
    """Return an SMTP server that runs in a thread of its own after ``start()``."""
    return Controller(
        _Handler(keep, failures),
        hostname=address,
        port=port,
        data_size_limit=max_bytes,
        ident="Fleetwatch lab mailbox",
        enable_SMTPUTF8=True,
    )
