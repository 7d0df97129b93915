"""What can go wrong: scenario files, and the incidents that are played from them.

A scenario file is ``<name>.yml``::

    description: A runaway process keeps every core busy.
    hosts: ["sim-web-*"]   # names or patterns; default every host
    limit: 1               # at most so many of them, in the order of the fleet; default all
    after: 0               # seconds from playing it to its start
    duration: 300          # seconds from its start to its end
    effects:
      - metric: cpu        # cpu, memory, disk, load, network or silent
        strength: 95       # the level it is driven to; for network, the bytes/s added
        ramp: 15           # seconds until the full strength is reached
        after: 0           # seconds from the start of the incident to that of this effect

All effects end with the incident, at once. ``silent`` (no strength, no ramp) takes the host's metrics away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .model import Reading

Metric = Literal["cpu", "memory", "disk", "load", "network", "silent"]

STRONGEST: dict[Metric, float] = {"cpu": 100, "memory": 100, "disk": 100, "load": 10_000, "network": 1e12}
"""The greatest strength per metric: percent, percent, percent, load average, bytes/s."""

_A_WEEK = 7 * 86400
Wait = Annotated[float, Field(ge=0, le=_A_WEEK, allow_inf_nan=False)]
Duration = Annotated[float, Field(gt=0, le=_A_WEEK, allow_inf_nan=False)]
Strength = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Names = Annotated[list[str], Field(min_length=1)]


class ScenarioError(Exception):
    """A scenario or a request to play one cannot be used; the text is one line that says why."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Effect(_Strict):
    """How an incident changes one metric."""

    metric: Metric
    strength: Strength | None = None
    ramp: Wait = 0
    after: Wait = 0

    @model_validator(mode="after")
    def _fits_the_metric(self) -> Self:
        if self.metric == "silent":
            if self.strength is not None or self.ramp:
                raise ValueError("silent takes neither strength nor ramp")
        elif self.strength is None:
            raise ValueError(f"{self.metric} needs a strength")
        elif self.strength > STRONGEST[self.metric]:
            raise ValueError(f"strength of {self.metric} must be at most {STRONGEST[self.metric]:.0f}")
        return self

    def weight(self, elapsed: float) -> float:
        """Return the share of the strength reached so long (s) after the incident's start, 0 to 1."""
        on = elapsed - self.after
        if on < 0:
            return 0
        return min(1, on / self.ramp) if self.ramp else 1

    def volume(self, elapsed: float) -> float:
        """Return the integral of strength times weight from the incident's start: the bytes added."""
        on = max(0, elapsed - self.after)
        ramping = min(on, self.ramp)
        grown = ramping**2 / (2 * self.ramp) if self.ramp else 0
        return (self.strength or 0) * (grown + on - ramping)


class Scenario(_Strict):
    """What may be played; see the module's description for the fields."""

    description: Annotated[str, Field(min_length=1)]
    hosts: Names = ["*"]
    limit: Annotated[int, Field(ge=1)] | None = None
    after: Wait = 0
    duration: Duration
    effects: Annotated[list[Effect], Field(min_length=1)]


class Play(_Strict):
    """A request to play a scenario; what is left out is as the scenario says."""

    scenario: str
    hosts: Names | None = None
    after: Wait | None = None
    duration: Duration | None = None
    strength: Strength | None = None


class Incident(_Strict):
    """A scenario that is or will be played on certain hosts; times are seconds since the epoch."""

    id: str
    scenario: str
    hosts: list[str]
    start: float
    end: float
    effects: list[Effect]

    def silences(self, time: float) -> bool:
        """Whether its hosts show no metrics at a time."""
        return self.start <= time < self.end and any(
            effect.metric == "silent" and effect.weight(time - self.start) for effect in self.effects
        )

    def received(self, time: float) -> float:
        """Return the bytes it has added to each of its hosts' counters by a time."""
        elapsed = min(time, self.end) - self.start
        return sum(effect.volume(elapsed) for effect in self.effects if effect.metric == "network")

    def drive(self, reading: Reading, time: float) -> None:
        """Change a host's reading; where incidents overlap, the last one played wins.

        The counter is not touched here: see ``received``.
        """
        if not self.start <= time < self.end:
            return
        for effect in self.effects:
            if effect.strength is None or effect.metric == "network":
                continue
            quiet = getattr(reading, effect.metric)
            level = quiet + (effect.strength - quiet) * effect.weight(time - self.start)
            setattr(reading, effect.metric, level)


def plan(
    play: Play, incident_id: str, scenarios: dict[str, Scenario], fleet: Sequence[str], now: float
) -> Incident:
    """Make an incident of a request; raise ScenarioError when the request makes no sense for this fleet."""
    scenario = scenarios.get(play.scenario)
    if scenario is None:
        raise ScenarioError(
            f'scenario "{play.scenario}" is unknown; there are {", ".join(sorted(scenarios))}'
        )
    hosts = _choose(play.hosts or scenario.hosts, fleet)
    if play.hosts is None:
        hosts = hosts[: scenario.limit]
    effects = scenario.effects
    if play.strength is not None:
        if len(effects) > 1 or effects[0].strength is None:
            raise ScenarioError(
                f'scenario "{play.scenario}" takes no strength: it has several effects, or a silent one'
            )
        try:
            effects = [Effect.model_validate(effects[0].model_dump() | {"strength": play.strength})]
        except ValidationError as error:
            raise ScenarioError(explain(error)) from None
    start = now + (scenario.after if play.after is None else play.after)
    return Incident(
        id=incident_id,
        scenario=play.scenario,
        hosts=hosts,
        start=start,
        end=start + (play.duration or scenario.duration),
        effects=effects,
    )


def _choose(patterns: Iterable[str], fleet: Sequence[str]) -> list[str]:
    chosen: set[str] = set()
    for pattern in patterns:
        matching = [host for host in fleet if fnmatchcase(host, pattern)]
        if not matching:
            raise ScenarioError(
                f'no simulated host is named or matches "{pattern}"; there are {", ".join(fleet)}'
            )
        chosen.update(matching)
    return [host for host in fleet if host in chosen]


def load(directories: Iterable[str] = ()) -> dict[str, Scenario]:
    """Read the scenarios that come with Fleetwatch and those in the directories; the last of a name wins.

    Raises ScenarioError: one line that names the file and the key.
    """
    found: dict[str, Scenario] = {}
    folders: list[Traversable] = [files(__package__) / "scenarios", *map(Path, directories)]
    for folder in folders:
        if not folder.is_dir():
            raise ScenarioError(f"{folder} is not a directory of scenario files")
        for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if file.name.endswith((".yml", ".yaml")):
                found[file.name.rpartition(".")[0]] = _read(file)
    return found


def _read(file: Traversable) -> Scenario:
    try:
        content: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        return Scenario.model_validate(content)
    except OSError as error:
        raise ScenarioError(f"scenario file {file}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ScenarioError(
            f"scenario file {file} is not valid YAML: {' '.join(str(error).split())}"
        ) from None
    except ValidationError as error:
        raise ScenarioError(f"scenario file {file}: {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """Put pydantic's errors into one line: ``effects.0.strength: must be …; duration: …``."""
    lines = []
    for detail in error.errors(include_url=False, include_input=False):
        key = ".".join(str(part) for part in detail["loc"])
        lines.append(f"{key}: " * bool(key) + detail["msg"].removeprefix("Value error, "))
    return "; ".join(lines)
