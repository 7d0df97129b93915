"""Mail through a mail server."""

from __future__ import annotations

import base64
import hashlib
import logging
import smtplib
import ssl
from contextlib import suppress
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import localtime
from functools import cache, cached_property
from typing import ClassVar

from fleetwatch.alerting.channels import SmtpSettings
from fleetwatch.dispatcher.channels import ATTEMPT, DeliveryError, Message, header_value
from fleetwatch.dispatcher.channels.deadline import deadline
from fleetwatch.dispatcher.channels.http import redact

log = logging.getLogger(__name__)

_MAX_DETAIL = 300  # characters of a reply that are quoted


class Smtp:
    """One mail to all recipients, each time on a connection of its own."""

    templates: ClassVar[tuple[str, ...]] = ("mail.subject", "mail.txt", "mail.html")

    def __init__(self, settings: SmtpSettings, password: str | None = None) -> None:
        """Set server, sender and recipients.

        password: that of ``settings.username``, where there is one.
        """
        self._settings = settings
        self._password = password or ""
        plain = f"\0{settings.username}\0{self._password}"
        self._secrets = [
            text
            for text in (base64.b64encode(plain.encode()).decode(), self._password)
            if self._password and text
        ]

    def send(self, message: Message) -> str | None:
        """Deliver; see Channel. The message is named by its Message-ID.

        Recipients that the server refuses while it takes others are logged. That is success: a retry would
        send the mail to the others again.
        """
        mail = self._mail(message)
        try:
            refused = self._submit(mail)
        except smtplib.SMTPRecipientsRefused as error:
            raise self._all_refused(error.recipients) from None
        except smtplib.SMTPResponseException as error:
            raise DeliveryError(
                f"The mail server answered {self._reply(error.smtp_code, error.smtp_error)}",
                permanent=_permanent(error.smtp_code),
            ) from None
        except UnicodeEncodeError:  # its text could hold the password
            raise DeliveryError(
                "The user or the password at the mail server holds other characters than ASCII's, which "
                "cannot be sent: choose another",
                permanent=True,
            ) from None
        except OSError as error:
            # Also a server that does not offer what is wanted, or a certificate that has run out: that is
            # cured there, and then the mail shall go out.
            reason = redact(str(error) or type(error).__name__, self._secrets)[:_MAX_DETAIL]
            raise DeliveryError(f"The mail server cannot be used: {reason}") from None
        if refused:
            reasons = {to: self._reply(*reply) for to, reply in refused.items()}
            log.warning("some recipients were refused", extra={"refused": reasons})
        return str(mail["Message-ID"])

    def _submit(self, mail: EmailMessage) -> dict[str, tuple[int, bytes]]:
        """Send; return the recipients that were refused although others were taken."""
        settings = self._settings
        client = (
            smtplib.SMTP_SSL(timeout=settings.timeout, local_hostname=_own_name(), context=self._tls)
            if settings.security == "tls"
            else smtplib.SMTP(timeout=settings.timeout, local_hostname=_own_name())
        )
        # The name to find in the certificate, which connect() leaves unset.
        client._host = settings.host  # type: ignore[attr-defined]
        with deadline(ATTEMPT * settings.timeout, client):
            try:
                self._greet(client)
                return client.send_message(mail, settings.sender, settings.recipients)
            finally:
                # What QUIT is answered changes nothing about the mail.
                with suppress(OSError):  # smtplib's errors are among them
                    client.quit()
                client.close()

    def _greet(self, client: smtplib.SMTP) -> None:
        settings = self._settings
        code, reply = client.connect(settings.host, settings.port)
        if code != 220:  # noqa: PLR2004 - SMTP's "ready"
            raise smtplib.SMTPConnectError(code, reply)
        if settings.security == "starttls":
            client.starttls(context=self._tls)
        if settings.username:
            client.login(settings.username, self._password)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._settings.ca_file)
        except OSError as error:
            reason = error.strerror or "not a PEM file of certificates"
            raise DeliveryError(f"setting ca_file: cannot use {self._settings.ca_file}: {reason}") from None

    def _mail(self, message: Message) -> EmailMessage:
        settings, key = self._settings, header_value(message.key)
        digest = hashlib.sha256(f"{settings.name} {key}".encode()).hexdigest()[:32]
        name, _, domain = settings.sender.rpartition("@")
        mail = EmailMessage()
        mail["From"] = Address(settings.sender_name, name, domain)
        mail["To"] = [Address("", *_split(recipient)) for recipient in settings.recipients]
        mail["Subject"] = " ".join(message.parts["mail.subject"].split())
        mail["Date"] = localtime()
        # The same in each attempt, by which mail programs know a mail that came twice.
        mail["Message-ID"] = f"<{digest}@{domain}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail["X-Fleetwatch-Notification"] = key
        mail.set_content(message.parts["mail.txt"], cte="quoted-printable")
        mail.add_alternative(message.parts["mail.html"], subtype="html", cte="quoted-printable")
        return mail

    def _all_refused(self, recipients: dict[str, tuple[int, bytes]]) -> DeliveryError:
        first, reply = next(iter(recipients.items()))
        more = f" (and {len(recipients) - 1} more)" if len(recipients) > 1 else ""
        return DeliveryError(
            f"The mail server refused {first}{more}: {self._reply(*reply)}",
            permanent=all(_permanent(code) for code, _ in recipients.values()),
        )

    def _reply(self, code: int, text: bytes | str) -> str:
        words = text.decode(errors="replace") if isinstance(text, bytes) else text
        return f"{code}: {redact(words, self._secrets)[:_MAX_DETAIL]}"


@cache
def _own_name() -> str:
    """Return the name for EHLO; found once, since that may ask the DNS."""
    return smtplib.SMTP().local_hostname


def _permanent(code: int) -> bool:
    return 500 <= code < 600  # noqa: PLR2004 - SMTP's classes


def _split(address: str) -> tuple[str, str]:
    name, _, domain = address.rpartition("@")
    return name, domain
