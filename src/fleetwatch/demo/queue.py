"""RabbitMQ between API and worker, which only wakes the worker earlier: the database is the truth.

    publisher = Publisher(url, lambda outcome: metrics.published.labels(outcome).inc())
    publisher.publish(transaction.id)  # at once, whatever RabbitMQ does

    consumer = Consumer(url, prefetch=10, wake=look_into_the_database)
    receipt = consumer.received()
    ...                                # settle what is pending, commit
    consumer.acknowledge(receipt)

Each keeps its one connection in a thread of its own, and connects again when it breaks. RabbitMQ may be away
at any time: then messages are not sent, and the worker finds the transactions when it looks for itself.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Literal
from uuid import UUID

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError
from pika.spec import Basic

QUEUE = "transactions"
"""Name of the queue. Its messages are the ids of transactions."""

Outcome = Literal["sent", "failed"]
State = Literal["off", "up", "down"]

_ARGUMENTS = {"x-max-length": 100_000}  # what nobody fetches must not fill the disk; the oldest go
_WAITING = 1000  # messages that may wait for their turn in the publisher
_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds between two attempts to connect
_TICK = 1.0  # seconds between two looks at the connection when there is nothing to do
_STOP_GRACE = 5.0  # seconds that the thread gets to finish

log = logging.getLogger(__name__)
# It tells of each failure at length and more than once; what matters is told here.
logging.getLogger("pika").setLevel(logging.CRITICAL)


class _Link(ABC):
    """A thread that keeps a connection with one channel, and connects again after each failure."""

    def __init__(self, url: str, name: str) -> None:
        """Start the thread; with an empty URL there is none, and nothing is ever done."""
        self._stop = Event()
        self._connection: pika.BlockingConnection | None = None
        self._thread: Thread | None = None
        if url:
            self._parameters = _parameters(url)
            self._thread = Thread(target=self._run, name=name, daemon=True)
            self._thread.start()

    @property
    def state(self) -> State:
        """How the connection is."""
        if self._thread is None:
            return "off"
        return "up" if self._connection is not None else "down"

    def close(self) -> None:
        """Finish what is under way, within seconds, and disconnect."""
        self._stop.set()
        self._rouse()
        if self._thread is not None:
            self._thread.join(_STOP_GRACE)

    def _run(self) -> None:
        pause, known = _PAUSE, False
        while not self._stop.is_set():
            try:
                with pika.BlockingConnection(self._parameters) as connection:
                    channel = connection.channel()
                    channel.queue_declare(QUEUE, durable=True, arguments=_ARGUMENTS)
                    self._begin(channel)
                    self._connection = connection
                    log.info("queue connected")
                    pause, known = _PAUSE, False
                    self._work(connection, channel)
            except (AMQPError, OSError) as error:
                if not known and not self._stop.is_set():
                    known = True
                    log.warning("queue not usable", extra={"error": _reason(error)})
            except Exception:
                # A fault of ours or of pika's must not end what is to go on for months.
                log.exception("unexpected error")
            finally:
                self._connection = None
            self._disconnected()
            self._stop.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    @abstractmethod
    def _begin(self, channel: BlockingChannel) -> None:
        """Prepare a new channel."""

    @abstractmethod
    def _work(self, connection: pika.BlockingConnection, channel: BlockingChannel) -> None:
        """Do the work until ``_stop``; an exception of pika's has it start anew on another connection."""

    @abstractmethod
    def _rouse(self) -> None:
        """Let ``_work`` see at once that it is to stop. Called from another thread."""

    @abstractmethod
    def _disconnected(self) -> None:
        """Drop what the lost connection leaves behind."""


