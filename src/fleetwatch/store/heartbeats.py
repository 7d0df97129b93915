"""Heartbeats: the Watchdog that a Prometheus always fires, recorded as it comes.

Its labels say whose it is. The servers of an HA pair fire the same one, and one that goes by two
Alertmanagers or to two receivers is the same too, so each of them is enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleetwatch.alerting.labels import fingerprint
from fleetwatch.alerting.routes import DEFAULT_RECEIVER, WATCHDOG_RECEIVER
from fleetwatch.store.alert_event import AlertEvent
from fleetwatch.store.models import Status, Watchdog

ALERT = "WatchdogMissing"
"""Name of the alert that this program raises itself."""
EXPECTED = ""
"""Fingerprint of what is expected and has never come."""

_NOT_OF_THE_SOURCE = ("alertname", "severity")


def is_heartbeat(event: AlertEvent) -> bool:
    """Tell whether an event is about a Watchdog, and so never an incident."""
    return event.receiver == WATCHDOG_RECEIVER


def record_heartbeats(session: Session, events: Iterable[AlertEvent], now: datetime) -> list[AlertEvent]:
    """Record the heartbeats among the events; return the ends of incidents that they bring.

    A Watchdog that is over is no heartbeat: Alertmanager tells so when Prometheus is silent.

    session: of ``Database.write()``.
    """
    beats = {event.fingerprint: event.labels for event in events if event.status is Status.FIRING}
    if not beats:
        return []
    query = select(Watchdog).where(Watchdog.fingerprint.in_([*beats, EXPECTED]))
    known = {row.fingerprint: row for row in session.scalars(query)}
    back = [missing_event(row, now) for row in known.values() if row.missing]
    for number, labels in beats.items():
        row = known.get(number)
        if row is None:
            session.add(new_watchdog(now, number, labels))
        else:
            row.beat_at = row.looked_at = now
            row.silent_for, row.missing = 0.0, False
    if EXPECTED in known:
        session.delete(known[EXPECTED])
    return back


def new_watchdog(now: datetime, number: str = EXPECTED, labels: Mapping[str, str] | None = None) -> Watchdog:
    """Return the row of one whose heartbeat comes now, or is expected from now on."""
    return Watchdog(
        fingerprint=number,
        labels=dict(labels or {}),
        beat_at=now,
        looked_at=now,
        silent_for=0.0,
        missing=False,
    )


def source(labels: Mapping[str, str]) -> str:
    """Return what tells one Prometheus from others, as ``region=eu``; empty for the only one."""
    rest = {name: value for name, value in labels.items() if name not in _NOT_OF_THE_SOURCE}
    return ", ".join(f"{name}={value}" for name, value in sorted(rest.items()))


def missing_event(row: Watchdog, ended: datetime | None = None, runbook_url: str | None = None) -> AlertEvent:
    """Return the report that heartbeats are missing, or that they come again.

    ended: when they came again; ``None`` while they are missing.
    runbook_url: folder of the runbook.
    """
    labels = {**row.labels, "alertname": ALERT, "severity": "critical"}
    name = source(row.labels)
    whom = f"Prometheus ({name})" if name else "Prometheus"
    since = row.beat_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    never = row.fingerprint == EXPECTED
    story = f"is expected since {since}, and has never come" if never else f"came last at {since}"
    annotations = {
        "summary": f"No heartbeat from {whom}",
        "description": (
            f"The Watchdog of {whom} {story}. Prometheus, Alertmanager or the way from one to the other or "
            "to this receiver is broken, or a silence holds it back. Until it comes, other alerts may not "
            "arrive either."
        ),
    }
    if runbook_url:
        annotations["runbook_url"] = f"{runbook_url}/{ALERT}.md"
    return AlertEvent(
        status=Status.RESOLVED if ended else Status.FIRING,
        fingerprint=fingerprint(labels),
        labels=labels,
        annotations=annotations,
        starts_at=row.beat_at,
        ends_at=ended,
        # Routes may choose by it. That Alertmanager does not know the incident is said by the missing URL.
        receiver=DEFAULT_RECEIVER,
    )
