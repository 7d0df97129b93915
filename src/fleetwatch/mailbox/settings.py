"""The mailbox's settings: ``/etc/lab_mailbox/mailbox.yml``, environment prefix ``LAB_MAILBOX_``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from fleetwatch.common.settings import Port, ServiceSettings


class MailboxSettings(ServiceSettings):
    """Every key of the settings file."""

    model_config = SettingsConfigDict(env_prefix="LAB_MAILBOX_")

    listen_address: str = Field("127.0.0.1", description="Address on which web page, API and SMTP listen")
    port: Port = Field(8025, description="TCP port of the web page, the JSON API and the providers' APIs")
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
    twilio_auth_token: SecretStr | None = Field(
        None, description="The token that Twilio's API demands (secret); without it any token will do"
    )
    smtp_security: Literal["none", "starttls", "tls"] = Field(
        "none", description="What SMTP demands: starttls, tls from the first byte, or nothing"
    )
    smtp_certificate_file: Path | None = Field(
        None, description="PEM file of the certificate for starttls and tls"
    )
    smtp_key_file: Path | None = Field(None, description="PEM file of the certificate's key")
    smtp_username: str = Field("", description="User that SMTP demands; empty demands none")
    smtp_password: SecretStr | None = Field(None, description="Password of that user (secret)")

    @model_validator(mode="after")
    def _smtp_has_what_it_needs(self) -> MailboxSettings:
        if self.smtp_security != "none" and not (self.smtp_certificate_file and self.smtp_key_file):
            raise ValueError(
                'setting "smtp_security" needs a certificate: set smtp_certificate_file and smtp_key_file'
            )
        if self.smtp_username and not self.smtp_password:
            raise ValueError('secret "smtp_password" is missing, which smtp_username needs: set both')
        return self
