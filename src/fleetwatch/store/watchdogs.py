"""The dead man's switch: an incident is opened when heartbeats stay out.

Time counts only as far as a dispatcher sees it go by, in steps that are written down. So a host that was off,
or a clock that jumps, makes no alarm, and a dispatcher that is killed goes on where it was.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleetwatch.alerting.routes import Router
from fleetwatch.store.database import Database
from fleetwatch.store.heartbeats import missing_event, new_watchdog
from fleetwatch.store.incidents import apply_events
from fleetwatch.store.models import Incident, Status, Watchdog


class Watchdogs(Database):
    """The part of the store that notices missing heartbeats."""

    def watchdogs(self) -> list[Watchdog]:
        """Return all whose heartbeats have come or are expected."""
        with self.read() as session:
            return list(session.scalars(select(Watchdog).order_by(Watchdog.fingerprint)))

    def expect_heartbeat(self) -> None:
        """Wait for a first heartbeat from now on, unless some have come or are expected already."""
        if self.watchdogs():
            return
        with self.write() as session:
            if session.scalar(select(Watchdog).limit(1)) is None:
                session.add(new_watchdog(datetime.now(UTC)))

    def watch(
        self, timeout: float, pause: float, router: Router, runbook_url: str | None = None
    ) -> list[str]:
        """Open an incident for each whose heartbeats have been missing for too long.

        Several dispatchers may do so at once; only one of them opens it.

        timeout: seconds without a heartbeat.
        pause: seconds between two calls. More than twice as many count for a jump of the clock, or for time
            when nobody looked.
        runbook_url: folder of the runbook.
        Returns the summaries of the incidents that were opened. Raises SQLAlchemyError.
        """
        if not self.watchdogs():
            return []
        with self.write() as session:
            now = datetime.now(UTC)
            opened = []
            for row in session.scalars(select(Watchdog)).all():
                if row.missing:
                    if not _is_open(session, row):
                        session.delete(row)  # resolved by hand: nobody waits for it any more
                    continue
                _count(row, now, pause)
                if row.silent_for >= timeout:
                    row.beat_at = min(row.beat_at, now)  # in the future when the clock was set back
                    row.missing = True
                    opened.append(missing_event(row, runbook_url=runbook_url))
            apply_events(session, opened, router, now)
        return [event.summary for event in opened]


def _count(row: Watchdog, now: datetime, pause: float) -> None:
    """Add the time since the last look, unless another dispatcher has just added it."""
    passed = (now - row.looked_at) / timedelta(seconds=1)
    if -pause < passed < pause / 2:
        return
    row.silent_for += min(max(passed, 0.0), 2 * pause)
    row.looked_at = now


def _is_open(session: Session, row: Watchdog) -> bool:
    event = missing_event(row)
    query = select(Incident.id).where(
        Incident.fingerprint == event.fingerprint,
        Incident.starts_at == event.starts_at,
        Incident.status == Status.FIRING,
    )
    return session.scalar(query) is not None
