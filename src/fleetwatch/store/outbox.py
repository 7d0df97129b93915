"""The outbox: notifications that wait for delivery.

A dispatcher *claims* rows for a limited time (the lease). When it dies, the claim runs out and the rows
are taken up again. Each result is written only by the one who still holds the claim.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from sqlalchemy import ColumnElement, and_, exists, func, insert, or_, select, tuple_, update
from sqlalchemy.orm import Session, aliased, contains_eager

from fleetwatch.store.database import Database
from fleetwatch.store.models import Event, EventKind, Incident, Notification, State, Status, Transition

MAX_ERROR = 1000  # characters of an error's text that are kept
MAX_GROUP = 1000  # notifications in one message
_FOLLOW_UPS = (Transition.REMINDER, Transition.ESCALATION)
_POSTPONE = timedelta(minutes=1)
# A clock that was set back leaves times behind that it will not reach for long. No retry is later than this.
_LONGEST_RETRY = timedelta(hours=2)
_CLOCK_SLACK = timedelta(minutes=1)
_EARLIER = aliased(Notification)  # once: making it costs as much as a query

NextReminder = Callable[[Notification], timedelta | None]
"""Returns how long after a sent message the next reminder is due, ``None`` for never."""


@dataclass(frozen=True)
class OutboxDepth:
    """How the outbox stands."""

    queued: int
    """Notifications whose time has come and that are not delivered."""
    parked: int
    oldest_age: float
    """Seconds since the oldest of the queued was to go out; 0 when none is queued."""


class Outbox(Database):
    """The part of the store that keeps notifications."""

    def claim(  # noqa: PLR0913 - each is a setting of the channel
        self,
        claimant: str,
        channel: str,
        limit: int,
        *,
        lease: float,
        group_above: int = 0,
        group_wait: float = 0.0,
    ) -> list[list[Notification]]:
        """Claim what is due on a channel, the oldest first; each inner list is to go out as one message.

        claimant: a name that no other dispatcher uses.
        limit: how many messages at most.
        lease: seconds after which the claim is void.
        group_above: when more notifications than this wait, or came within ``group_wait`` seconds, they are
            collected for so long and then go out as one; 0 never groups.
        """
        with self.read() as session:  # an idle dispatcher must not keep taking the write lock
            if self._next(session, channel, lease, group_above, group_wait) == "wait":
                return []
        with self.work() as session:
            what = self._next(session, channel, lease, group_above, group_wait)
            if what == "wait":
                return []
            now = datetime.now(UTC)
            query = (
                select(Notification)
                .join(Notification.incident)
                .where(Notification.channel == channel, _due(now, lease))
                .options(contains_eager(Notification.incident))
                .order_by(Notification.due_at, Notification.id)
                .limit(MAX_GROUP if what == "group" else limit)
                .with_for_update(skip_locked=True, of=Notification)
            )
            rows = [row for row in session.scalars(query) if _still_wanted(row, now)]
            for row in rows:
                row.claimed_by = claimant
                row.claimed_until = now + timedelta(seconds=lease)
                row.attempts += 1
        if what == "group":
            return [rows] if rows else []
        return [[row] for row in rows]

    @staticmethod
    def _next(
        session: Session, channel: str, lease: float, group_above: int, group_wait: float
    ) -> Literal["wait", "single", "group"]:
        """Tell whether there is something to send now, and whether as one message."""
        now = datetime.now(UTC)
        due = select(Notification.wanted_at).where(Notification.channel == channel, _due(now, lease))
        # Not the minimum of all: the first one found mostly answers the question.
        if session.scalar(due.limit(1)) is None:
            return "wait"
        if not group_above:
            return "single"
        began = now - timedelta(seconds=group_wait)
        waiting = list(session.scalars(due.order_by(Notification.wanted_at).limit(group_above + 1)))
        recent = (
            select(Notification.id)
            .where(
                Notification.channel == channel, Notification.queued_at > began, Notification.wanted_at <= now
            )
            .limit(group_above + 1)
        )
        if len(waiting) <= group_above and len(list(session.scalars(recent))) <= group_above:
            return "single"
        # The first of a burst waits, so that what belongs together comes together.
        return "group" if waiting[0] <= began or waiting[0] > now else "wait"

    def mark_sent(
        self,
        rows: Sequence[Notification],
        provider_id: str | None,
        next_reminder: NextReminder = lambda _row: None,
    ) -> bool:
        """Record that the provider took the message, and queue the next reminders.

        False when a claim had run out meanwhile.
        """
        now = datetime.now(UTC)
        with self.work() as session:
            done = _finish(
                session,
                rows,
                state=State.SENT.value,
                sent_at=now,
                provider_id=provider_id,
                last_error=None,
            )
            if done:
                _queue_reminders(session, rows, next_reminder, now)
        return done

    def mark_retry(self, rows: Sequence[Notification], delay: float, error: str) -> bool:
        """Put the notifications back for another attempt in ``delay`` seconds."""
        error = error[:MAX_ERROR]
        due = datetime.now(UTC) + timedelta(seconds=delay)
        with self.work() as session:
            done = _finish(session, rows, due_at=due, last_error=error)
            # The same error again and again is told by the number of attempts.
            _log(session, [row for row in rows if row.last_error != error], EventKind.RETRIED, error)
        return done

    def mark_parked(self, rows: Sequence[Notification], error: str) -> bool:
        """Set the notifications aside for good, with the reason."""
        error = error[:MAX_ERROR]
        with self.work() as session:
            done = _finish(session, rows, state=State.PARKED.value, last_error=error)
            _log(session, rows, EventKind.PARKED, error)
        return done

    def give_back(self, rows: Sequence[Notification]) -> bool:
        """Return what was claimed and not begun."""
        with self.work() as session:
            return _finish(session, rows, attempts=Notification.attempts - 1)

    def park_strays(self, channels: Collection[str], grace: float) -> int:
        """Set aside what no dispatcher would ever claim; return how many notifications that were.

        channels: those that there are.
        grace: seconds for which a notification may wait for a dispatcher with newer settings.
        """
        before = datetime.now(UTC) - timedelta(seconds=grace)
        stray = select(Notification).where(
            Notification.state == State.QUEUED,
            Notification.channel.not_in(channels),
            Notification.due_at < before,
        )
        with self.read() as session:
            if session.scalar(stray.limit(1)) is None:
                return 0
        with self.work() as session:
            rows = list(session.scalars(stray.limit(MAX_GROUP).with_for_update(skip_locked=True)))
            for row in rows:
                row.state = State.PARKED
                row.last_error = f'channel "{row.channel}" is not configured'
                _log(session, [row], EventKind.PARKED, row.last_error)
        return len(rows)

    def depth(self) -> OutboxDepth:
        """Return how many notifications wait or are parked, and the age of the oldest that waits."""
        now = datetime.now(UTC)
        waiting = select(func.count(), func.min(Notification.wanted_at)).where(
            Notification.state == State.QUEUED, Notification.wanted_at <= now
        )
        given_up = select(func.count()).where(Notification.state == State.PARKED)
        with self.read() as session:
            queued, oldest = session.execute(waiting).one()
            parked = session.scalar(given_up) or 0
        return OutboxDepth(queued, parked, (now - oldest).total_seconds() if oldest else 0.0)


def _due(now: datetime, lease: float) -> ColumnElement[bool]:
    """Return the condition for rows that may be claimed now."""
    # "Resolved" must not overtake "firing" of the same incident, even while that is being retried.
    waits_for_earlier = exists().where(
        _EARLIER.incident_id == Notification.incident_id,
        _EARLIER.channel == Notification.channel,
        _EARLIER.id < Notification.id,
        # Not "= queued", for which PostgreSQL, before it has statistics, scans all that is queued.
        _EARLIER.state.not_in([State.SENT, State.PARKED, State.CANCELLED]),
        or_(
            _EARLIER.wanted_at <= Notification.wanted_at,
            Notification.transition == Transition.RESOLVED,
        ),
    )
    clock_was_set_back = or_(
        # A retry has its own time, or it would come again at once.
        and_(Notification.attempts == 0, Notification.queued_at > now + _CLOCK_SLACK),
        and_(Notification.attempts > 0, Notification.due_at > now + _LONGEST_RETRY),
    )
    return and_(
        Notification.state == State.QUEUED,
        or_(Notification.due_at <= now, clock_was_set_back),
        or_(
            Notification.claimed_until.is_(None),
            Notification.claimed_until < now,
            Notification.claimed_until > now + timedelta(seconds=2 * lease),
        ),
        ~waits_for_earlier,
    )


def _still_wanted(row: Notification, now: datetime) -> bool:
    """Tell whether a row is to go out; cancel or postpone a reminder or escalation that is not."""
    if row.transition not in _FOLLOW_UPS:
        return True
    incident = row.incident
    if (
        incident.status != Status.FIRING
        or incident.acknowledged_at is not None
        or row.episode != incident.reopened
    ):
        row.state = State.CANCELLED
        return False
    if incident.silenced:
        row.due_at = row.wanted_at = now + _POSTPONE
        return False
    return True


def _finish(session: Session, rows: Sequence[Notification], **values: object) -> bool:
    """End a claim; False when it was no longer held for some of the rows, which then stay as they are."""
    held = tuple_(Notification.id, Notification.claimed_by, Notification.attempts)
    query = (
        update(Notification)
        # With the attempt's number, since the same dispatcher may have claimed a row again.
        .where(held.in_([(row.id, row.claimed_by, row.attempts) for row in rows]))
        .values(claimed_by=None, claimed_until=None, **values)
    )
    return session.connection().execute(query).rowcount == len(rows)


def _queue_reminders(
    session: Session, rows: Sequence[Notification], next_reminder: NextReminder, now: datetime
) -> None:
    wanted = [
        (row, pause)
        for row in rows
        if row.transition in (Transition.FIRING, Transition.REMINDER) and (pause := next_reminder(row))
    ]
    if not wanted:
        return
    open_now = set(
        session.scalars(
            select(Incident.id).where(
                Incident.id.in_([row.incident_id for row, _ in wanted]),
                Incident.status == Status.FIRING,
                Incident.acknowledged_at.is_(None),
            )
        )
    )
    reminders = [
        {
            "incident_id": row.incident_id,
            "transition": Transition.REMINDER.value,
            "sequence": row.sequence + 1 if row.transition == Transition.REMINDER else 0,
            "episode": row.episode,
            "channel": row.channel,
            "route": row.route,
            "state": State.QUEUED.value,
            "attempts": 0,
            "queued_at": now,
            "wanted_at": now + pause,
            "due_at": now + pause,
        }
        for row, pause in wanted
        if row.incident_id in open_now
    ]
    if reminders:
        session.execute(insert(Notification), reminders)


def _log(session: Session, rows: Sequence[Notification], kind: EventKind, text: str) -> None:
    if rows:
        now = datetime.now(UTC)
        session.execute(
            insert(Event),
            [
                {
                    "incident_id": row.incident_id,
                    "at": now,
                    "kind": kind.value,
                    "text": f"{row.transition} by {row.channel}, attempt {row.attempts}: {text}",
                }
                for row in rows
            ],
        )
