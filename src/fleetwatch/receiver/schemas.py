"""What the API takes and gives: models that check requests, form answers, and describe both in OpenAPI."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    RootModel,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from fleetwatch.alerting.types import Name
from fleetwatch.common.web import Query
from fleetwatch.receiver.webhook import Alert
from fleetwatch.store import Entry, Incident, State, Status, Transition, Watchdog, timeline
from fleetwatch.store.heartbeats import EXPECTED

MAX_LIMIT = 1000
MAX_TEXT = 10_000  # characters
MAX_FILTER = 1000  # characters
MAX_ID = 2**31 - 1


def iso(time: datetime) -> str:
    """Return a time as ISO 8601 in UTC with milliseconds, e.g. ``2026-01-02T03:04:05.678Z``."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _whole(value: object) -> object:
    """Take 17.0 for 17, as JSON Schema does."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Time = Annotated[
    datetime,
    PlainSerializer(iso, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-01-02T03:04:05.678Z"]}),
]
# PostgreSQL cannot keep a NUL.
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=MAX_TEXT)]
Filter = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=MAX_FILTER)]
LabelMatch = Annotated[str, StringConstraints(pattern=r"^[^=\x00]+=[^\x00]*$", max_length=MAX_FILTER)]
Cursor = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{6}$")]
Id = Annotated[int, Field(ge=1, le=MAX_ID), BeforeValidator(_whole)]


# Questions


class ListQuery(Query):
    """What every list takes."""

    limit: int = Field(100, ge=1, le=MAX_LIMIT, description="Most entries in one answer")
    cursor: Cursor | None = Field(None, description="`next` of the answer before, for the entries after it")

    @field_validator("limit", mode="before")
    @classmethod
    def _digits_only(cls, value: object) -> object:
        if isinstance(value, str) and not (value.isascii() and value.isdecimal()):
            raise ValueError(f"must be a number from 1 to {MAX_LIMIT}")
        return value


class IncidentQuery(ListQuery):
    """Which incidents."""

    status: Status | None = Field(None, description="Only those that fire, or are resolved")
    severity: Filter | None = Field(None, description="Only those of this severity", examples=["critical"])
    acknowledged: Literal["true", "false"] | None = Field(
        None, description="Only those that somebody has acknowledged, or nobody"
    )
    label: list[LabelMatch] = Field(
        default_factory=list,
        max_length=20,
        description="Only those with this label, as `name=value`; repeat it to demand several",
        examples=[["host=web1"]],
    )
    q: Filter = Field("", description="Only those with this text in the summary or in a label's value")


class DeadLetterQuery(ListQuery):
    """Which dead letters."""

    channel: Name | None = Field(None, description="Only those of this channel")


# Bodies


class Body(BaseModel):
    """Base of what may be sent: what is not known is refused, and nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class Remark(Body):
    """What the caller wants to say, if anything."""

    note: Text = Field("", description="A note for the timeline", examples=["restarting the database"])


class Note(Body):
    """A note for the timeline."""

    text: Annotated[Text, Field(min_length=1)] = Field(examples=["the disk is being replaced"])


class RequeueIds(Body):
    """Some dead letters."""

    ids: list[Id] = Field(min_length=1, max_length=MAX_LIMIT, examples=[[17, 18]])


class RequeueChannel(Body):
    """The dead letters of one channel."""

    channel: Name = Field(examples=["mail"])


def _only_true(value: bool) -> bool:
    if not value:
        raise ValueError("must be true")
    return value


class RequeueAll(Body):
    """All dead letters."""

    # Not Literal[True], which takes 1 as well.
    all: Annotated[bool, AfterValidator(_only_true), WithJsonSchema({"type": "boolean", "const": True})]


class RequeueRequest(RootModel[RequeueIds | RequeueChannel | RequeueAll]):
    """Which dead letters are to be tried again."""

    @model_validator(mode="wrap")
    @classmethod
    def _one_of(
        cls, value: Any, handler: ModelWrapValidatorHandler[RequeueRequest], _info: ValidationInfo
    ) -> RequeueRequest:
        try:
            return handler(value)
        except ValidationError:  # of three models, which would be hard to read
            raise ValueError('send {"ids": [17, 18]}, {"channel": "mail"} or {"all": true}') from None


class WebhookMessage(BaseModel):
    """Alertmanager's webhook, version 4. More fields are ignored; only `alerts` is needed."""

    model_config = ConfigDict(
        title="WebhookMessage",
        json_schema_extra={
            "examples": [
                {
                    "version": "4",
                    "receiver": "fleetwatch",
                    "externalURL": "http://alertmanager:9093",
                    "alerts": [
                        {
                            "status": "firing",
                            "labels": {"alertname": "HighCpu", "severity": "critical", "host": "web1"},
                            "annotations": {"summary": "CPU of web1 above 90 %"},
                            "startsAt": "2026-01-02T03:04:05.678Z",
                        }
                    ],
                },
            ]
        },
    )

    status: Literal["firing", "resolved"] = Field("firing", description="For alerts without a status")
    receiver: str = Field("", description="Alertmanager's receiver, by which routes choose")
    externalURL: str = Field("", description="Alertmanager's own URL")  # noqa: N815 - Alertmanager's name
    alerts: list[Alert] = Field(min_length=1)


