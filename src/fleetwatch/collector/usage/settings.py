"""The usage API's settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from fleetwatch.alerting.types import HttpUrl, Part
from fleetwatch.collector.usage.promql import HOSTS
from fleetwatch.common.settings import Port, Seconds, ServiceSettings

Resource = Literal["cpu", "mem", "disk"]
"""What can be asked for."""

MAX_STEPS = 10_000
"""Steps of one query; Prometheus itself refuses more than 11,000."""


def _has_place(expression: str) -> str:
    if HOSTS not in expression:
        raise ValueError(f"{HOSTS} is missing: write it among the labels of each metric, as in up{{{HOSTS}}}")
    return expression


class Source(Part):
    """Where numbers may come from."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$", description="What answers call it")
    expression: Annotated[str, AfterValidator(_has_place)] = Field(
        description="PromQL for percent with the label host; $hosts, among the labels of each metric, "
        "stands for the hosts asked for"
    )


Sources = Annotated[list[Source], Field(min_length=1)]


def _usual(collector: str, exporter: str) -> list[Source]:
    """Return the sources in the order that answers prefer."""
    return [
        Source(name="metrics_collector", expression=collector),
        Source(name="node_exporter", expression=exporter),
    ]


class Expressions(Part):
    """For each resource its sources; a host is answered from the first that has it."""

    cpu: Sources = Field(
        _usual('gauge_cpu_usage{type="CPU",$hosts}', "100 * instance:node_cpu_utilisation:rate5m{$hosts}")
    )
    mem: Sources = Field(
        _usual(
            'gauge_mem_usage{type="Memory",$hosts}', "100 * instance:node_memory_utilisation:ratio{$hosts}"
        )
    )
    disk: Sources = Field(
        _usual(
            'gauge_disk_usage{type="Disk",$hosts}', "100 * instance:node_filesystem_utilisation:max{$hosts}"
        )
    )

    def of(self, resource: Resource) -> list[Source]:
        """Return the sources of a resource."""
        found: list[Source] = getattr(self, resource)
        return found


class UsageSettings(ServiceSettings):
    """See the fields."""

    model_config = SettingsConfigDict(env_prefix="METRICS_API_")

    listen_address: str = Field("0.0.0.0", description="Address to listen on")  # noqa: S104 - as its siblings
    port: Port = Field(5000, description="TCP port")
    threads: int = Field(16, ge=2, le=256, description="Requests worked on at the same time")
    external_url: HttpUrl | None = Field(None, description="URL under which people reach it")
    read_token: SecretStr | None = Field(
        None, description="What callers must show to read, as bearer token or password; without one all may"
    )

    prometheus_urls: list[HttpUrl] = Field(
        min_length=1, description="Prometheus servers with the same data; when one is away the next is asked"
    )
    prometheus_timeout: Seconds = Field(20.0, description="How long one query may take, in seconds")
    probe_interval: Seconds = Field(
        15.0, description="Seconds between two looks whether each Prometheus is there"
    )
    expressions: Expressions = Field(
        default_factory=lambda: Expressions.model_validate({}), description="Where the numbers come from"
    )
    groups: dict[str, list[str]] = Field(
        default_factory=dict, description="Groups that can be asked for, with their hosts"
    )

    min_step: int = Field(
        15, ge=1, le=86400, description="Shortest step chosen when none is asked for, in seconds"
    )
    max_range: float = Field(
        400.0, gt=0, le=36500, allow_inf_nan=False, description="Longest time that can be asked for, in days"
    )
    max_points: int = Field(100_000, ge=1, le=10_000_000, description="Most points of one host in an answer")
    query_points: int = Field(
        20_000, ge=100, le=10_000_000, description="About how many points are asked of Prometheus at once"
    )
    query_samples: int = Field(
        500_000,
        ge=1000,
        description="About how many points Prometheus averages at once; below its query.max-samples",
    )

    stall_timeout: Seconds = Field(
        60.0, description="Seconds after which a caller who does not read the answer is left alone"
    )

    receiver_urls: list[HttpUrl] = Field(
        default_factory=list, description="Alert receivers that POST /alert passes alerts on to"
    )
    receiver_timeout: Seconds = Field(10.0, description="How long a receiver may take, in seconds")
    max_body_bytes: int = Field(
        4 * 1024 * 1024, ge=1024, le=64 * 1024 * 1024, description="Largest body of POST /alert, in bytes"
    )
