"""The queue on a real RabbitMQ, which comes and goes; and with a worker at its end."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from threading import Event
from uuid import UUID, uuid4

import pika
import pytest

from fleetwatch.common import health
from fleetwatch.demo import queue
from fleetwatch.demo.models import Status
from fleetwatch.demo.queue import QUEUE, Consumer, Outcome, Publisher
from fleetwatch.demo.storage import Storage
from tests.common.services import free_port, wait_until

from .conftest import Configure
from .servers import RabbitServer
from .test_worker import SURE, add, running, status

LIMIT = 120.0
"""Seconds: RabbitMQ takes many to start, and the pauses between attempts grow."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    server = RabbitServer(tmp_path_factory.mktemp("rabbitmq"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def rabbit(server: RabbitServer) -> RabbitServer:
    """Return a server without a queue."""
    with pika.BlockingConnection(pika.URLParameters(server.url)) as connection:
        connection.channel().queue_delete(QUEUE)
    return server


class Sender:
    """A publisher, and what came of its messages."""

    def __init__(self, url: str) -> None:
        self.counts: Counter[Outcome] = Counter()
        self.publisher = Publisher(url, self._count)

    def _count(self, outcome: Outcome) -> None:
        self.counts[outcome] += 1

    def up(self) -> None:
        wait_until(lambda: self.publisher.state == "up", LIMIT, "connected")

    def send(self, count: int) -> list[UUID]:
        ids = [uuid4() for _ in range(count)]
        for each in ids:
            self.publisher.publish(each)
        return ids

    def all_sent(self, count: int) -> None:
        wait_until(lambda: self.counts["sent"] == count, LIMIT, "sent")


@pytest.fixture
def sender(rabbit: RabbitServer) -> Iterator[Sender]:
    sender = Sender(rabbit.url)
    yield sender
    sender.publisher.close()


