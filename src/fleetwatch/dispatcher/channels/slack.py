"""A Slack incoming webhook, or what is compatible with it: Mattermost, Rocket.Chat."""

from __future__ import annotations

from typing import ClassVar

from fleetwatch.alerting.channels import SlackSettings
from fleetwatch.dispatcher.channels import Message
from fleetwatch.dispatcher.channels.http import Client, json_part, secret_parts


class Slack:
    """Posts a Slack message with blocks."""

    templates: ClassVar[tuple[str, ...]] = ("slack.json",)

    def __init__(self, settings: SlackSettings, url: str) -> None:
        """Set the incoming webhook's URL; the path of it is the secret."""
        self._url = url
        self._client = Client(
            "Slack",
            settings.timeout,
            secrets=secret_parts(url),
            allowed_networks=settings.allowed_networks,
        )

    def send(self, message: Message) -> str | None:
        """Deliver; see Channel. Slack gives a message no name."""
        answer = self._client.post(
            self._url, json_part(message, "slack.json"), {"Content-Type": "application/json; charset=utf-8"}
        )
        if not answer.ok:
            raise self._client.error(answer)
        return None
