"""Which alert goes to which channel, and when: the routes.

The routes are tried from the first to the last. The first that matches is taken, and the next ones too as
long as ``continue`` is set, as in Alertmanager. A channel that two routes name gets one message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field, PrivateAttr, StringConstraints, model_validator

from fleetwatch.alerting.matchers import Matcher, parse
from fleetwatch.alerting.types import Name, Named, Part, unique_names
from fleetwatch.common.settings import Seconds

DEFAULT_RECEIVER = "fleetwatch"
"""Alertmanager's receiver for alerts."""

SILENT_RECEIVER = "fleetwatch-verify"
"""Alertmanager's receiver for test alerts, which are recorded and announced to nobody."""

WATCHDOG_RECEIVER = "fleetwatch-watchdog"
"""Alertmanager's receiver for the alert that always fires: a heartbeat, never an incident."""

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
Day = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
ClockTime = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]


def _known_zone(name: str) -> str:
    if name != "UTC" and name not in available_timezones():
        raise ValueError("not a time zone such as Europe/Berlin or UTC")
    return name


def _known_matcher(text: str) -> str:
    parse(text)
    return text


class QuietHours(Part):
    """When messages wait for the morning, unless their severity is exempt."""

    start: ClockTime = Field(description="First minute of the quiet time, HH:MM")
    end: ClockTime = Field(description="First minute after it, HH:MM; before start, it is on the next day")
    timezone: Annotated[str, AfterValidator(_known_zone)] = Field(
        "UTC", description="Time zone of both, as Europe/Berlin"
    )
    days: list[Day] = Field(
        default_factory=lambda: list(_DAYS),  # type: ignore[arg-type]
        min_length=1,
        description="Days on which a quiet time begins",
    )
    except_severities: list[str] = Field(
        default_factory=lambda: ["critical"], description="Severities that do not wait"
    )

    @model_validator(mode="after")
    def _lasts(self) -> QuietHours:
        if self.start == self.end:
            raise ValueError("start and end of quiet_hours are the same time")
        return self

    def over(self, now: datetime) -> datetime:
        """Return when the quiet time that ``now`` is in ends, or ``now`` itself."""
        local = now.astimezone(ZoneInfo(self.timezone))
        start, end = time.fromisoformat(self.start), time.fromisoformat(self.end)
        # A quiet time that began yesterday may still last.
        for begins in (local.date() - timedelta(days=1), local.date()):
            if _DAYS[begins.weekday()] not in self.days:
                continue
            ends = begins + timedelta(days=1) if end <= start else begins
            first = datetime.combine(begins, start, local.tzinfo)
            last = datetime.combine(ends, end, local.tzinfo)
            # In UTC, since a difference within one zone would ignore the change to summer time.
            if first.astimezone(UTC) <= now.astimezone(UTC) < last.astimezone(UTC):
                return last.astimezone(UTC)
        return now


class Escalation(Part):
    """Whom to tell when nobody has acknowledged in time."""

    after: Seconds = Field(description="Seconds after the first message")
    channels: list[Name] = Field(min_length=1, description="Channels that are told then")


class Route(Named):
    """One rule of where alerts go."""

    receivers: list[str] = Field(
        default_factory=list, description="Alertmanager's receiver names this is for; empty is all"
    )
    matchers: list[Annotated[str, AfterValidator(_known_matcher)]] = Field(
        default_factory=list, description='Conditions on labels, all to be met, as severity="critical"'
    )
    channels: list[Name] = Field(description="Channels that are told; none records without a message")
    continue_: bool = Field(False, alias="continue", description="Whether later routes are tried as well")
    send_resolved: bool = Field(True, description="Whether the end is told too")
    reminder_interval: Seconds | None = Field(
        None, ge=60, description="Repeat the message so often until acknowledged, in seconds; null never"
    )
    quiet_hours: QuietHours | None = Field(None, description="When messages wait, except the urgent ones")
    escalations: list[Escalation] = Field(
        default_factory=list, description="Whom to tell when nobody has acknowledged in time"
    )
    _matchers: tuple[Matcher, ...] = PrivateAttr(())

    def model_post_init(self, _context: object) -> None:
        """Prepare the matchers."""
        self._matchers = tuple(map(parse, self.matchers))

    def matches(self, receiver: str, labels: Mapping[str, str]) -> bool:
        """Tell whether an alert takes this route."""
        return (not self.receivers or receiver in self.receivers) and all(
            matcher.matches(labels) for matcher in self._matchers
        )

    def due(self, severity: str, now: datetime) -> datetime:
        """Return when a message of this severity may go out."""
        if self.quiet_hours is None or severity in self.quiet_hours.except_severities:
            return now
        return self.quiet_hours.over(now)

    def used_channels(self) -> set[str]:
        """Return every channel it may use."""
        return {*self.channels, *(name for step in self.escalations for name in step.channels)}


Routes = Annotated[list[Route], AfterValidator(unique_names)]


@dataclass(frozen=True)
class Planned:
    """A message to be queued."""

    transition: str
    """``firing``, ``resolved``, ``reminder`` or ``escalation``."""
    channel: str
    route: str
    due_at: datetime
    sequence: int = 0
    """Number of the reminder or the escalation step, from 0."""


class Router:
    """Finds the messages that each change of an incident asks for."""

    def __init__(self, routes: Sequence[Route], channels: Iterable[str]) -> None:
        """Take the routes; without any, every channel is told of everything."""
        default = Route.model_validate({"name": "default", "channels": list(channels)})
        self._routes = {route.name: route for route in routes or [default]}

    def route(self, name: str) -> Route | None:
        """Return a route by its name, ``None`` when it is no longer there."""
        return self._routes.get(name)

    def routes(self, receiver: str, labels: Mapping[str, str]) -> list[Route]:
        """Return the routes that an alert takes."""
        taken: list[Route] = []
        if receiver == SILENT_RECEIVER:
            return taken
        for route in self._routes.values():
            if route.matches(receiver, labels):
                taken.append(route)
                if not route.continue_:
                    break
        return taken

    def firing(self, receiver: str, labels: Mapping[str, str], severity: str, now: datetime) -> list[Planned]:
        """Return what to queue when an alert fires: the message, and escalations for later."""
        planned: dict[tuple[str, str, int], Planned] = {}
        for route in self.routes(receiver, labels):
            due = route.due(severity, now)
            for channel in route.channels:
                planned.setdefault(("firing", channel, 0), Planned("firing", channel, route.name, due))
            for step, escalation in enumerate(route.escalations):
                later = due + timedelta(seconds=escalation.after)
                for channel in escalation.channels:
                    planned.setdefault(
                        ("escalation", channel, step),
                        Planned("escalation", channel, route.name, later, step),
                    )
        return list(planned.values())

    def resolved(
        self, receiver: str, labels: Mapping[str, str], severity: str, now: datetime
    ) -> list[Planned]:
        """Return what to queue for the end of an alert whose beginning never came."""
        planned: dict[str, Planned] = {}
        for route in self.routes(receiver, labels):
            if route.send_resolved:
                due = route.due(severity, now)
                for channel in route.channels:
                    planned.setdefault(channel, Planned("resolved", channel, route.name, due))
        return list(planned.values())
