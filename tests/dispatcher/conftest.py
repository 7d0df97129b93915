from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fleetwatch.dispatcher import channels
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

    def accept(self, *alerts: dict[str, Any], **group: object) -> None:
        import json  # noqa: PLC0415

        batch = webhook.parse(json.dumps({"alerts": alerts, **group}).encode(), 1000)
        assert batch.refused == []
        self.store.accept(batch.events, ("sendgrid",))

    def incidents(self) -> list[Incident]:
        """Return all incidents, the oldest first."""
        return list(reversed(self.store.incidents()))

    def notification(self) -> Notification:
        (incident,) = self.store.incidents()
        return incident.notifications[-1]

    def wait(self, check: Callable[[Notification], object], what: str = "") -> Notification:
        wait_until(lambda: check(self.notification()), what=what)
        return self.notification()

    def wait_sent(self) -> Notification:
        return self.wait(lambda row: row.state == State.SENT, "sent")

    @contextmanager
    def dispatcher(self, **settings: object) -> Iterator[CollectorRegistry]:
        """Run a dispatcher in a thread."""
        registry = CollectorRegistry()
        model = DispatcherSettings.model_validate(self.settings | settings)
        dispatcher = Dispatcher(model, self.store, channels.build(model), registry)
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
def post(database: str, store: Store, mailbox: MailboxServer) -> Post:
    settings = {
        "database_url": database,
        "sender": "fleetwatch@example.org",
        "recipients": ["ops@example.org", "boss@example.org"],
        "links": {"Wiki": "https://wiki.example.org"},
        "sendgrid_host": mailbox.url,
        "sendgrid_api_key": API_KEY,
        "sendgrid_timeout": 3,
        "retry_base": 0.05,
        "retry_max": 0.2,
    }
    return Post(store, settings)
