"""The settings that receiver and dispatcher share: one file, ``/etc/alert_receiver/receiver.yml``.

Both read the same file and the same environment prefix, ``ALERT_RECEIVER_``. Only the dispatcher needs
the secret ``sendgrid_api_key`` (see ``fleetwatch.dispatcher.settings``); a receiver never holds it.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from fleetwatch.common.settings import Port, Seconds, ServiceSettings, StringList

ENV_PREFIX = "ALERT_RECEIVER_"


def _address(value: str) -> str:
    if not re.fullmatch(r"[^@\s<>,;\"]+@[^@\s<>,;\"]+", value):
        raise ValueError("not an e-mail address such as ops@example.org")
    return value


def _unique(addresses: list[str]) -> list[str]:
    """Drop repeated addresses, since SendGrid refuses a message that names one twice."""
    return list({address.lower(): address for address in map(_address, addresses)}.values())


def _http_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#]+[^\s]*", value):
        raise ValueError("not a URL that starts with http:// or https://")
    return value.rstrip("/")


def _sqlite_file(value: str) -> str:
    if not re.fullmatch(r"sqlite:////?[^/?:][^?]*", value):
        raise ValueError("not the URL of an SQLite file such as sqlite:////var/lib/alert_receiver/alerts.db")
    return value


MailAddress = Annotated[str, AfterValidator(_address)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]


class AlertReceiverSettings(ServiceSettings):
    """Every key of the settings file."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX)

    # Listening
    listen_address: str = Field("127.0.0.1", description="Address on which the receiver listens")
    port: Port = Field(5001, description="TCP port of the receiver: webhook, API, health and metrics")
    threads: int = Field(8, ge=1, le=256, description="Requests the receiver works on at the same time")
    dispatcher_listen_address: str = Field(
        "127.0.0.1", description="Address on which the dispatcher serves health and metrics"
    )
    dispatcher_port: Port = Field(5002, description="TCP port of the dispatcher: health and metrics only")

    # Store
    database_url: Annotated[str, AfterValidator(_sqlite_file)] = Field(
        "sqlite:////var/lib/alert_receiver/alerts.db",
        description="SQLite file that holds alerts and outbox; both services need to write to its directory",
    )

    # Limits of one webhook request
    max_body_bytes: int = Field(
        4 * 1024 * 1024, ge=1024, description="Largest request body, in bytes; a larger one is answered 413"
    )
    max_alerts: int = Field(
        5000, ge=1, description="Most alerts in one request; a request with more is answered 413"
    )

    # Mail
    sender: MailAddress = Field(description="Address the mail comes from; the provider must have verified it")
    sender_name: str = Field("Fleetwatch", description="Name shown beside the sender's address")
    recipients: Annotated[StringList, AfterValidator(_unique)] = Field(
        min_length=1, description="Addresses that receive each notification"
    )
    links: dict[str, HttpUrl] = Field(
        default_factory=dict,
        description="Links at the end of each message: a mapping of text to http(s) URL",
    )
    sendgrid_host: HttpUrl = Field(
        "https://api.sendgrid.com",
        description="Base URL of SendGrid's API, e.g. https://api.eu.sendgrid.com or a lab's mailbox",
    )
    sendgrid_timeout: Seconds = Field(10.0, le=60, description="Time-out of each network step, in seconds")
    sendgrid_api_key: SecretStr | None = Field(
        None, description="SendGrid's API key (secret, needed by the dispatcher)"
    )

    # Delivery
    concurrency: int = Field(4, ge=1, le=64, description="Messages the dispatcher sends at the same time")
    poll_interval: Seconds = Field(
        0.2, le=10, description="How often the dispatcher looks for new work, in seconds"
    )
    lease: Seconds = Field(
        60.0,
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

    @model_validator(mode="after")
    def _lease_outlives_an_attempt(self) -> AlertReceiverSettings:
        if self.lease < 2 * self.sendgrid_timeout:
            raise ValueError(
                'setting "lease" must be at least twice "sendgrid_timeout", or a slow attempt is repeated '
                "while it is still under way: raise lease"
            )
        return self

    @property
    def channels(self) -> tuple[str, ...]:
        """Return the channels on which each transition of an incident is announced."""
        return ("sendgrid",)
