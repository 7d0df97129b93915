"""Filters that part the alert receiver's channels and users from their secrets.

An inventory holds both in one place. On a host the settings are in one file, and each secret is a file of
its own: ``credentials/channel.<name>.<secret>`` and ``credentials/user.<name>``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

CHANNEL_SECRETS: dict[str, frozenset[str]] = {
    "sendgrid": frozenset({"api_key"}),
    "smtp": frozenset({"password"}),
    "slack": frozenset({"url"}),
    "webhook": frozenset({"hmac_key", "token"}),
    "twilio": frozenset({"auth_token"}),
}
"""Type of channel to the options of it that are secret; the same as in ``fleetwatch.alerting.channels``."""

Entry = Mapping[str, Any]


def split_channels(channels: Sequence[Entry]) -> dict[str, Any]:
    """Return the channels without their secrets as ``settings``, and the files of the secrets as ``files``.

    Raises:
        AnsibleFilterError: a channel's type is not known, so it cannot be told what is secret in it.

    """
    settings: list[dict[str, Any]] = []
    files: dict[str, Any] = {}
    for channel in channels:
        secret = CHANNEL_SECRETS.get(channel["type"])
        if secret is None:
            known = ", ".join(CHANNEL_SECRETS)
            raise AnsibleFilterError(f"type of the channel {channel['name']} must be one of: {known}")
        settings.append({key: value for key, value in channel.items() if key not in secret})
        files |= {f"credentials/channel.{channel['name']}.{key}": channel.get(key) for key in sorted(secret)}
    return {"settings": settings, "files": {name: text for name, text in files.items() if text}}


def split_users(users: Sequence[Entry]) -> dict[str, Any]:
    """Return the users without their passwords as ``settings``, and the files of these as ``files``."""
    return {
        "settings": [{key: value for key, value in user.items() if key != "password"} for user in users],
        "files": {f"credentials/user.{user['name']}": user["password"] for user in users},
    }


class FilterModule:
    """The filters of this file, as Ansible finds them."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return filter name to function."""
        return {"split_channels": split_channels, "split_users": split_users}
