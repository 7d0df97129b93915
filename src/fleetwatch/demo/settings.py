"""The settings that API and worker share: one file, ``/etc/transactions/transactions.yml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from fleetwatch.alerting.types import HttpUrl
from fleetwatch.common.settings import IN_FILE_TOO, Port, Seconds, ServiceSettings
from fleetwatch.demo import MAX_INSTANCES

SHORTEST_TOKEN = 16
"""Characters."""

Rate = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""A share, 0 to 1."""
Latency = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
"""A duration in seconds, 0 to 10."""


def _database_url(value: SecretStr) -> SecretStr:
    try:
        url = make_url(value.get_secret_value())
    except (ArgumentError, ValueError):  # whose text quotes the URL
        url = None
    if url is None or url.drivername not in ("postgresql", "postgresql+psycopg") or not url.database:
        raise ValueError(
            "not the URL of a PostgreSQL database such as postgresql+psycopg:///transactions or "
            "postgresql+psycopg://user:password@db1/transactions"
        )
    return value


def _url_of(*schemes: str) -> AfterValidator:
    def check(value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if text:
            try:
                parts = urlsplit(text)
            except ValueError:  # whose text quotes the URL
                raise ValueError("is not a URL; escape special characters of the password as %XX") from None
            if parts.scheme not in schemes or not (parts.hostname or parts.scheme == "unix"):
                raise ValueError(f"must be empty or begin with {' or '.join(f'{s}://' for s in schemes)}")
            if parts.query or parts.fragment:
                raise ValueError("must have no options (nothing after ? or #)")
            try:
                _ = parts.port
            except ValueError:  # whose text quotes the URL
                raise ValueError("has a port that is no number from 0 to 65535") from None
        return value

    return AfterValidator(check)


def _long(value: SecretStr) -> SecretStr:
    if 0 < len(value.get_secret_value()) < SHORTEST_TOKEN:
        raise ValueError(f"must be empty or have at least {SHORTEST_TOKEN} characters")
    return value


class Settings(ServiceSettings):
    """What can be set, in ``--config FILE`` or as ``TRANSACTIONS_<SETTING>``.

    The URLs may hold passwords: then they belong into ``$CREDENTIALS_DIRECTORY``, where the token is.
    """

    model_config = SettingsConfigDict(env_prefix="TRANSACTIONS_")

    log_level: Annotated[
        str, BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value)
    ] = Field(
        "INFO",
        pattern="^(DEBUG|INFO|WARNING|ERROR)$",
        description="The least severe log event written: debug, info, warning or error",
    )

    # Database
    database_url: Annotated[SecretStr, IN_FILE_TOO, AfterValidator(_database_url)] = Field(
        SecretStr("postgresql+psycopg:///transactions"),
        description="URL of the PostgreSQL database, as SQLAlchemy takes it",
    )
    database_pool_size: int = Field(5, ge=1, le=100, description="Connections that each instance keeps open")
    database_max_overflow: int = Field(
        5, ge=0, le=100, description="Connections that each instance may open beyond those it keeps"
    )
    database_pool_timeout: Seconds = Field(
        2.0, le=60, description="Seconds a request waits for a free connection until it is answered 503"
    )

    # Cache and queue
    redis_url: Annotated[SecretStr, IN_FILE_TOO, _url_of("redis", "rediss", "unix")] = Field(
        SecretStr(""),
        description="URL of the Redis that caches pages of transactions; empty = no cache",
    )
    cache_seconds: Seconds = Field(
        5.0, le=3600, description="Seconds for which a page is answered from the cache"
    )
    queue_url: Annotated[SecretStr, IN_FILE_TOO, _url_of("amqp", "amqps")] = Field(
        SecretStr(""),
        description="URL of the RabbitMQ that tells workers of new transactions; empty = they look in the "
        "database from time to time",
    )

    # Listening
    socket_directory: Path = Field(
        Path("/run/transactions"), description="Directory of the instances' sockets, api-<n>.sock"
    )
    listen_address: str = Field(
        "0.0.0.0",  # noqa: S104 - Prometheus scrapes it
        description="Address on which each instance serves /metrics, /livez and /readyz",
    )
    api_port: Port = Field(8100, description="Instance n of the API serves its metrics on this port + n")
    worker_port: Port = Field(8200, description="Instance n of a worker serves its metrics on this port + n")
    threads: int = Field(
        8, ge=1, le=256, description="Requests that each instance of the API works on at the same time"
    )

    # Behaviour
    state_directory: Path = Field(
        Path("/var/lib/transactions"), description="Directory of behaviour.json, which API instances share"
    )
    error_rate: Rate = Field(0.05, description="Share of the requests for transactions that fail on purpose")
    latency: Latency = Field(
        0.01, description="Seconds added to requests for transactions: median of a log-normal distribution"
    )
    latency_spread: float = Field(
        0.5, ge=0, le=3, allow_inf_nan=False, description="Sigma of that distribution; 0 = always the median"
    )
    payment_latency: Latency = Field(
        0.02, description="Seconds that the simulated payment gateway takes: median, same distribution"
    )
    payment_decline_rate: Rate = Field(0.02, description="Share of the payments that the gateway declines")
    control_token: Annotated[SecretStr, AfterValidator(_long)] = Field(
        SecretStr(""),
        description="Token that /control/behaviour asks for; empty = only the command on the host changes it",
    )

    # Worker
    worker_poll_interval: Seconds = Field(
        0.5, le=60, description="Seconds between two looks for pending transactions when there were none"
    )
    worker_batch: int = Field(10, ge=1, le=1000, description="Most transactions that a worker takes at once")
    worker_latency: Latency = Field(
        0.02, description="Seconds that a worker takes for a transaction: median, same distribution"
    )
    worker_failure_rate: Rate = Field(0.03, description="Share of the transactions that fail in the worker")
    retention_days: float = Field(
        7,
        gt=0,
        le=3650,
        allow_inf_nan=False,
        description="Days after which finished transactions are deleted",
    )

    # Traces
    otlp_endpoint: HttpUrl | None = Field(
        None, description="Base URL of an OTLP/HTTP collector that gets the traces; empty = none"
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_is_none(cls, values: dict[str, object]) -> dict[str, object]:
        if values.get("otlp_endpoint") == "":
            return values | {"otlp_endpoint": None}
        return values

    @model_validator(mode="after")
    def _ports_fit(self) -> Settings:
        for name in ("api_port", "worker_port"):
            if getattr(self, name) + MAX_INSTANCES > 65535:  # noqa: PLR2004 - the last port
                raise ValueError(f'setting "{name}": must leave room for {MAX_INSTANCES} instances: lower it')
        if abs(self.api_port - self.worker_port) <= MAX_INSTANCES:
            raise ValueError(
                f'settings "api_port" and "worker_port" must be more than {MAX_INSTANCES} apart, so that no '
                "two instances meet"
            )
        return self
