"""The subcommands of ``fleetwatch-receiver`` for messages that were given up."""

from __future__ import annotations

import argparse
import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager

from fleetwatch.alerting.settings import AlertingSettings
from fleetwatch.common.settings import read
from fleetwatch.dispatcher.render import one_line
from fleetwatch.receiver.schemas import MAX_LIMIT, DeadLetter, iso
from fleetwatch.store import Notification, Store


class DeadLetters:
    """``dead-letters``."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument("--channel", metavar="NAME", help="only those of this channel")
        parser.add_argument("--json", action="store_true", help="write a JSON object a line")
        parser.epilog = (
            "Columns: id, since when, channel, what it tells of, attempts, incident, and the last error."
        )

    @staticmethod
    def run(options: argparse.Namespace) -> int:
        """List them, the newest first."""
        with _store(options) as store:
            cursor = None
            while True:
                page = store.dead_letters(channel=options.channel, limit=MAX_LIMIT, cursor=cursor)
                for row in page.rows:
                    _say(DeadLetter.model_validate(row).model_dump_json() if options.json else _line(row))
                if (cursor := page.next) is None:
                    return 0


class Requeue:
    """``requeue``."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the options."""
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument(
            "--id", type=int, action="append", metavar="ID", help="this one; repeat it for more"
        )
        which.add_argument("--channel", metavar="NAME", help="all of this channel")
        which.add_argument("--all", action="store_true", help="all")
        parser.epilog = "The dispatcher tries them at once, and gives them up again only after retry_give_up."

    @staticmethod
    def run(options: argparse.Namespace) -> int:
        """Let them be tried again."""
        user = os.environ.get("SUDO_USER") or getpass.getuser()
        with _store(options) as store:
            _say(f"messages queued again: {store.requeue(user, ids=options.id, channel=options.channel)}")
        return 0


def _line(row: Notification) -> str:
    # What comes from an alert must not write to the terminal as it likes.
    incident = one_line(f"incident {row.incident_id} [{row.incident.severity}] {row.incident.summary}")
    columns = (row.id, iso(row.queued_at), row.channel, row.transition, row.attempts, incident)
    return "  ".join(map(str, columns)) + f": {one_line(row.last_error or '')}"


@contextmanager
def _store(options: argparse.Namespace) -> Iterator[Store]:
    settings = read(AlertingSettings, options.config)
    store = Store(settings.database_url, settings.database_password)
    try:
        yield store
    finally:
        store.close()


def _say(text: str) -> None:
    print(text)  # noqa: T201 - the command's output
