"""The dispatcher's settings: those of the receiver, and the secrets of the channels."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from fleetwatch.receiver.settings import AlertReceiverSettings


def _header_value(secret: SecretStr) -> SecretStr:
    """Refuse what an HTTP header cannot carry; http.client would quote the key in its error."""
    if not re.fullmatch(r"[!-~]+", secret.get_secret_value()):
        raise ValueError("not one word of printable ASCII characters")
    return secret


class DispatcherSettings(AlertReceiverSettings):
    """The shared settings file, plus the secrets from ``$CREDENTIALS_DIRECTORY``."""

    sendgrid_api_key: Annotated[SecretStr, AfterValidator(_header_value)] = Field(
        description="SendGrid's API key"
    )
