"""Mail through SendGrid's v3 API, with the official client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast
from urllib.request import Request

import python_http_client  # type: ignore[import-untyped]
from sendgrid import SendGridAPIClient  # type: ignore[import-untyped]
from sendgrid.helpers.mail import (  # type: ignore[import-untyped]
    Content,
    CustomArg,
    Email,
    From,
    Mail,
    Personalization,
)

from fleetwatch.alerting.channels import SendGridSettings
from fleetwatch.dispatcher.channels import DeliveryError, Message
from fleetwatch.dispatcher.channels.http import Answer, Client

KEY = "fleetwatch_notification"
"""The custom argument that carries ``Message.key``; SendGrid returns it in its event webhook."""

_ACCEPTED = 202


class SendGrid:
    """One mail to all recipients."""

    templates: ClassVar[tuple[str, ...]] = ("mail.subject", "mail.txt", "mail.html")

    def __init__(self, settings: SendGridSettings, api_key: str) -> None:
        """Set sender, recipients and key."""
        self._settings = settings
        self._api_key = api_key
        self._client = Client("SendGrid", settings.timeout, secrets=[api_key])

    def send(self, message: Message) -> str | None:
        """Deliver; see Channel. The message is named by SendGrid's X-Message-Id."""
        api = SendGridAPIClient(self._api_key, self._settings.host)
        api.client = _Transport(self._client, api.client.host, api.client.request_headers, version=3)
        response = api.send(self._mail(message))
        answer = Answer(response.status_code, response.headers, response.body)
        if answer.status == _ACCEPTED:
            return answer.headers.get("X-Message-Id")
        if answer.ok:
            # For example somebody's home page. It may have been taken, so do not repeat it.
            raise DeliveryError(
                f"SendGrid answered {answer.status} where 202 was expected: check the channel's host",
                permanent=True,
            )
        raise self._client.error(answer, _reason(answer))

    def _mail(self, message: Message) -> dict[str, object]:
        settings = self._settings
        mail = Mail(
            from_email=From(settings.sender, settings.sender_name),
            subject=" ".join(message.parts["mail.subject"].split()),
        )
        to = Personalization()
        for recipient in settings.recipients:
            to.add_to(Email(recipient))
        mail.add_personalization(to)
        mail.add_content(Content("text/plain", message.parts["mail.txt"]))
        mail.add_content(Content("text/html", message.parts["mail.html"]))
        mail.add_custom_arg(CustomArg(KEY, message.key))
        body: dict[str, object] = mail.get()
        return body


class _Transport(python_http_client.Client):  # type: ignore[misc] # it has no types
    """The official client's requests on the channels' own transport.

    Its own one would follow a redirect with the key, and wait for ever for an answer that never ends.
    """

    def __init__(self, http: Client, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._http = http

    def _build_client(self, name: str | None = None) -> _Transport:
        path = [*self._url_path, name] if name else self._url_path
        return _Transport(self._http, self.host, self.request_headers, self._version, path)

    def _make_request(self, _opener: object, request: Request, timeout: object = None) -> _Response:  # noqa: ARG002 - the signature is the client's
        return _Response(
            self._http.post(request.full_url, cast(bytes, request.data), dict(request.header_items()))
        )


@dataclass(frozen=True)
class _Response:
    """An answer as the official client takes it: that of urllib."""

    answer: Answer

    def getcode(self) -> int:
        return self.answer.status

    def info(self) -> Mapping[str, str]:
        return self.answer.headers

    def read(self) -> bytes:
        return self.answer.body


def _reason(answer: Answer) -> str | None:
    """Return the messages of SendGrid's error format, if it is that."""
    document = answer.json()
    errors = document.get("errors") if isinstance(document, dict) else None
    if not isinstance(errors, list):
        return None
    return "; ".join(
        f"{error.get('message')} ({error['field']})" if error.get("field") else str(error.get("message"))
        for error in errors
        if isinstance(error, dict)
    )
