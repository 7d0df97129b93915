"""Reading Alertmanager's webhook, version 4, and what people post by hand.

Fields that are not known are ignored, since Alertmanager adds some without raising the version. Each
alert is judged alone: a bad one is refused with its reason and never costs the others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fleetwatch.alerting.labels import fingerprint
from fleetwatch.store import AlertEvent, Status
from fleetwatch.store.alert_event import storable

_ZERO_YEAR = 1  # Go's zero time is in the year 1: "not set"


class WebhookError(Exception):
    """The whole request is refused, and would be again if it were repeated."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        """Set the HTTP status, a short constant name for the metrics, and a text for people."""
        super().__init__(message)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Refused:
    """One alert of a batch that cannot be accepted."""

    index: int
    """Position in ``alerts``, from 0."""
    reason: str


@dataclass
class Batch:
    """What a request holds."""

    events: list[AlertEvent] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    truncated: int = 0
    """Alerts that Alertmanager left out of the request, because its ``max_alerts`` is not 0."""


def _scalars_to_text(value: object) -> object:
    """Accept ``{"value": 95, "paged": true}`` from people; Alertmanager only sends strings."""
    if not isinstance(value, dict):
        return value
    return {name: _scalar_to_text(item) for name, item in value.items() if item is not None}


def _scalar_to_text(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _not_set(value: object) -> object:
    return None if value == "" or (isinstance(value, str) and value.startswith("0001-01-01")) else value


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _empty_if_none(value: object) -> object:
    return "" if value is None else value


Texts = Annotated[dict[str, str], BeforeValidator(_scalars_to_text)]
Time = Annotated[datetime | None, BeforeValidator(_not_set)]
Text = Annotated[str, BeforeValidator(_empty_if_none)]


class Alert(BaseModel):
    """One alert of a message; only `labels` are needed."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    status: Annotated[Literal["firing", "resolved"], BeforeValidator(_lower)] = "firing"
    labels: Texts = Field(min_length=1)
    annotations: Texts | None = None
    starts_at: Time = Field(None, alias="startsAt")
    ends_at: Time = Field(None, alias="endsAt")
    generator_url: Text = Field("", alias="generatorURL")
    fingerprint: Text = Field("", max_length=128)


def parse(body: bytes, max_alerts: int, traceparent: str | None = None) -> Batch:
    """Return the alerts of a request's body; raise WebhookError when nothing in it can be used.

    traceparent: W3C trace context that the messages will belong to.
    """
    try:
        payload = json.loads(body)
        if rb"\u0000" in body:
            payload = _without_nul(payload)
    except (ValueError, RecursionError) as error:
        detail = str(error) if isinstance(error, json.JSONDecodeError) else "it cannot be decoded"
        raise WebhookError(400, "bad_json", f"the body is not JSON: {detail}") from None
    if not isinstance(payload, dict):
        raise WebhookError(400, "bad_request", 'the body must be a JSON object with a list "alerts"')
    alerts = payload.get("alerts")
    if not isinstance(alerts, list) or not alerts:
        raise WebhookError(
            400,
            "bad_request",
            '"alerts" must be a list of at least one alert, e.g. '
            '{"alerts": [{"status": "firing", "labels": {"alertname": "Test"}}]}',
        )
    if len(alerts) > max_alerts:
        raise WebhookError(
            413, "too_many_alerts", f"the request has {len(alerts)} alerts, the limit is {max_alerts}"
        )
    batch = Batch(truncated=_count(payload.get("truncatedAlerts")))
    for index, alert in enumerate(alerts):
        try:
            batch.events.append(_event(alert, payload, traceparent))
        except ValidationError as error:
            batch.refused.append(Refused(index, _explain(error)))
        except (ValueError, OverflowError) as error:
            batch.refused.append(Refused(index, str(error)))
    if not batch.events:
        reasons = "; ".join(f"alerts[{refused.index}]: {refused.reason}" for refused in batch.refused[:10])
        raise WebhookError(400, "bad_alert", f"no alert can be used: {reasons}")
    return batch


def _event(raw: object, payload: dict[str, Any], traceparent: str | None) -> AlertEvent:
    if not isinstance(raw, dict):
        raise ValueError("an alert must be a JSON object")  # noqa: TRY004 - the data is wrong, not the program
    group_status = payload.get("status") or Status.FIRING
    alert = Alert.model_validate({"status": group_status, **raw}, by_alias=True)
    _check_unicode(alert)
    # Alertmanager escapes the receiver's name as a regular expression: "web.hook" comes as "web\.hook".
    receiver = _text(payload.get("receiver")).replace("\\", "")
    return AlertEvent(
        status=Status(alert.status),
        fingerprint=alert.fingerprint or fingerprint(alert.labels),
        labels=alert.labels,
        annotations=alert.annotations or {},
        starts_at=_utc(alert.starts_at),
        ends_at=_utc(alert.ends_at),
        generator_url=alert.generator_url,
        external_url=_text(payload.get("externalURL")),
        receiver=receiver,
        traceparent=traceparent,
    )


def _without_nul(value: Any) -> Any:
    """Replace the NUL character in all texts: PostgreSQL has no place for it, but the alert counts."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [_without_nul(each) for each in value]
    if isinstance(value, dict):
        return {_without_nul(name): _without_nul(each) for name, each in value.items()}
    return value


def _check_unicode(alert: Alert) -> None:
    """Refuse lone surrogates, which JSON can express, but neither a database nor a mail can hold."""
    annotations = alert.annotations or {}
    try:
        for text in (*alert.labels, *alert.labels.values(), *annotations, *annotations.values()):
            text.encode()
        (alert.fingerprint + alert.generator_url).encode()
    except UnicodeEncodeError:
        raise ValueError("a text holds half of a surrogate pair, which is not Unicode") from None


def _text(value: object) -> str:
    """Return a string that can be stored."""
    return storable(value) if isinstance(value, str) else ""


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _utc(time: datetime | None) -> datetime | None:
    """Return the time in UTC, ``None`` for a time that was not set; one without a zone is taken as UTC."""
    if time is None:
        return None
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return None if time.year == _ZERO_YEAR else time


def _explain(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in detail['loc'])}: {detail['msg']}"
        for detail in error.errors(include_input=False, include_url=False)
    )
