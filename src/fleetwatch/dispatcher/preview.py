"""``fleetwatch-receiver render``: shows what a message looks like, without a database and without secrets."""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fleetwatch.alerting.settings import AlertingSettings
from fleetwatch.common.settings import read
from fleetwatch.dispatcher.render import TEMPLATES, BrokenTemplateError, Renderer
from fleetwatch.dispatcher.sample import sample
from fleetwatch.receiver.webhook import WebhookError, parse
from fleetwatch.store import Incident, Notification, Status
from fleetwatch.store.models import Transition

_MAX_COUNT = 5000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``render``; ``--config FILE`` is there already."""
    parser.add_argument(
        "--template", choices=TEMPLATES, default="mail.html", help="which one; default %(default)s"
    )
    parser.add_argument(
        "--alert", type=Path, metavar="FILE", help="body of an Alertmanager webhook; default a made-up alert"
    )
    parser.add_argument(
        "--transition", choices=list(map(str, Transition)), default="firing", help="default %(default)s"
    )
    parser.add_argument(
        "--count", type=_count, metavar="N", help="a digest of so many; default as many as FILE has, or 1"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write it; default stdout")


def run(options: argparse.Namespace) -> int:
    """Print what the parsed options ask for; return the exit code. Raises SettingsError and OSError."""
    logging.basicConfig(level=logging.CRITICAL)  # a broken template is told below, in one line
    try:
        renderer = Renderer(_settings(options.config))
        renderer.check()
        rows = _rows(options.alert, Transition(options.transition), options.count)
        text = renderer.message(rows, [options.template]).parts[options.template]
        if options.output:
            options.output.write_text(text, encoding="utf-8")
        else:
            sys.stdout.buffer.write(text.encode() + (b"" if text.endswith("\n") else b"\n"))
    except (BrokenTemplateError, WebhookError) as error:
        print(f"fleetwatch-receiver: {error}", file=sys.stderr)  # noqa: T201 - the command's output
        return 1
    return 0


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= _MAX_COUNT:
        raise argparse.ArgumentTypeError(f"not between 1 and {_MAX_COUNT}")
    return count


def _settings(config: Path | None) -> AlertingSettings:
    """Return the site's settings, or without a file ones that show every link."""
    if config:
        return read(AlertingSettings, config)
    return AlertingSettings.model_validate(
        {
            "channels": [{"name": "mail", "type": "webhook", "url": "https://example.org"}],
            "external_url": "https://alerts.example.org",
        }
    )


def _rows(file: Path | None, transition: Transition, count: int | None) -> Sequence[Notification]:
    now = datetime.now(UTC)
    if file is None:
        return sample(transition, count or 1, now)
    resolved = transition is Transition.RESOLVED
    rows = []
    events = parse(file.read_bytes(), _MAX_COUNT).events
    for number, event in enumerate(itertools.islice(itertools.cycle(events), count or len(events)), 1):
        starts_at = event.starts_at or now
        incident = Incident(
            id=number,
            fingerprint=event.fingerprint,
            starts_at=starts_at,
            status=Status.RESOLVED if resolved else Status.FIRING,
            severity=event.severity,
            summary=event.summary,
            labels=event.labels,
            annotations=event.annotations,
            generator_url=event.generator_url,
            external_url=event.external_url,
            receiver=event.receiver,
            received_at=now,
            ends_at=(event.ends_at or now) if resolved else None,
        )
        rows.append(Notification(incident=incident, transition=transition, channel="mail", route="default"))
    return rows
