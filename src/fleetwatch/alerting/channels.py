"""The settings of the channels, one model for each type. How each delivers is in the dispatcher.

A channel's secrets are files: ``$CREDENTIALS_DIRECTORY/channel.<name>.<secret>``. ``SECRETS`` says which
there are; ``REQUIRED`` which must be.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from fleetwatch.alerting.types import HttpUrl, MailAddress, Named, unique_addresses
from fleetwatch.common.settings import Port, Seconds

Recipients = Annotated[list[MailAddress], Field(min_length=1), AfterValidator(unique_addresses)]
PhoneNumber = Annotated[str, StringConstraints(pattern=r"^\+[1-9][0-9]{6,14}$")]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$")]
HeaderValue = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]{0,1000}$")]

_RESERVED_HEADERS = ("authorization", "content-length", "content-type", "host", "transfer-encoding")


class ChannelSettings(Named):
    """What every channel has."""

    SECRETS: ClassVar[dict[str, str]] = {}
    """Secret name to what it is."""
    REQUIRED: ClassVar[frozenset[str]] = frozenset()
    """Secrets without which the channel cannot work."""

    timeout: Seconds = Field(10.0, le=60, description="Time-out of each network step, in seconds")
    concurrency: int = Field(2, ge=1, le=32, description="Messages sent at the same time by one dispatcher")
    rate_limit: float = Field(
        0, ge=0, le=60_000, description="Most messages a minute by one dispatcher; 0 is without limit"
    )
    rate_burst: int = Field(5, ge=1, le=1000, description="Messages that may go out at once under rate_limit")
    group_above: int = Field(
        10,
        ge=0,
        description="When more messages than this come within group_wait they go out as one; 0 never groups",
    )
    group_wait: Seconds = Field(
        5.0, le=600, description="How long such a burst is collected before its message goes out, in seconds"
    )
    breaker_failures: int = Field(
        5, ge=1, le=1000, description="Failures in a row after which the channel is left alone for a while"
    )
    breaker_pause: Seconds = Field(
        30.0, le=3600, description="For how long it is left alone before one message tries it, in seconds"
    )

    def required_secrets(self) -> frozenset[str]:
        """Return the secrets that this one cannot work without."""
        return self.REQUIRED


class SendGridSettings(ChannelSettings):
    """Mail through SendGrid's API."""

    SECRETS: ClassVar[dict[str, str]] = {"api_key": "SendGrid's API key"}
    REQUIRED: ClassVar[frozenset[str]] = frozenset({"api_key"})

    type: Literal["sendgrid"]
    sender: MailAddress = Field(description="Address the mail comes from; SendGrid must have verified it")
    sender_name: str = Field("Fleetwatch", description="Name shown beside the sender's address")
    recipients: Recipients = Field(description="Addresses that receive each message")
    host: HttpUrl = Field(
        "https://api.sendgrid.com", description="Base URL of the API, e.g. https://api.eu.sendgrid.com"
    )


class SmtpSettings(ChannelSettings):
    """Mail through a mail server."""

    SECRETS: ClassVar[dict[str, str]] = {"password": "the password at the mail server"}

    type: Literal["smtp"]
    host: str = Field(pattern=r"^[A-Za-z0-9.:_-]{1,253}$", description="Name or address of the mail server")
    port: Port = Field(587, description="TCP port: usually 587 with starttls, 465 with tls")
    security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="How the connection is encrypted; none is for a server on this host only"
    )
    ca_file: Path | None = Field(None, description="PEM file of the authority to trust, if not the system's")
    username: str = Field("", description="User at the mail server; empty sends without authentication")
    sender: MailAddress = Field(description="Address the mail comes from")
    sender_name: str = Field("Fleetwatch", description="Name shown beside the sender's address")
    recipients: Recipients = Field(description="Addresses that receive each message")

    def required_secrets(self) -> frozenset[str]:
        """Ask for a password when there is a user."""
        return frozenset({"password"} if self.username else ())

    @model_validator(mode="after")
    def _no_password_in_clear(self) -> SmtpSettings:
        if self.username and self.security == "none":
            raise ValueError(
                "a password would cross the network in clear: use security starttls or tls, or no username"
            )
        return self


class _HttpSettings(ChannelSettings):
    """What channels that post to a site's own choice of URL share."""

    allowed_networks: list[IPv4Network | IPv6Network] = Field(
        default_factory=list,
        description="Networks such as 127.0.0.0/8 that may be reached although they are loopback, "
        "link-local or otherwise special",
    )


class SlackSettings(_HttpSettings):
    """A Slack incoming webhook, or what is compatible with it (Mattermost, Rocket.Chat)."""

    SECRETS: ClassVar[dict[str, str]] = {"url": "the incoming webhook's URL"}
    REQUIRED: ClassVar[frozenset[str]] = frozenset({"url"})

    type: Literal["slack"]


class WebhookSettings(_HttpSettings):
    """A JSON document posted to any URL."""

    SECRETS: ClassVar[dict[str, str]] = {
        "hmac_key": "the key that signs each request",
        "token": "the bearer token sent with each request",
    }

    type: Literal["webhook"]
    url: HttpUrl = Field(description="Where to post")
    headers: dict[HeaderName, HeaderValue] = Field(
        default_factory=dict, description="Further request headers, none of them secret"
    )

    @model_validator(mode="after")
    def _no_reserved_header(self) -> WebhookSettings:
        if reserved := next((name for name in self.headers if name.lower() in _RESERVED_HEADERS), None):
            raise ValueError(f'the header "{reserved}" is set by the program: remove it from headers')
        return self


class TwilioSettings(ChannelSettings):
    """Text messages through Twilio's API."""

    SECRETS: ClassVar[dict[str, str]] = {"auth_token": "the account's auth token"}
    REQUIRED: ClassVar[frozenset[str]] = frozenset({"auth_token"})

    type: Literal["twilio"]
    account_sid: str = Field(pattern=r"^AC[0-9a-f]{32}$", description="The account, AC and 32 hex digits")
    sender: str = Field(
        description="Number such as +15005550006, or messaging service (MG and 32 hex digits)"
    )
    recipients: list[PhoneNumber] = Field(min_length=1, description="Numbers that receive each message")
    host: HttpUrl = Field("https://api.twilio.com", description="Base URL of the API")

    @model_validator(mode="after")
    def _sender_is_one(self) -> TwilioSettings:
        if not re.fullmatch(r"\+[1-9][0-9]{2,14}|MG[0-9a-f]{32}", self.sender):
            raise ValueError("sender is neither a number such as +15005550006 nor a messaging service SID")
        return self


AnyChannel = Annotated[
    SendGridSettings | SmtpSettings | SlackSettings | WebhookSettings | TwilioSettings,
    Field(discriminator="type"),
]
