"""Transactions in PostgreSQL, for API and worker.

    storage = Storage(settings, PoolMetrics(registry), API)
    transaction, new = storage.create(New(amount=Decimal("12.34"), currency="EUR", payment_id="p1"))
    with storage.claim(10) as claim:
        for transaction in claim.transactions:
            claim.settle(transaction, Status.COMPLETED)

Every method raises ``UnavailableError`` when PostgreSQL is away, hangs, or has no free connection in time;
it may be there again at the next call, which needs no help for that. Safe to use from several threads.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from threading import Lock
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import (
    Connection,
    Engine,
    Row,
    create_engine,
    delete,
    event,
    func,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from fleetwatch.demo import traces
from fleetwatch.demo.metrics import PoolMetrics
from fleetwatch.demo.models import Base, Status, Transaction
from fleetwatch.demo.settings import Settings

if TYPE_CHECKING:
    from psycopg.abc import RV, PQGen

LONGEST_CLAIM = 60
"""Seconds without a statement after which a worker that hangs loses what it claimed."""

_LONGEST_STATEMENT = 5
_LONGEST_SILENCE = _LONGEST_STATEMENT + 2  # seconds; then the server hangs, or the network
_SCHEMA_LOCK = 0x74786E73  # "txns": any constant that nobody else uses in this database
_SESSION = {
    "timezone": "UTC",
    "statement_timeout": f"{_LONGEST_STATEMENT}s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": f"{LONGEST_CLAIM}s",
}
_CONNECT: dict[str, Any] = {
    "connect_timeout": 2,  # seconds, as the next three
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "options": " ".join(f"-c {name}={value}" for name, value in _SESSION.items()),
}


class UnavailableError(Exception):
    """The database does not do its work now; the text says why, in one line."""


@dataclass(frozen=True, kw_only=True)
class New:
    """A transaction to be."""

    amount: Decimal
    currency: str
    payment_id: str
    reference: str | None = None
    idempotency_key: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True)
class Backlog:
    """What waits for a worker."""

    count: int
    oldest_age: float
    """Seconds since the oldest of them was made; 0 when there is none."""


class Claim:
    """Pending transactions that nobody else gets, as long as the claim is held."""

    def __init__(self, session: Session, transactions: Sequence[Transaction]) -> None:
        """See ``Storage.claim``."""
        self.transactions = transactions
        self._session = session

    def settle(self, transaction: Transaction, status: Status, reason: str | None = None) -> float:
        """Complete or fail one of them; it counts when the claim ends without an exception.

        Returns the seconds since it was made.
        """
        finished_at = self._session.execute(
            update(Transaction)
            .where(Transaction.id == transaction.id)
            .values(status=status, reason=reason, finished_at=func.clock_timestamp())
            .returning(Transaction.finished_at)
            .execution_options(synchronize_session=False)
        ).scalar_one()
        assert finished_at is not None  # noqa: S101 - just set
        return (finished_at - transaction.created_at).total_seconds()


class Storage:
    """The database. It need not be there yet; its table is made when it is."""

    def __init__(self, settings: Settings, metrics: PoolMetrics, name: str) -> None:
        """Prepare the pool, without connecting. ``name`` is what PostgreSQL calls these connections."""
        self._metrics = metrics
        self._limit = settings.database_pool_size + settings.database_max_overflow
        self._prepared = False
        self._preparing = Lock()
        self._engine = _engine(settings, name)
        metrics.watch(self._pool, settings.database_max_overflow)

    def create(self, new: New) -> tuple[Transaction, bool]:
        """Store a pending transaction; return it, and whether it is new.

        It is not when there is one with the same idempotency key, which is returned then.
        """
        with self._begin() as session:
            made = session.scalars(
                insert(Transaction)
                .values(**asdict(new))
                .on_conflict_do_nothing(index_elements=[Transaction.idempotency_key])
                .returning(Transaction)
            ).one_or_none()
            if made is not None:
                return made, True
            return session.scalars(_of_key(new.idempotency_key)).one(), False

    def get(self, id: UUID) -> Transaction | None:  # noqa: A002 - its name in the API as well
        """Return a transaction, ``None`` when there is none."""
        with self._begin() as session:
            return session.get(Transaction, id)

    def by_key(self, idempotency_key: str) -> Transaction | None:
        """Return the transaction made with a key, ``None`` when there is none."""
        with self._begin() as session:
            return session.scalars(_of_key(idempotency_key)).one_or_none()

    def page(
        self, limit: int, before: tuple[datetime, UUID] | None = None, status: Status | None = None
    ) -> Sequence[Transaction]:
        """Return transactions, newest first.

        before: time and id of the last one that was seen, to go on from there.
        status: only these.
        """
        place = tuple_(Transaction.created_at, Transaction.id)
        query = select(Transaction).order_by(Transaction.created_at.desc(), Transaction.id.desc())
        if before is not None:
            query = query.where(place < tuple_(*before))
        if status is not None:
            query = query.where(Transaction.status == status)
        with self._begin() as session:
            return session.scalars(query.limit(limit)).all()

    @contextmanager
    def claim(self, limit: int = 1, id: UUID | None = None) -> Iterator[Claim]:  # noqa: A002 - as in get
        """Take pending transactions that nobody else holds, oldest first; without waiting, so maybe none.

        Leaving the block makes durable what was settled and frees the rest. An exception frees all, and so
        does the end of the process, or of the connection: rows are locked, not marked.

        limit: most of them.
        id: only this one.
        """
        query = select(Transaction).where(Transaction.status == Status.PENDING)
        if id is not None:
            query = query.where(Transaction.id == id)
        query = query.order_by(Transaction.created_at, Transaction.id).limit(limit)
        with self._begin() as session:
            yield Claim(session, session.scalars(query.with_for_update(skip_locked=True)).all())

    def backlog(self) -> Backlog:
        """Return how much is pending, and since when."""
        age = func.extract("epoch", func.now() - func.min(Transaction.created_at))
        query = select(func.count(), func.coalesce(age, 0)).where(Transaction.status == Status.PENDING)
        with self._begin() as session:
            count, oldest = session.execute(query).one()
            return Backlog(count, max(float(oldest), 0.0))

    def delete_finished(self, older_than: timedelta, limit: int = 1000) -> int:
        """Delete transactions that were finished so long ago; return how many.

        limit: most at once, so that nobody waits for it. Call it again while it returns as many.
        """
        then = func.now() - older_than
        old = (
            select(Transaction.id)
            .where(
                Transaction.status.in_((Status.COMPLETED, Status.FAILED)),
                Transaction.created_at < then,  # as it follows from the next, but this one has an index
                Transaction.finished_at < then,
            )
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        with self._begin() as session:
            done: Sequence[Row[Any]] = session.execute(
                delete(Transaction)
                .where(Transaction.id.in_(old))
                .returning(Transaction.id)
                .execution_options(synchronize_session=False)
            ).all()
            return len(done)

    def ping(self) -> None:
        """Return when the database answers."""
        with self._begin() as session:
            session.execute(select(1))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _pool(self) -> QueuePool:
        pool = self._engine.pool
        assert isinstance(pool, QueuePool)  # noqa: S101 - as it was made
        return pool

    @contextmanager
    def _begin(self) -> Iterator[Session]:
        """Open a database transaction: committed at the end, rolled back by an exception."""
        try:
            with self._connect() as connection:
                self._prepare(connection)
                with Session(connection, expire_on_commit=False) as session, session.begin():
                    yield session
        except PoolTimeoutError:
            raise UnavailableError(f"all {self._limit} connections to the database are in use") from None
        except (OperationalError, InterfaceError) as error:
            raise UnavailableError(_reason(error)) from error

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        """Take a connection from the pool, and measure the waiting."""
        if self._pool().checkedout() >= self._limit:
            self._metrics.waits.inc()
        began = time.monotonic()
        try:
            connection = self._engine.connect()
        except PoolTimeoutError:
            self._metrics.timeouts.inc()
            raise
        finally:
            self._metrics.wait_seconds.observe(time.monotonic() - began)
        with connection:
            yield connection

    def _prepare(self, connection: Connection) -> None:
        """Make the table, unless it is there; of many that try, one does it and the others wait."""
        if self._prepared:
            return
        with self._preparing:
            if not self._prepared:
                try:
                    with connection.begin():
                        connection.execute(select(func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
                        Base.metadata.create_all(connection)
                except ProgrammingError as error:  # such as a missing privilege, which may be cured
                    raise UnavailableError(f"the table cannot be made: {_reason(error)}") from error
                self._prepared = True


class _Connection(psycopg.Connection[Any]):
    """A connection that does not wait for ever for a server that says nothing.

    A frozen server keeps its sockets open, so neither keepalives nor its own timeouts tell.
    """

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Wait as always, but not longer than any statement may take."""
        try:
            return super().wait(gen, interval, _LONGEST_SILENCE if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.info.transaction_status == TransactionStatus.ACTIVE:
                self.close()  # what comes late would be taken for the answer to something else
            raise


def _engine(settings: Settings, name: str) -> Engine:
    engine = create_engine(
        make_url(settings.database_url.get_secret_value()).set(drivername="postgresql+psycopg"),
        connect_args=_CONNECT | {"application_name": name},
        poolclass=QueuePool,
        pool_size=settings.database_pool_size,
        max_overflow=settings.database_max_overflow,
        pool_timeout=settings.database_pool_timeout,
        pool_pre_ping=True,  # a connection that died with the server is replaced before it is used
        hide_parameters=True,  # in errors, and so in logs
    )

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: object, _record: object, args: Any, options: Any) -> _Connection:
        return _Connection.connect(*args, **options)

    traces.trace_queries(engine)
    return engine


def _of_key(key: str | None) -> Any:
    return select(Transaction).where(Transaction.idempotency_key == key)


def _reason(error: DBAPIError) -> str:
    """Return the first line of what PostgreSQL says; it names no secret."""
    lines = str(error.orig).strip().splitlines()
    return lines[0] if lines else type(error.orig).__name__
