"""The settings that receiver and dispatcher share: one file, ``/etc/alert_receiver/receiver.yml``.

Both read the same file and the same environment prefix, ``ALERT_RECEIVER_``. Secrets are files in
``$CREDENTIALS_DIRECTORY``: ``user.<name>`` for who may call the receiver, ``channel.<name>.<secret>`` for
the dispatcher, and ``database_password``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from fleetwatch.alerting.channels import AnyChannel
from fleetwatch.alerting.routes import Router, Routes
from fleetwatch.alerting.types import HttpUrl, Named, Role, unique_names
from fleetwatch.common.settings import Port, Seconds, ServiceSettings, StringList

ENV_PREFIX = "ALERT_RECEIVER_"


def _database_url(value: str) -> str:
    if re.fullmatch(r"sqlite:////?[^/?:][^?]*", value):
        return value
    found = re.fullmatch(r"postgresql://(?:([^:@/]+)(:[^@/]*)?@)?[^/?@]*/[^/?]+(\?[^\s]*)?", value)
    if found is None:
        raise ValueError(
            "not the URL of an SQLite file such as sqlite:////var/lib/alert_receiver/alerts.db or of a "
            "PostgreSQL database such as postgresql://alert_receiver@db1/alert_receiver"
        )
    if found[2] or "password=" in (found[3] or ""):
        raise ValueError("a password must not be in the URL: use the secret database_password")
    return value


def _link(value: str) -> str:
    if not re.match(r"https?://[^\s/?#]", value):
        raise ValueError("not a URL that starts with http:// or https://")
    return value


class User(Named):
    """Who may call the receiver; the secret ``user.<name>`` is both bearer token and password."""

    roles: list[Role] = Field(min_length=1, description="What the user may do: send, read, act")


class AlertingSettings(ServiceSettings):
    """Every key of the settings file; the secrets are in the models of receiver and dispatcher."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX)

    # Listening
    listen_address: str = Field("127.0.0.1", description="Address on which the receiver listens")
    port: Port = Field(5001, description="TCP port of the receiver: webhook, API, page, health and metrics")
    threads: int = Field(32, ge=1, le=256, description="Requests the receiver works on at the same time")
    external_url: HttpUrl | None = Field(
        None, description="URL under which people reach the receiver, for the links in messages"
    )
    dispatcher_listen_address: str = Field(
        "127.0.0.1", description="Address on which the dispatcher serves health and metrics"
    )
    dispatcher_port: Port = Field(5002, description="TCP port of the dispatcher: health and metrics only")

    # Who may call
    users: Annotated[list[User], AfterValidator(unique_names)] = Field(
        default_factory=list, description="Who may call the receiver, each with a secret user.<name>"
    )
    anonymous_roles: list[Role] = Field(
        default_factory=list, description="What callers without a user may do; nothing by default"
    )

    # Store
    database_url: Annotated[str, AfterValidator(_database_url)] = Field(
        "sqlite:////var/lib/alert_receiver/alerts.db",
        description="SQLite file, or PostgreSQL database for several receivers, with incidents and outbox",
    )
    database_password: SecretStr | None = Field(None, description="Password of the PostgreSQL user (secret)")
    retention: Annotated[float, Field(ge=3600, allow_inf_nan=False)] = Field(
        7_776_000.0, description="Resolved incidents are deleted after so many seconds (default 90 days)"
    )

    # Limits of one webhook request
    max_body_bytes: int = Field(
        4 * 1024 * 1024, ge=1024, description="Largest request body, in bytes; a larger one is answered 413"
    )
    max_alerts: int = Field(
        5000, ge=1, description="Most alerts in one request; a request with more is answered 413"
    )

    # Notification
    channels: Annotated[list[AnyChannel], AfterValidator(unique_names)] = Field(
        min_length=1, description="The ways to send messages"
    )
    routes: Routes = Field(
        default_factory=list, description="Which alert goes to which channel; without any, all to every one"
    )
    links: dict[str, Annotated[str, AfterValidator(_link)]] = Field(
        default_factory=dict,
        description="Links in each message: text to URL; a URL may hold {{ labels.host }} and the like",
    )
    template_directory: Path | None = Field(
        None, description="Folder whose templates replace the built-in ones of the same name"
    )

    # Reconciliation
    alertmanagers: StringList = Field(
        default_factory=list,
        description="URLs of all Alertmanagers, asked from time to time which alerts still fire",
    )
    reconcile_interval: Seconds = Field(60.0, description="How often they are asked, in seconds")
    reconcile_grace: Seconds = Field(
        300.0,
        description="After so many seconds, what Alertmanager knows of an alert counts, though it never told",
    )

    # Heartbeats
    watchdog_timeout: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        600.0,
        description="An incident is opened when no Watchdog has come for so many seconds; 0 never does so",
    )
    watchdog_expected: bool = Field(
        False, description="Whether that counts from the start, though none has come yet"
    )
    heartbeat_interval: Seconds = Field(
        60.0, description="How often dead man's switches outside are told that all is well, in seconds"
    )
    runbook_url: HttpUrl | None = Field(
        None, description="URL of the folder with the runbook of the alert that this program raises itself"
    )

    # Delivery
    poll_interval: Seconds = Field(
        0.2, le=10, description="How often the dispatcher looks for new work, in seconds"
    )
    lease: Seconds = Field(
        120.0,
        le=3600,
        description="After this many seconds a message that a dead dispatcher had claimed is taken up again",
    )
    retry_base: Seconds = Field(
        2.0, description="Wait before the first retry, in seconds; doubled for each further one, with jitter"
    )
    retry_max: Seconds = Field(300.0, description="Longest wait between two attempts, in seconds")
    retry_give_up: Seconds = Field(
        259200.0, description="A message not delivered for so many seconds (default 3 days) is parked"
    )

    # Telemetry
    otlp_endpoint: HttpUrl | None = Field(
        None, description="OTLP/HTTP base URL, as http://tempo:4318, that traces are sent to; null sends none"
    )

    @model_validator(mode="after")
    def _lease_outlives_an_attempt(self) -> AlertingSettings:
        for channel in self.channels:
            if self.lease < 2 * channel.timeout:
                raise ValueError(
                    f'setting "lease" must be at least twice the timeout of channel "{channel.name}", or a '
                    "slow attempt is repeated while it is still under way: raise lease"
                )
        return self

    @model_validator(mode="after")
    def _routes_use_known_channels(self) -> AlertingSettings:
        known = {channel.name for channel in self.channels}
        for route in self.routes:
            if unknown := sorted(route.used_channels() - known):
                raise ValueError(
                    f'setting "routes": route "{route.name}" names the channel "{unknown[0]}", which is not '
                    f"in channels: use one of {', '.join(sorted(known))}"
                )
        return self

    @property
    def router(self) -> Router:
        """Return the routes, ready for use."""
        return Router(self.routes, [channel.name for channel in self.channels])
