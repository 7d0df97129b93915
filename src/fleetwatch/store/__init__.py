"""The store that receiver and dispatcher share: incidents and the outbox of notifications.

An *incident* is one occurrence of an alert, known by (fingerprint, starts_at). Its *transitions* are
``firing`` and ``resolved``. Each transition puts one *notification* per channel into the outbox, in the
same transaction as the alert itself, so an alert that was accepted cannot lose its message.
"""

from fleetwatch.store.alert_event import AlertEvent
from fleetwatch.store.database import SchemaError, SchemaTooNewError
from fleetwatch.store.desk import ConflictError, Desk, Entry, Page, UnknownIncidentError, timeline
from fleetwatch.store.incidents import Accepted, Incidents
from fleetwatch.store.maintenance import Maintenance
from fleetwatch.store.models import (
    Event,
    EventKind,
    Incident,
    Notification,
    State,
    Status,
    Transition,
    Watchdog,
)
from fleetwatch.store.outbox import Outbox, OutboxDepth
from fleetwatch.store.reconciliation import Reconciliation
from fleetwatch.store.watchdogs import Watchdogs

__all__ = [
    "Accepted",
    "AlertEvent",
    "ConflictError",
    "Entry",
    "Event",
    "EventKind",
    "Incident",
    "Notification",
    "OutboxDepth",
    "Page",
    "SchemaError",
    "SchemaTooNewError",
    "State",
    "Status",
    "Store",
    "Transition",
    "UnknownIncidentError",
    "Watchdog",
    "timeline",
]


class Store(Incidents, Outbox, Desk, Reconciliation, Watchdogs, Maintenance):
    """Incidents and outbox in one database."""
