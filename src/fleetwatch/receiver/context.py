"""What each request needs: settings, store, and what belongs to them."""

from __future__ import annotations

import logging

from flask import current_app
from sqlalchemy.exc import SQLAlchemyError

from fleetwatch.common import health
from fleetwatch.receiver.committer import Committer
from fleetwatch.receiver.metrics import Metrics
from fleetwatch.receiver.settings import ReceiverSettings
from fleetwatch.store import Store

log = logging.getLogger(__name__)


class Receiver:
    """The parts of a running receiver."""

    def __init__(self, settings: ReceiverSettings) -> None:
        """Open the store; raises SchemaError or SQLAlchemyError."""
        self.settings = settings
        self.router = settings.router
        self.store = Store(settings.database_url, settings.database_password)
        self.registry = health.registry()
        self.metrics = Metrics(self.registry, self.store, settings.external_url or "")
        self.committer = Committer(self.store, self.router, self.metrics.group_requests)

    def ready(self) -> str | None:
        """Return why alerts cannot be accepted now, or ``None``."""
        try:
            self.store.check_writable()
        except SQLAlchemyError:
            log.exception("store not writable")
            return "the database cannot be written"
        return None

    def close(self) -> None:
        """Commit what waits and close the store."""
        self.committer.close()
        self.store.close()


def receiver() -> Receiver:
    """Return the receiver that the request at hand is for."""
    found: Receiver = current_app.extensions["receiver"]
    return found
