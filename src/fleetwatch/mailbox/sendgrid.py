"""The part of SendGrid's v3 API that sending mail needs: requests checked and answered as SendGrid does."""

from __future__ import annotations

import json
import re
from typing import Any

from fleetwatch.mailbox.messages import Received

_MAX_RECIPIENTS = 1000


class ApiError(Exception):
    """An answer in SendGrid's error format."""

    def __init__(self, status: int, message: str, field: str | None = None) -> None:
        """Set the HTTP status, the text, and the field that is wrong."""
        super().__init__(message)
        self.status = status
        self.field = field

    def to_json(self) -> dict[str, Any]:
        """Return the body of the answer."""
        return {"errors": [{"message": str(self), "field": self.field, "help": None}]}


def parse(body: bytes) -> list[Received]:
    """Return one message for each personalization; raise ApiError(400) as SendGrid would."""
    try:
        mail = json.loads(body)
    except (ValueError, RecursionError):
        raise ApiError(400, "Bad Request") from None
    if not isinstance(mail, dict):
        raise ApiError(400, "Bad Request")
    sender = _address(mail.get("from"), "from")
    parts = _content(mail.get("content"))
    personalizations = mail.get("personalizations")
    if not isinstance(personalizations, list) or not personalizations:
        raise ApiError(
            400,
            "The personalizations field is required and must have at least one personalization.",
            "personalizations",
        )
    return [
        _message(personalization, f"personalizations.{index}", mail, sender, parts)
        for index, personalization in enumerate(personalizations)
    ]


def _message(
    personalization: object, where: str, mail: dict[str, Any], sender: str, parts: dict[str, str]
) -> Received:
    if not isinstance(personalization, dict):
        raise ApiError(400, "A personalization must be an object.", where)
    recipients: list[str] = []
    for kind in ("to", "cc", "bcc"):
        entries = personalization.get(kind, [])
        if not isinstance(entries, list) or (kind == "to" and not entries):
            raise ApiError(
                400,
                "The to array is required for all personalization objects, and must have at least one email "
                "object with a valid email address.",
                f"{where}.{kind}",
            )
        recipients += [_address(entry, f"{where}.{kind}.{index}") for index, entry in enumerate(entries)]
    bare = [re.sub(r"^.*<|>$", "", recipient).lower() for recipient in recipients]
    if len(set(bare)) < len(bare):
        raise ApiError(
            400,
            "Each email address in the personalization block should be unique between to, cc, and bcc.",
            where,
        )
    if len(bare) > _MAX_RECIPIENTS:
        raise ApiError(400, f"The personalization block is limited to {_MAX_RECIPIENTS} recipients.", where)
    subject = personalization.get("subject") or mail.get("subject")
    if not isinstance(subject, str) or not subject:
        raise ApiError(400, "The subject is required.", "subject")
    return Received(
        via="sendgrid",
        sender=sender,
        recipients=recipients,
        subject=subject,
        text=parts.get("text/plain", ""),
        html=parts.get("text/html", ""),
        headers=_texts(mail, "headers") | _texts(personalization, "headers"),
        custom_args=_texts(mail, "custom_args") | _texts(personalization, "custom_args"),
    )


def _content(content: object) -> dict[str, str]:
    if not isinstance(content, list) or not content:
        raise ApiError(400, "The content field is required.", "content")
    parts: dict[str, str] = {}
    for index, part in enumerate(content):
        kind, value = (part.get("type"), part.get("value")) if isinstance(part, dict) else (None, None)
        if not isinstance(kind, str) or not kind:
            raise ApiError(400, "The content type is required.", f"content.{index}.type")
        if not isinstance(value, str) or not value:
            raise ApiError(
                400,
                "The content value must be a string at least one character in length.",
                f"content.{index}.value",
            )
        if kind in parts:
            raise ApiError(400, "If present, text/plain and text/html may only be provided once.", "content")
        if kind == "text/plain" and parts:
            raise ApiError(
                400, "The following content types must be in this order: text/plain, text/html.", "content"
            )
        parts[kind] = value
    return parts


def _address(value: object, where: str) -> str:
    email = value.get("email") if isinstance(value, dict) else None
    if not isinstance(email, str) or not re.fullmatch(r"[^@\s<>]+@[^@\s<>]+", email):
        raise ApiError(400, "Does not contain a valid address.", f"{where}.email")
    name = value.get("name") if isinstance(value, dict) else None
    return f"{name} <{email}>" if isinstance(name, str) and name else email


def _texts(holder: dict[str, Any], name: str) -> dict[str, str]:
    values = holder.get(name, {})
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise ApiError(400, f"The {name} must be an object of strings.", name)
    return values
