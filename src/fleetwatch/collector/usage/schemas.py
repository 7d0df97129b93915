"""What the API answers: models that form answers and describe them in OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, create_model

from fleetwatch.collector.usage.settings import Resource

Time = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
RESOURCES: tuple[Resource, ...] = ("cpu", "mem", "disk")


class Answer(BaseModel):
    """Base of answers."""

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=True)


class Problem(Answer):
    """Why there is no answer."""

    error: str = Field(examples=["start must be before end"])


class Asked(Answer):
    """What was asked for."""

    resource: Resource
    unit: Literal["percent"] = "percent"
    start: Time = Field(description="Begin of the time, which is not part of it")
    end: Time
    step: int = Field(description="Seconds between two values")
    query: str = Field(description="PromQL that Prometheus answers the same to")


class HostAnswer(Answer):
    """The average of one host."""

    host: str
    average: float = Field(description="Mean of its values, in percent")
    points: int = Field(description="How many values these are: a host counts while there are some of it")
    sources: list[str] = Field(
        description="Where they come from, the one with most first", examples=[["node_exporter"]]
    )


class Average(Asked):
    """Averages over the time."""

    points: int = Field(description="Number of values of all hosts")
    hosts: list[HostAnswer]


class PointAnswer(Answer):
    """One value of one host."""

    time: Time
    host: str
    value: float = Field(description="In percent")


def _for_each(base: type[Asked], name: str, key: str, kind: Any, description: str) -> dict[str, type[Asked]]:
    """Return a model for each resource, whose key names it, as ``average_cpu_usage``."""
    models: dict[str, type[Asked]] = {}
    for resource in RESOURCES:
        fields: dict[str, Any] = {key.format(resource): (kind, Field(description=description))}
        models[resource] = create_model(f"{resource.title()}{name}", __base__=base, **fields)
    return models


AVERAGES = _for_each(
    Average, "Average", "average_{}_usage", float, "Mean of all values of all hosts, in percent"
)
POINTS = _for_each(Asked, "Points", "{}_usage", list[PointAnswer], "By time, then by host")