def waiting(url: str) -> int:
    """Return how many messages are in the queue that no consumer has."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        return int(connection.channel().queue_declare(QUEUE, passive=True).method.message_count)


def test_without_a_url_nothing_is_sent_received_or_counted() -> None:
    sender = Sender("")
    sender.send(3)
    assert sender.publisher.state == "off"
    sender.publisher.close()
    assert not sender.counts
    consumer = Consumer("", 1, lambda: None)
    assert (consumer.state, consumer.received()) == ("off", None)
    consumer.acknowledge(None)
    consumer.close()


def test_a_rabbitmq_that_was_never_there_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    sender = Sender(f"amqp://user:s3cret@127.0.0.1:{free_port()}/")
    sender.send(2000)
    assert sender.publisher.state == "down"
    wait_until(lambda: caplog.records, what="a log event")
    sender.publisher.close()
    assert sender.counts == {"failed": 2000}
    assert [record.getMessage() for record in caplog.records] == ["queue not usable"]
    assert "s3cret" not in str(vars(caplog.records[0]))


@pytest.mark.slow
def test_messages_are_durable_persistent_and_in_order(rabbit: RabbitServer, sender: Sender) -> None:
    sender.up()
    sent = sender.send(20)
    sender.all_sent(20)
    with pika.BlockingConnection(pika.URLParameters(rabbit.url)) as connection:
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True, passive=True)
        for expected in sent:
            _, properties, body = channel.basic_get(QUEUE, auto_ack=True)
            assert body.decode() == str(expected)
            assert properties.delivery_mode == pika.DeliveryMode.Persistent.value
    assert sender.counts == {"sent": 20}


@pytest.mark.slow
def test_what_is_not_acknowledged_comes_again_and_what_is_does_not(
    rabbit: RabbitServer, sender: Sender
) -> None:
    sender.up()
    sender.send(5)
    sender.all_sent(5)
    woken = Event()
    first = Consumer(rabbit.url, 3, woken.set)
    assert woken.wait(LIMIT)
    wait_until(lambda: waiting(rabbit.url) == 2, LIMIT, "no more than the prefetch is taken")
    first.close()
    assert waiting(rabbit.url) == 5

    second = Consumer(rabbit.url, 3, woken.set)
    wait_until(lambda: waiting(rabbit.url) == 2, LIMIT)
    wait_until(lambda: (receipt := second.received()) and receipt.tag == 3, LIMIT)
    receipt = second.received()
    second.acknowledge(receipt)
    second.acknowledge(receipt)  # once more does no harm
    wait_until(lambda: waiting(rabbit.url) == 0, LIMIT, "the rest comes")
    wait_until(lambda: (receipt := second.received()) and receipt.tag == 5, LIMIT)
    second.close()
    assert waiting(rabbit.url) == 2


@pytest.mark.slow
def test_a_receipt_of_a_connection_that_broke_does_nothing(rabbit: RabbitServer, sender: Sender) -> None:
    sender.up()
    sender.send(1)
    sender.all_sent(1)
    consumer = Consumer(rabbit.url, 1, lambda: None)
    old = wait_until(consumer.received, LIMIT)
    assert old is not None
    connection = old.channel.connection
    connection.add_callback_threadsafe(connection.close)
    new = wait_until(lambda: (found := consumer.received()) is not old and found, LIMIT, "it comes again")
    assert new
    consumer.acknowledge(old)
    consumer.acknowledge(None)
    done = Event()
    new.channel.connection.add_callback_threadsafe(done.set)
    assert done.wait(LIMIT), "the connection lives on"
    assert consumer.received() is new
    assert consumer.state == "up"
    consumer.close()
    assert waiting(rabbit.url) == 1


@pytest.mark.slow
def test_a_queue_that_is_deleted_is_made_again(rabbit: RabbitServer, sender: Sender) -> None:
    sender.up()
    with pika.BlockingConnection(pika.URLParameters(rabbit.url)) as connection:
        connection.channel().queue_delete(QUEUE)
    wait_until(lambda: sender.send(1) and sender.counts["sent"], LIMIT, "sent again")
    assert sender.counts["failed"]


@pytest.mark.slow
def test_what_waits_when_the_api_stops_is_sent(
    rabbit: RabbitServer, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_STOP_GRACE", LIMIT)
    sender.up()
    sender.send(200)
    sender.publisher.close()
    assert sender.counts == {"sent": 200}
    assert waiting(rabbit.url) == 200


@pytest.mark.slow
def test_a_message_wakes_the_worker_that_then_acknowledges_it(
    rabbit: RabbitServer, sender: Sender, configure: Configure, storage: Storage
) -> None:
    sender.up()
    settings = configure(**SURE, queue_url=rabbit.url, worker_poll_interval=60)
    with running(settings) as worker:
        wait_until(lambda: worker.ready() is None and worker._consumer.state == "up", LIMIT)
        began = time.monotonic()
        for _ in range(3):
            (made,) = add(storage)
            sender.publisher.publish(made.id)
            wait_until(lambda made=made: status(storage, made) == Status.COMPLETED, LIMIT)  # type: ignore[misc]
        assert time.monotonic() - began < 60  # in which it looks for itself once
    assert waiting(rabbit.url) == 0


@pytest.mark.slow
def test_the_worker_does_not_acknowledge_what_it_could_not_settle(
    rabbit: RabbitServer, sender: Sender, configure: Configure
) -> None:
    sender.up()
    sender.send(2)
    sender.all_sent(2)
    nowhere = f"postgresql+psycopg://fleetwatch@127.0.0.1:{free_port()}/none"
    settings = configure(**SURE, queue_url=rabbit.url, database_url=nowhere)
    registry = health.registry()
    with running(settings, registry):
        wait_until(lambda: waiting(rabbit.url) == 0, LIMIT, "the worker has them")
        errors = registry.get_sample_value("transactions_worker_errors_total") or 0
        wait_until(
            lambda: (registry.get_sample_value("transactions_worker_errors_total") or 0) >= errors + 2, LIMIT
        )
    assert waiting(rabbit.url) == 2


@pytest.mark.slow
def test_a_rabbitmq_that_went_and_came_back_is_used_again(
    rabbit: RabbitServer,
    sender: Sender,
    configure: Configure,
    storage: Storage,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "fleetwatch.demo.queue")
    sender.up()
    sender.send(3)
    sender.all_sent(3)
    with running(configure(**SURE, queue_url=rabbit.url)) as worker:
        wait_until(lambda: waiting(rabbit.url) == 0, LIMIT)
        rabbit.kill()
        wait_until(lambda: sender.publisher.state == "down", LIMIT, "the loss is noticed")
        sender.send(1)
        wait_until(lambda: sender.counts["failed"] == 1, LIMIT)
        (made,) = add(storage)
        wait_until(lambda: status(storage, made) == Status.COMPLETED, LIMIT, "the worker looks for itself")
        assert worker.ready() is None
        rabbit.start()
        sender.up()
        wait_until(lambda: worker._consumer.state == "up", LIMIT)
        sender.send(2)
        sender.all_sent(5)
        wait_until(lambda: waiting(rabbit.url) == 0, LIMIT, "the worker receives again")
    lost = [record for record in caplog.records if record.getMessage() == "queue not usable"]
    assert len(lost) == 2  # one of each side, though both tried more often
