"""The dispatcher's settings: those of the receiver, and the secrets of the channels."""

from __future__ import annotations

from pydantic import Field, SecretStr

from fleetwatch.receiver.settings import AlertReceiverSettings


class DispatcherSettings(AlertReceiverSettings):
    """The shared settings file, plus the secrets from ``$CREDENTIALS_DIRECTORY``."""

    sendgrid_api_key: SecretStr = Field(min_length=1, description="SendGrid's API key")
