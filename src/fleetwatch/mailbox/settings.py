"""The mailbox's settings: ``/etc/lab_mailbox/mailbox.yml``, environment prefix ``LAB_MAILBOX_``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from fleetwatch.common.settings import Port, ServiceSettings


class MailboxSettings(ServiceSettings):
    """Every key of the settings file."""

    model_config = SettingsConfigDict(env_prefix="LAB_MAILBOX_")

    listen_address: str = Field("127.0.0.1", description="Address on which web page, API and SMTP listen")
    port: Port = Field(8025, description="TCP port of the web page, the JSON API and SendGrid's API")
    smtp_port: Port = Field(1025, description="TCP port of the SMTP server")
    state_directory: Path = Field(
        Path("/var/lib/lab_mailbox"), description="Directory that holds the messages (mailbox.db)"
    )
    max_messages: int = Field(1000, ge=1, description="Messages kept; the oldest go first")
    max_message_bytes: int = Field(
        30 * 1024 * 1024,
        ge=1024,
        description="Largest message accepted, in bytes (SendGrid's limit is 30 MB)",
    )
    api_key: SecretStr | None = Field(
        None, description="The key that SendGrid's API demands (secret); without it any key will do"
    )
