"""How the API misbehaves: which share of its requests fails, and how slow they are.

The settings say it for every day. For a while, an hour at most, ``behaviour.json`` in ``state_directory``
says otherwise; all instances read it when it changes. When its time is over the settings hold again, without
anybody's help: an experiment that is forgotten ends by itself.
"""

from __future__ import annotations

import json
import logging
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fleetwatch.common.web import explain
from fleetwatch.demo.settings import Latency, Rate, Settings

if TYPE_CHECKING:
    import argparse

LONGEST_LATENCY = 30.0
"""Seconds; a log-normal distribution has no end of its own."""
LONGEST_CHANGE = 3600
"""Seconds."""
FILE = "behaviour.json"

_CLOCK_TOLERANCE = 5.0  # seconds that a clock may be set back before a change no longer counts

log = logging.getLogger(__name__)


class Change(BaseModel):
    """What shall be different for a while."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    error_rate: Rate | None = Field(None, description="Share of the requests for transactions that fail")
    latency: Latency | None = Field(None, description="Seconds added to them: median of the distribution")
    seconds: Annotated[float, Field(ge=1, le=LONGEST_CHANGE, allow_inf_nan=False)] = Field(
        description="After so many seconds the settings hold again"
    )

    @model_validator(mode="after")
    def _changes_something(self) -> Change:
        if self.error_rate is None and self.latency is None:
            raise ValueError("give error_rate or latency, or both")
        return self


class _Written(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid")

    error_rate: Rate | None
    latency: Latency | None
    written_at: float
    """Unix time."""
    until: float
    """Unix time."""

    @property
    def end(self) -> float:
        """Return when it ends, whoever wrote it."""
        return min(self.until, self.written_at + LONGEST_CHANGE)


class Current(BaseModel):
    """What holds now."""

    error_rate: Rate = Field(description="Share of the requests for transactions that fail")
    latency: Latency = Field(description="Seconds added to them: median of the distribution")
    until: datetime | None = Field(
        description="When the settings hold again; null: they do, or there is nothing else"
    )


class Behaviour:
    """The behaviour of all instances on this host."""

    def __init__(self, settings: Settings, now: Callable[[], float] = time.time) -> None:
        """Read nothing yet. ``now`` returns Unix time."""
        self._settings = settings
        self._file = settings.state_directory / FILE
        self._now = now
        self._known: tuple[tuple[int, int], _Written | None] | None = None

    def current(self) -> Current:
        """Return what holds now."""
        written = self._read()
        now = self._now()
        if written is None or not written.written_at - _CLOCK_TOLERANCE <= now < written.end:
            return Current(error_rate=self._settings.error_rate, latency=self._settings.latency, until=None)
        return Current(
            error_rate=_or(written.error_rate, self._settings.error_rate),
            latency=_or(written.latency, self._settings.latency),
            until=datetime.fromtimestamp(written.end, UTC),
        )

    def change(self, change: Change) -> Current:
        """Let a change hold, instead of any before it; return what holds now. Raises OSError."""
        now = self._now()
        written = _Written(
            error_rate=change.error_rate,
            latency=change.latency,
            written_at=now,
            until=now + change.seconds,
        )
        _replace(self._file, written.model_dump_json())
        return self.current()

    def reset(self) -> Current:
        """Let the settings hold again; return them. Raises OSError."""
        self._file.unlink(missing_ok=True)
        return self.current()

    def _read(self) -> _Written | None:
        """Return the file's content, ``None`` when there is none, or none that can be used."""
        try:
            found = self._file.stat()
        except OSError:
            return None
        version = (found.st_mtime_ns, found.st_ino)
        known = self._known
        if known is None or known[0] != version:
            known = self._known = (version, self._parse())
        return known[1]

    def _parse(self) -> _Written | None:
        try:
            return _Written.model_validate_json(self._file.read_bytes())
        except (OSError, ValidationError) as error:
            log.warning("behaviour ignored", extra={"file": str(self._file), "reason": type(error).__name__})
            return None


def lognormal(median: float, sigma: float) -> float:
    """Return seconds by chance: half of them are above the median, few are far above."""
    if median == 0:
        return 0.0
    return min(random.lognormvariate(math.log(median), sigma), LONGEST_LATENCY)


def command(settings: Settings, options: argparse.Namespace) -> int:
    """Do what ``behaviour`` on the command line says; print what holds now and return the exit code."""
    behaviour = Behaviour(settings)
    asked: dict[str, Any] = {"error_rate": options.error_rate, "latency": options.latency}
    try:
        if options.reset:
            found = behaviour.reset()
        elif any(value is not None for value in asked.values()):
            found = behaviour.change(Change(**asked, seconds=options.seconds))
        else:
            found = behaviour.current()
    except ValidationError as error:
        print(f"behaviour: {explain(error)}", file=sys.stderr)  # noqa: T201 - the answer
        return 2
    except OSError as error:
        print(f"behaviour: cannot write {error.filename}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 1
    print(json.dumps(found.model_dump(mode="json")))  # noqa: T201 - the answer
    return 0


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _replace(file: Path, text: str) -> None:
    """Write a file so that a reader sees all of the old or all of the new one."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as new:
            new.write(text)
            os.fchmod(new.fileno(), 0o644)  # root may write it, and the service must read it
        os.replace(name, file)  # noqa: PTH105 - a name, as mkstemp gives it
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