class Publisher(_Link):
    """Sends the ids of new transactions to the workers. Safe to use from several threads."""

    def __init__(self, url: str, count: Callable[[Outcome], None] = lambda _outcome: None) -> None:
        """Start to connect.

        url: of RabbitMQ; empty for none, and then nothing is sent or counted.
        count: is told what came of each message.
        """
        self._count = count
        self._waiting: Queue[bytes | None] = Queue(_WAITING)
        super().__init__(url, "queue-publisher")

    def publish(self, transaction: UUID) -> None:
        """Have a message sent, if there is a connection; never waits, never raises."""
        if self.state == "up":
            with suppress(Full):
                self._waiting.put_nowait(str(transaction).encode())
                return
        if self.state != "off":
            self._count("failed")

    def _begin(self, channel: BlockingChannel) -> None:
        channel.confirm_delivery()

    def _work(self, connection: pika.BlockingConnection, channel: BlockingChannel) -> None:
        persistent = pika.BasicProperties(
            content_type="text/plain", delivery_mode=pika.DeliveryMode.Persistent
        )
        while not (self._stop.is_set() and self._waiting.empty()):
            try:
                message = self._waiting.get(timeout=_TICK)
            except Empty:
                connection.process_data_events(0)  # heartbeats
                continue
            if message is None:
                continue
            try:
                # Returns when RabbitMQ has it in the queue.
                channel.basic_publish("", QUEUE, message, persistent, mandatory=True)
            except BaseException:
                self._count("failed")
                raise
            self._count("sent")

    def _rouse(self) -> None:
        with suppress(Full):
            self._waiting.put_nowait(None)

    def _disconnected(self) -> None:
        with suppress(Empty):
            while True:
                if self._waiting.get_nowait() is not None:
                    self._count("failed")


@dataclass(frozen=True)
class Receipt:
    """All messages up to one; valid for as long as its channel is open."""

    channel: BlockingChannel
    tag: int


class Consumer(_Link):
    """Receives the ids of new transactions; a message that is not acknowledged comes again."""

    def __init__(self, url: str, prefetch: int, wake: Callable[[], None]) -> None:
        """Start to connect.

        url: of RabbitMQ; empty for none, and then nothing is ever received.
        prefetch: how many messages come before some are acknowledged.
        wake: called from another thread when a message came; it must not wait.
        """
        self._prefetch = prefetch
        self._wake = wake
        self._received: Receipt | None = None
        self._acknowledged = 0
        super().__init__(url, "queue-consumer")

    def received(self) -> Receipt | None:
        """Return what came so far, ``None`` for nothing."""
        return self._received

    def acknowledge(self, receipt: Receipt | None) -> None:
        """Tell RabbitMQ that these messages are done with; never waits, never raises."""
        connection = self._connection
        if receipt is not None and connection is not None:
            with suppress(AMQPError):  # it broke just now: they come again
                connection.add_callback_threadsafe(lambda: self._acknowledge(receipt))

    def _acknowledge(self, receipt: Receipt) -> None:
        if receipt.channel.is_open and receipt.tag > self._acknowledged:
            receipt.channel.basic_ack(receipt.tag, multiple=True)
            self._acknowledged = receipt.tag

    def _begin(self, channel: BlockingChannel) -> None:
        self._acknowledged = 0
        channel.basic_qos(prefetch_count=self._prefetch)
        channel.basic_consume(QUEUE, self._got)

    def _got(
        self, channel: BlockingChannel, method: Basic.Deliver, _properties: object, _body: bytes
    ) -> None:
        assert method.delivery_tag is not None  # noqa: S101 - each delivery has one
        self._received = Receipt(channel, method.delivery_tag)
        self._wake()

    def _work(self, connection: pika.BlockingConnection, channel: BlockingChannel) -> None:
        while not self._stop.is_set() and channel.is_open:
            connection.process_data_events(_TICK)
        connection.process_data_events(0)  # what was acknowledged last

    def _disconnected(self) -> None:
        self._received = None  # the same messages come again

    def _rouse(self) -> None:
        connection = self._connection
        if connection is not None:
            with suppress(AMQPError):
                connection.add_callback_threadsafe(lambda: None)


def _parameters(url: str) -> pika.URLParameters:
    parameters = pika.URLParameters(url)
    parameters.heartbeat = 15  # seconds, as all of these
    parameters.blocked_connection_timeout = 10  # RabbitMQ is short of memory or disk
    parameters.socket_timeout = 2
    parameters.stack_timeout = 5
    return parameters


def _reason(error: Exception) -> str:
    """Return what is known of an error; of pika's, mostly the type alone, or its cause."""
    return str(error) or repr(error)
