"""``fleetwatch-receiver test-channels``: sends a test message through each channel, past the outbox."""

from __future__ import annotations

import argparse
import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fleetwatch.common import logs
from fleetwatch.common.settings import SettingsError, read
from fleetwatch.dispatcher import channels
from fleetwatch.dispatcher.channels import Channel, DeliveryError
from fleetwatch.dispatcher.render import Renderer
from fleetwatch.dispatcher.settings import DispatcherSettings
from fleetwatch.store import Incident, Notification, Status
from fleetwatch.store.models import Transition

SUMMARY = "Test message from Fleetwatch: this channel works, and nothing is wrong"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options, except ``--config FILE``, which all subcommands share."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="channels to test; default all")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of lines")
    parser.epilog = "It needs the channels' secrets in $CREDENTIALS_DIRECTORY, as the dispatcher does."


def run(options: argparse.Namespace) -> int:
    """Send, and print one line for each channel; return 1 if any failed, else 0. Raise SettingsError."""
    settings = read(DispatcherSettings, options.config)
    logs.setup("fleetwatch-receiver", "WARNING")  # for recipients that were refused while others were not
    built = channels.build(settings)
    if unknown := sorted(set(options.names) - set(built)):
        raise SettingsError(
            f'there is no channel "{unknown[0]}" in channels: use one of {", ".join(sorted(built))}'
        )
    wanted = {name: built[name] for name in options.names or built}
    results = probe(wanted, Renderer(settings))
    if options.json:
        _print(json.dumps({"channels": results}, indent=2))
    else:
        width = max(len(name) for name in wanted)
        for result in results:
            outcome = f"failed: {result['error']}" if result["error"] else f"ok {result['provider_id'] or ''}"
            _print(f"{result['channel']:{width}}  {outcome}".rstrip())
    return 1 if any(result["error"] for result in results) else 0


def probe(wanted: Mapping[str, Channel], renderer: Renderer) -> list[dict[str, Any]]:
    """Send a test message through each channel; return what became of each, in the same order.

    A result has ``channel``, ``provider_id`` and ``error``; the latter two are ``None`` when there is none.
    """
    results = []
    for name, channel in wanted.items():
        provider_id, error = None, None
        try:
            provider_id = channel.send(renderer.message([_notification(name)], channel.templates))
        except DeliveryError as failure:
            error = str(failure)
        results.append({"channel": name, "provider_id": provider_id, "error": error})
    return results


def _notification(channel: str) -> Notification:
    """Return a notification that no database knows, each time another, so that nobody drops it as known."""
    now = datetime.now(UTC)
    labels = {"alertname": "FleetwatchTest", "severity": "info"}
    description = f'Somebody tests the channel "{channel}". There is nothing to do.'
    incident = Incident(
        fingerprint=f"test-{secrets.token_hex(8)}",
        starts_at=now,
        status=Status.FIRING,
        severity=labels["severity"],
        summary=SUMMARY,
        labels=labels,
        annotations={"summary": SUMMARY, "description": description},
        generator_url="",
        external_url="",
        receiver="",
        received_at=now,
    )
    return Notification(incident=incident, transition=Transition.FIRING, channel=channel, route="")


def _print(text: str) -> None:
    print(text)  # noqa: T201 - the command's output
