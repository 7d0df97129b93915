"""The receiver's settings: the shared file, and the secrets of who may call it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, model_validator

from fleetwatch.alerting.settings import AlertingSettings
from fleetwatch.common.settings import CredentialFiles


class ReceiverSettings(AlertingSettings):
    """The shared settings file, plus the users' secrets from ``$CREDENTIALS_DIRECTORY``."""

    user_secrets: Annotated[dict[str, SecretStr], CredentialFiles("user.")] = Field(
        default_factory=dict, description="Token or password of each user"
    )

    @model_validator(mode="after")
    def _callers_can_be_told_apart(self) -> ReceiverSettings:
        if not self.users and not self.anonymous_roles:
            raise ValueError(
                'setting "users" is missing, so nobody could send an alert: add users with their roles, or '
                "set anonymous_roles to let everyone in"
            )
        seen: dict[str, str] = {}
        for user in self.users:
            secret = self.user_secrets.get(user.name)
            if secret is None:
                raise ValueError(
                    f'secret "user.{user.name}" is missing (token or password of the user): put it into '
                    f"$CREDENTIALS_DIRECTORY/user.{user.name}"
                )
            other = seen.setdefault(secret.get_secret_value(), user.name)
            if other != user.name:
                raise ValueError(
                    f'the users "{other}" and "{user.name}" have the same secret: give each its own'
                )
        return self
