"""What callers may ask: parameters, checked, become a ``Question``."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema
from werkzeug.exceptions import BadRequest, NotFound

from fleetwatch.collector.usage.settings import Resource, UsageSettings
from fleetwatch.common.web import Query

POINTS_OF_AVERAGE = 10_000
"""About how many values of a host an average is made of, if no step is asked for."""
POINTS_OF_ANSWER = 1_500
"""About how many points of a host are answered, if no step is asked for."""

_SKEW = 60.0  # seconds by which the caller's clock may be ahead
_DAY = 86400
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": _DAY, "w": 7 * _DAY}
_STEPS = (1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, _DAY)

# A "+" that is not written as %2B arrives as a space.
_TIME = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[-+ ]\d\d:\d\d)$"
_RANGE = r"^\d{1,9}(\.\d{1,6})?[smhdw]?$"
_STEP = r"^\d{1,9}[smhdw]?$"
_NO_ZONE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)?")


def _time(value: object) -> object:
    if not isinstance(value, str):
        return value
    if _NO_ZONE.fullmatch(value):
        raise ValueError(
            "has no time zone: add Z for UTC, or the offset, as in 2026-01-02T03:04:05Z or "
            "2026-01-02T03:04:05+02:00 (in a URL + is written %2B)"
        )
    if not re.fullmatch(_TIME, value, re.ASCII):
        raise ValueError("is not a time in ISO 8601 with time zone, such as 2026-01-02T03:04:05Z")
    if value[-6] == " ":
        value = f"{value[:-6]}+{value[-5:]}"
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("is not a time that exists") from None


def _range(value: object) -> object:
    if not isinstance(value, str):
        return value
    if not re.fullmatch(_RANGE, value, re.ASCII):
        raise ValueError("is not a number of hours, such as 24, or a time such as 15m, 36h or 2d")
    number, unit = (value[:-1], value[-1]) if value[-1] in _UNITS else (value, "h")
    seconds = float(number) * _UNITS[unit]
    if seconds <= 0:
        raise ValueError("must be greater than zero")
    return seconds


def _step(value: object) -> object:
    if not isinstance(value, str):
        return value
    if not re.fullmatch(_STEP, value, re.ASCII):
        raise ValueError("is not a whole number of seconds, such as 60, or a time such as 30s, 5m or 1h")
    number, unit = (value[:-1], value[-1]) if value[-1] in _UNITS else (value, "s")
    seconds = int(number) * _UNITS[unit]
    if seconds < 1:
        raise ValueError("must be at least one second")
    return seconds


def _text(pattern: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": list(examples)})


Time = Annotated[datetime, BeforeValidator(_time), _text(_TIME, "2026-01-02T03:04:05Z")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]


class UsageQuery(Query):
    """Whose usage, of what, and when."""

    resource: Resource = Field(description="What is used")
    start: Time | None = Field(None, description="Begin of the time asked for, ISO 8601 with time zone")
    end: Time | None = Field(None, description="Its end, by default now")
    range: Annotated[float, BeforeValidator(_range), _text(_RANGE, "24", "15m", "2d")] | None = Field(
        None, description="Its length instead of `start`: hours as a number, or with a unit: s, m, h, d, w"
    )
    host: Name | None = Field(None, description="Only this host, by its name in the inventory")
    group: Name | None = Field(None, description="Only the hosts of this group of the inventory")
    step: Annotated[int, BeforeValidator(_step), _text(_STEP, "60", "5m")] | None = Field(
        None, description="Time between two values: seconds as a number, or with a unit: s, m, h, d, w"
    )


class PointsQuery(UsageQuery):
    """The same, and in which form."""

    format: Literal["json", "csv"] = Field("json", description="Form of the answer")


@dataclass(frozen=True)
class Question:
    """What is to be answered. Values are taken at the multiples of ``step`` after start, up to end."""

    resource: Resource
    start: float
    """Seconds since 1970."""
    end: float
    step: int
    """Seconds."""
    names: Sequence[str] | None
    """Hosts; ``None`` for all."""
    host: str | None = None
    group: str | None = None

    @property
    def first(self) -> int:
        """Return the time of the first value."""
        return math.floor(self.start / self.step) * self.step + self.step

    @property
    def last(self) -> int:
        """Return the time of the last value."""
        return math.floor(self.end / self.step) * self.step

    @property
    def steps(self) -> int:
        """Return how many values a host has at most; each stands for the step that it ends."""
        return (self.last - self.first) // self.step + 1

    @property
    def whose(self) -> str:
        """Say whose usage it is."""
        if self.host is not None:
            return f'host "{self.host}"'
        return "any host" if self.group is None else f'group "{self.group}"'


def question(query: UsageQuery, settings: UsageSettings, target: int, now: datetime) -> Question:
    """Return what a query asks for.

    target: about how many values a host is to have, if no step is asked for.

    Raises BadRequest for what makes no sense, NotFound for an unknown group.
    """
    start, end = _window(query, settings, now.timestamp())
    step = query.step or choose_step(end - start, target, settings.min_step)
    if step > end - start:
        raise BadRequest(f"step is longer than the time asked for ({_say(end - start)}): use a shorter step")
    names = _names(query, settings.groups)
    found = Question(query.resource, start, end, step, names, query.host, query.group)
    if found.steps > settings.max_points:
        fits = math.ceil((end - start) / settings.max_points)
        raise BadRequest(
            f"these are {found.steps} points of each host, more than the limit of {settings.max_points}: "
            f"use step={fits} or longer, or a shorter time"
        )
    return found


def _window(query: UsageQuery, settings: UsageSettings, now: float) -> tuple[float, float]:
    if query.range is not None and query.start is not None:
        raise BadRequest("range and start say the same: give one of them")
    if query.range is None and query.start is None:
        raise BadRequest(
            "start is missing: give start and end, or range=24 for the last 24 hours"
            if query.end is not None
            else "which time? Give start and end, or range=24 for the last 24 hours"
        )
    end = now if query.end is None else query.end.timestamp()
    start = end - query.range if query.range is not None else query.start.timestamp()  # type: ignore[union-attr]
    if query.start is not None and start > now + _SKEW:
        raise BadRequest(f"start is in the future; here it is {iso(now)}")
    if end > now + _SKEW:
        raise BadRequest(f"end is in the future; here it is {iso(now)}")
    end = min(end, now)
    if start >= end:
        raise BadRequest("start must be before end")
    if start < 0:
        raise BadRequest("the time asked for begins before 1970")
    if end - start > settings.max_range * _DAY:
        raise BadRequest(f"the time asked for is longer than the limit of {settings.max_range:g} days")
    return start, end


def _names(query: UsageQuery, groups: Mapping[str, Sequence[str]]) -> list[str] | None:
    if query.group is None:
        return None if query.host is None else [query.host]
    names = groups.get(query.group)
    if names is None:
        close = difflib.get_close_matches(query.group, groups, n=3)
        raise NotFound(
            f'there is no group "{query.group}"' + (f": did you mean {', '.join(close)}?" if close else "")
        )
    if query.host is not None and query.host not in names:
        raise NotFound(f'host "{query.host}" is not in the group "{query.group}"')
    if not names:
        raise NotFound(f'the group "{query.group}" has no hosts')
    return sorted(names) if query.host is None else [query.host]


def choose_step(seconds: float, target: int, shortest: int) -> int:
    """Return a usual step for about so many points, not below ``shortest`` and never above ``seconds``."""
    usual = next((step for step in _STEPS if step >= shortest and step * target >= seconds), None)
    if usual is None:
        usual = max(shortest, math.ceil(seconds / target / _DAY) * _DAY)
    return min(usual, max(1, int(seconds)))


def iso(at: float) -> str:
    """Return a time in seconds as ISO 8601 in UTC, with milliseconds only where there are any."""
    time = datetime.fromtimestamp(round(at, 3), UTC)
    text = time.isoformat(timespec="milliseconds" if time.microsecond else "seconds")
    return text.replace("+00:00", "Z")


def _say(seconds: float) -> str:
    unit = next(unit for unit, size in reversed(_UNITS.items()) if seconds >= size or unit == "s")
    return f"{seconds / _UNITS[unit]:g}{unit}"
