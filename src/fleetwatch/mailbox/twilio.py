"""The part of Twilio's API that sending text messages needs, with the error codes of the real one.

The numbers that Twilio's test credentials know behave alike here: ``+15005550001`` is an invalid number,
``+15005550009`` cannot receive text messages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from fleetwatch.mailbox.messages import Received

_MAX_BODY = 1600  # characters
_REFUSED = {
    "+15005550001": (21211, "The 'To' number {} is not a valid phone number."),
    "+15005550009": (21614, "To number: {} is not a mobile number"),
}


class TwilioError(Exception):
    """An answer in Twilio's error format."""

    def __init__(self, status: int, code: int, message: str) -> None:
        """Set the HTTP status, Twilio's error code, and the text."""
        super().__init__(message)
        self.status = status
        self.code = code

    def to_json(self) -> dict[str, Any]:
        """Return the body of the answer."""
        return {
            "code": self.code,
            "message": str(self),
            "more_info": f"https://www.twilio.com/docs/errors/{self.code}",
            "status": self.status,
        }


def parse(form: Mapping[str, str], raw: str, headers: Mapping[str, str]) -> Received:
    """Return the message; raise TwilioError as Twilio would."""
    to, body = form.get("To", ""), form.get("Body", "")
    sender = form.get("From") or form.get("MessagingServiceSid", "")
    if not to:
        raise TwilioError(400, 21604, "A 'To' phone number is required.")
    if not sender:
        raise TwilioError(400, 21603, "A 'From' phone number is required.")
    if not body:
        raise TwilioError(400, 21602, "Message body is required.")
    if len(body) > _MAX_BODY:
        raise TwilioError(400, 21617, "The concatenated message body exceeds the 1600 character limit.")
    code, text = _REFUSED.get(to, (0, ""))
    if not re.fullmatch(r"\+[1-9][0-9]{6,14}", to):
        code, text = _REFUSED["+15005550001"]
    if code:
        raise TwilioError(400, code, text.format(to))
    return Received(
        via="twilio",
        sender=sender,
        recipients=[to],
        subject=body.split("\n", 1)[0],
        text=body,
        html="",
        headers=dict(headers),
        raw=raw,
    )


def accepted(received: Received, sid: str, account: str) -> dict[str, Any]:
    """Return the body of the answer to a message that was taken."""
    now = format_datetime(datetime.now(UTC))
    by_service = received.sender.startswith("MG")
    return {
        "sid": sid,
        "account_sid": account,
        "api_version": "2010-04-01",
        "body": received.text,
        "date_created": now,
        "date_sent": None,
        "date_updated": now,
        "direction": "outbound-api",
        "error_code": None,
        "error_message": None,
        "from": None if by_service else received.sender,
        "messaging_service_sid": received.sender if by_service else None,
        "num_media": "0",
        "num_segments": "1",
        "price": None,
        "price_unit": "USD",
        "status": "accepted" if by_service else "queued",
        "to": received.recipients[0],
        "uri": f"/2010-04-01/Accounts/{account}/Messages/{sid}.json",
    }
