"""The dispatcher's settings: the shared file, and the secrets of the channels."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, SecretStr, model_validator

from fleetwatch.alerting.settings import AlertingSettings
from fleetwatch.common.settings import CredentialFiles

_FREE_TEXT = frozenset({"password"})  # secrets that may hold anything; the others stand in HTTP headers


class DispatcherSettings(AlertingSettings):
    """The shared settings file, plus the channels' secrets from ``$CREDENTIALS_DIRECTORY``."""

    channel_secrets: Annotated[dict[str, SecretStr], CredentialFiles("channel.")] = Field(
        default_factory=dict, description="Secrets of the channels, as <channel>.<secret>"
    )

    heartbeat_urls: Annotated[dict[str, SecretStr], CredentialFiles("heartbeat.")] = Field(
        default_factory=dict, description="URLs of dead man's switches outside that heartbeats are posted to"
    )

    def secret(self, channel: str, name: str) -> str | None:
        """Return a channel's secret, or ``None`` when it was not given."""
        found = self.channel_secrets.get(f"{channel}.{name}")
        return found.get_secret_value() if found else None

    @model_validator(mode="after")
    def _heartbeats_have_urls(self) -> DispatcherSettings:
        for name, secret in self.heartbeat_urls.items():
            if not re.fullmatch(r"https?://[^\s/?#@]+[^\s]*", secret.get_secret_value()):
                raise ValueError(
                    f'secret "heartbeat.{name}" is not a URL that starts with http:// or https://: correct '
                    f"it in $CREDENTIALS_DIRECTORY/heartbeat.{name}"
                )
        if self.heartbeat_urls and not self.watchdog_timeout:
            raise ValueError(
                'setting "watchdog_timeout" is 0, so that heartbeats would go out though Prometheus is dead: '
                "set it, or remove the secrets heartbeat.*"
            )
        return self

    @model_validator(mode="after")
    def _channels_have_their_secrets(self) -> DispatcherSettings:
        for channel in self.channels:
            for name, meaning in channel.SECRETS.items():
                value = self.secret(channel.name, name)
                file = f"channel.{channel.name}.{name}"
                if value is None and name in channel.required_secrets():
                    raise ValueError(
                        f'secret "{file}" is missing ({meaning}): put it into $CREDENTIALS_DIRECTORY/{file}'
                    )
                # http.client would quote a value that a header cannot carry in its error.
                if value is not None and name not in _FREE_TEXT and not re.fullmatch(r"[!-~]+", value):
                    raise ValueError(f'secret "{file}" is not one word of printable ASCII characters')
        return self
