"""The outbox: notifications that wait for delivery.

A dispatcher *claims* rows for a limited time (the lease). When it dies, the claim runs out and the rows
are taken up again. Each result is written only by the one who still holds the claim.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, and_, exists, func, or_, select, update
from sqlalchemy.orm import aliased, joinedload

from fleetwatch.store.database import Database
from fleetwatch.store.models import Notification, State

MAX_ERROR = 1000  # characters of an error's text that are kept


@dataclass(frozen=True)
class OutboxDepth:
    """How the outbox stands."""

    queued: int
    parked: int
    oldest_age: float
    """Seconds since the oldest queued notification was committed; 0 when none is queued."""


class Outbox(Database):
    """The part of the store that keeps notifications."""

    def claim(self, claimant: str, limit: int, lease: float) -> list[Notification]:
        """Claim up to ``limit`` notifications that are due, with their incidents, the oldest first.

        claimant: a name that no other dispatcher uses.
        lease: seconds after which the claim is void.
        """
        due = _due(datetime.now(UTC))
        with self.read() as session:  # an idle dispatcher must not keep taking the write lock
            if session.scalar(select(Notification.id).where(due).limit(1)) is None:
                return []
        with self.write() as session:
            now = datetime.now(UTC)
            query = (
                select(Notification)
                .where(_due(now))
                .options(joinedload(Notification.incident, innerjoin=True))
                .order_by(Notification.due_at, Notification.id)
                .limit(limit)
                .with_for_update(skip_locked=True, of=Notification)
            )
            rows = list(session.scalars(query))
            for row in rows:
                row.claimed_by = claimant
                row.claimed_until = now + timedelta(seconds=lease)
                row.attempts += 1
            return rows

    def mark_sent(self, notification: Notification, provider_id: str | None) -> bool:
        """Record that the provider took the message; False when the claim had run out meanwhile."""
        return self._finish(
            notification,
            state=State.SENT,
            sent_at=datetime.now(UTC),
            provider_id=provider_id,
            last_error=None,
        )

    def mark_retry(self, notification: Notification, delay: float, error: str) -> bool:
        """Put the notification back for another attempt in ``delay`` seconds."""
        due = datetime.now(UTC) + timedelta(seconds=delay)
        return self._finish(notification, due_at=due, last_error=error[:MAX_ERROR])

    def mark_parked(self, notification: Notification, error: str) -> bool:
        """Set the notification aside for good, with the reason."""
        return self._finish(notification, state=State.PARKED, last_error=error[:MAX_ERROR])

    def depth(self) -> OutboxDepth:
        """Return how many notifications wait or are parked, and the age of the oldest that waits."""
        query = select(Notification.state, func.count(), func.min(Notification.queued_at)).where(
            Notification.state != State.SENT
        )
        with self.read() as session:
            found = {
                state: (count, oldest)
                for state, count, oldest in session.execute(query.group_by(Notification.state))
            }
        queued, oldest = found.get(State.QUEUED, (0, None))
        parked, _ = found.get(State.PARKED, (0, None))
        age = (datetime.now(UTC) - oldest).total_seconds() if oldest else 0.0
        return OutboxDepth(queued, parked, max(age, 0.0))

    def _finish(self, notification: Notification, **values: object) -> bool:
        query = (
            update(Notification)
            .where(
                Notification.id == notification.id,
                Notification.claimed_by == notification.claimed_by,
                Notification.attempts == notification.attempts,  # not claimed again, by whomever
            )
            .values(claimed_by=None, claimed_until=None, **values)
        )
        with self.write() as session:
            return bool(session.connection().execute(query).rowcount)


def _due(now: datetime) -> ColumnElement[bool]:
    """Return the condition for rows that may be claimed now."""
    earlier = aliased(Notification)
    # "Resolved" must not overtake "firing" of the same incident, even while that is being retried.
    waits_for_earlier = exists().where(
        earlier.incident_id == Notification.incident_id,
        earlier.channel == Notification.channel,
        earlier.id < Notification.id,
        earlier.state == State.QUEUED,
    )
    return and_(
        Notification.state == State.QUEUED,
        Notification.due_at <= now,
        or_(Notification.claimed_until.is_(None), Notification.claimed_until < now),
        ~waits_for_earlier,
    )