# Answers


class Answer(BaseModel):
    """Base of answers; read from the tables' rows."""

    model_config = ConfigDict(from_attributes=True, json_schema_serialization_defaults_required=True)


class Problem(Answer):
    """Why a request was refused."""

    error: str = Field(examples=["limit: must be a number from 1 to 1000"])


class RefusedAlert(Answer):
    """An alert of the request that will never be accepted."""

    index: int = Field(description="Its position in `alerts`, from 0")
    reason: str


class AcceptedAlerts(Answer):
    """What became of the alerts; all that is accepted is on disk."""

    accepted: int = Field(description="Alerts that told something new: fired and resolved")
    fired: int
    resolved: int
    duplicates: int = Field(description="Alerts that told nothing new")
    heartbeats: int = Field(description="Watchdogs, which are never incidents")
    refused: list[RefusedAlert]


class HeartbeatAnswer(Answer):
    """Where heartbeats come from: one Prometheus or HA pair."""

    labels: dict[str, str] = Field(description="Labels of its Watchdog; empty when none has ever come")
    last_heartbeat: Time | None = Field(description="When it last came; `null` when none has ever come")
    missing: bool = Field(description="Whether there is an incident because of it")

    @classmethod
    def of(cls, row: Watchdog) -> HeartbeatAnswer:
        """Form the answer of a table's row."""
        last = None if row.fingerprint == EXPECTED else row.beat_at
        return cls(labels=row.labels, last_heartbeat=last, missing=row.missing)


class HeartbeatList(Answer):
    """All sources of heartbeats."""

    heartbeats: list[HeartbeatAnswer]


class NotificationAnswer(Answer):
    """A message: one transition of one incident on one channel."""

    id: int
    transition: Transition
    channel: str
    state: State
    attempts: int = Field(description="Attempts begun")
    queued_at: Time
    next_attempt_at: Time | None = Field(None, validation_alias="due_at", description="While it is queued")
    sent_at: Time | None
    last_error: str | None
    provider_id: str | None = Field(description="What the provider calls the message")

    @model_validator(mode="after")
    def _next_only_if_queued(self) -> NotificationAnswer:
        if self.state is not State.QUEUED:
            self.next_attempt_at = None
        return self


class IncidentCore(Answer):
    """What every form of an incident tells."""

    id: int
    fingerprint: str
    status: Status
    severity: str = Field(examples=["critical"])
    summary: str


class IncidentAnswer(IncidentCore):
    """One occurrence of an alert."""

    labels: dict[str, str]
    annotations: dict[str, str]
    receiver: str = Field(description="Alertmanager's receiver")
    generator_url: str = Field(description="The alert's graph in Prometheus")
    external_url: str = Field(description="Alertmanager; empty for an alert that was posted by hand")
    fired_at: Time = Field(validation_alias="starts_at", description="When it began, says Alertmanager")
    received_at: Time = Field(description="When the first report was committed")
    resolved_at: Time | None = Field(
        validation_alias="ends_at", description="When it was over, says Alertmanager"
    )
    resolved_received_at: Time | None = Field(description="When the end was committed")
    resolved_by: str | None = Field(
        description="Who resolved it by hand, or `reconciliation`; null for Alertmanager's message"
    )
    acknowledged_at: Time | None
    acknowledged_by: str | None
    silenced: str | None = Field(
        description="`silenced` or `inhibited` while Alertmanager suppresses its messages"
    )
    reopened: int = Field(description="How often it fired again after its end had been told")
    notifications: list[NotificationAnswer]


class EntryAnswer(Answer):
    """One line of a timeline."""

    at: Time
    kind: str = Field(
        description="fired, received, resolved, notified, waiting, retried, parked, requeued, acknowledged, "
        "note, reopened, silenced, unsilenced",
        examples=["acknowledged"],
    )
    author: str | None = Field(description="Who did it, null for the program")
    channel: str | None = Field(description="Of a message that went out or waits")
    transition: Transition | None = Field(description="What that message tells of")
    text: str


class IncidentDetails(IncidentAnswer):
    """An incident with all that happened to it."""

    timeline: list[EntryAnswer]

    @classmethod
    def of(cls, incident: Incident) -> IncidentDetails:
        """Return the answer for an incident of ``Desk.incident``."""
        entries: list[Entry] = timeline(incident)
        return cls.model_construct(
            **IncidentAnswer.model_validate(incident).__dict__,
            timeline=[EntryAnswer.model_validate(entry) for entry in entries],
        )


class IncidentList(Answer):
    """A part of the list of incidents."""

    incidents: list[IncidentAnswer]
    next: str | None = Field(
        description="The `cursor` that asks for the entries after these; null at the end"
    )


class DeadLetter(NotificationAnswer):
    """A message that was given up."""

    incident: IncidentCore


class DeadLetterList(Answer):
    """A part of the list of dead letters."""

    dead_letters: list[DeadLetter]
    next: str | None = Field(
        description="The `cursor` that asks for the entries after these; null at the end"
    )


class Requeued(Answer):
    """What became of a request to try again."""

    requeued: int = Field(description="How many messages are queued again")
