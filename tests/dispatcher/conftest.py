from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import select
from sqlalchemy.orm import selectinload

from fleetwatch.dispatcher import channels
from fleetwatch.dispatcher.channels import Channel
from fleetwatch.dispatcher.dispatcher import Dispatcher
from fleetwatch.dispatcher.settings import DispatcherSettings
from fleetwatch.receiver import webhook
from fleetwatch.store import Incident, Notification, State, Store
from tests.common.services import API_KEY, MailboxServer, run_mailbox, wait_until


@dataclass
class Post:
    """The store with what the tests do to it."""

    store: Store
    settings: dict[str, Any]

    def model(self, **settings: object) -> DispatcherSettings:
        """Return the settings with changes; those of ``channel`` are for each of the channels."""
        values = self.settings | settings
        changes: Any = values.pop("channel", {})
        values["channels"] = [{**channel, **changes} for channel in values["channels"]]
        return DispatcherSettings.model_validate(values)

    def accept(self, *alerts: dict[str, Any], traceparent: str | None = None, **group: object) -> None:
        batch = webhook.parse(json.dumps({"alerts": alerts, **group}).encode(), 1000, traceparent)
        assert batch.refused == []
        self.store.accept([batch.events], self.model().router)

    def incidents(self) -> list[Incident]:
        """Return all incidents with their notifications and events, the oldest first."""
        query = (
            select(Incident)
            .options(selectinload(Incident.notifications), selectinload(Incident.events))
            .order_by(Incident.id)
        )
        with self.store.read() as session:
            return list(session.scalars(query))

    def notifications(self) -> list[Notification]:
        return [row for incident in self.incidents() for row in incident.notifications]

    def notification(self) -> Notification:
        """Return the last notification of the only incident."""
        (incident,) = self.incidents()
        return incident.notifications[-1]

    def wait(self, check: Callable[[Notification], object], what: str = "") -> Notification:
        wait_until(lambda: check(self.notification()), what=what)
        return self.notification()

    def wait_sent(self) -> Notification:
        return self.wait(lambda row: row.state == State.SENT, "sent")

    @contextmanager
    def dispatcher(
        self, built: Mapping[str, Channel] | None = None, **settings: object
    ) -> Iterator[CollectorRegistry]:
        """Run a dispatcher in a thread.

        built: channels to take instead of the real ones.
        """
        registry = CollectorRegistry()
        model = self.model(**settings)
        dispatcher = Dispatcher(model, self.store, built or channels.build(model), registry)
        thread = Thread(target=dispatcher.run)
        thread.start()
        try:
            yield registry
        finally:
            dispatcher.stop()
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[MailboxServer]:
    with run_mailbox(tmp_path) as server:
        yield server


@pytest.fixture
def post(store: Store, mailbox: MailboxServer) -> Post:
    return Post(
        store,
        {
            "channels": [
                {
                    "name": "mail",
                    "type": "sendgrid",
                    "sender": "fleetwatch@example.org",
                    "recipients": ["ops@example.org", "boss@example.org"],
                    "host": mailbox.url,
                    "timeout": 3,
                    "group_above": 0,
                    "breaker_failures": 1000,
                }
            ],
            "channel_secrets": {"mail.api_key": API_KEY},
            "links": {"Wiki": "https://wiki.example.org"},
            "poll_interval": 0.05,
            "retry_base": 0.05,
            "retry_max": 0.2,
        },
    )
