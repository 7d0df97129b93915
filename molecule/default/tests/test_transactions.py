"""The service that is watched: it works, scales, and what breaks in it reaches the mailbox and ends there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest
from support import Fleet, Run, wait_for

from lab.alert import call

PAYMENT = {"amount": "12.34", "currency": "EUR"}
NATURE = {"transactions_error_rate": 0, "transactions_payment_decline_rate": 0}
"""Nothing fails by itself."""
PAUSE_SECONDS = 0.1
"""Between two requests of the load."""
ANSWER_SECONDS = 60
"""What an answer may take."""


def status(url: str) -> int:
    """Return the status of an answer; 0 if there is none."""
    try:
        with urlopen(url, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 (our host)
            return int(answer.status)
    except HTTPError as error:
        return error.code
    except URLError:
        return 0


@contextmanager
def load(url: str) -> Iterator[list[int]]:
    """Ask for the list of transactions all the time; yields the statuses so far."""
    seen: list[int] = []
    done = Event()

    def ask() -> None:
        while not done.wait(PAUSE_SECONDS):
            seen.append(status(f"{url}/transactions?limit=5"))

    asking = Thread(target=ask)
    asking.start()
    try:
        yield seen
    finally:
        done.set()
        asking.join()


@pytest.fixture
def shop(fleet: Fleet) -> str:
    """Return the URL of the service."""
    return fleet.url("shop", 8000)


def experiment(fleet: Fleet, name: str, hosts: str) -> Run:
    return fleet.play("-e", f"experiment={name}", "--limit", hosts, playbook="playbooks/chaos.yml")


def test_what_is_bought_is_settled(fleet: Fleet, shop: str) -> None:
    made = wait_for(lambda: call("POST", f"{shop}/transactions/create", PAYMENT))
    assert made["status"] == "pending"
    found = wait_for(
        lambda: [
            one
            for one in [call("GET", f"{shop}/transactions/{made['id']}")]
            if one["status"] in ("completed", "failed")
        ]
    )
    assert found[0]["amount"] == PAYMENT["amount"]
    assert status(f"{shop}/metrics") == 404
    assert status(f"{shop}/control/behaviour") == 403
    wait_for(lambda: fleet.query('sum(transactions_processed_total{host="shop"}) > 0'))
    wait_for(lambda: fleet.query("sum(transactions_created_total) > 0"))


def test_the_service_is_probed_from_outside_and_every_host_is_pinged(fleet: Fleet) -> None:
    wait_for(lambda: fleet.query('probe_success{name="transactions",host="shop",prober="monitor"} == 1'))
    hosts = {series["metric"]["host"] for series in fleet.query("up{job='node_exporter'}")}
    wait_for(
        lambda: (
            {series["metric"]["host"] for series in fleet.query('probe_success{module="icmp"} == 1')} == hosts
        )
    )


def test_instances_come_and_go_and_nobody_is_turned_away(fleet: Fleet, shop: str) -> None:
    instances = 'count(up{job="transactions_api"} == 1)'
    with load(shop) as seen:
        for number in (3, 2):
            run = fleet.play_with({**NATURE, "transactions_api_instances": number}, "--limit", "shop,monitor")
            assert run.code == 0, run.error
            wait_for(lambda: fleet.query(f"{instances} == {number}"), 120)  # noqa: B023 (waited for here)
        wait_for(lambda: len(seen) > 20)
    # By nature one in twenty fails, until the new setting is in force in all instances.
    assert set(seen) <= {200, 500}, "nginx found no instance"
    assert seen.count(200) > 0.8 * len(seen)
    host = fleet.host("shop")
    assert not host.file("/run/transactions/api-3.sock").exists
    run = fleet.play("--limit", "shop")
    assert run.code == 0, run.error


@pytest.mark.parametrize(
    ("name", "alert", "severity"),
    [
        ("errors", "HighErrorRate", "CRITICAL"),
        ("latency", "HighLatency", "WARNING"),
        ("postgresql_stop", "PostgreSQLDown", "CRITICAL"),
    ],
)
def test_an_experiment_is_told_of_and_so_is_its_end(
    fleet: Fleet, shop: str, name: str, alert: str, severity: str
) -> None:
    quiet = f'ALERTS{{host="shop",alertstate="firing",severity="critical"}} or ALERTS{{alertname="{alert}"}}'
    with load(shop):
        wait_for(lambda: fleet.query(quiet) == [], 300)
        run = experiment(fleet, name, "shop")
        assert run.code == 0, run.output
    assert f"{alert} came after" in run.output

    def mailed(word: str) -> bool:
        return any(alert in message["text"] for message in messages(fleet, word))

    wait_for(lambda: mailed(severity), 120)
    wait_for(lambda: mailed("RESOLVED"), 120)
    wait_for(lambda: status(f"{shop}/health") == 200)


def messages(fleet: Fleet, word: str) -> list[dict[str, str]]:
    """Return the mails with a word in the subject, with their text."""
    return [
        call("GET", f"{fleet.urls.mailbox}/api/messages/{mail['id']}") for mail in fleet.mails(f"[{word}]")
    ]


def test_no_experiment_where_it_is_not_allowed(fleet: Fleet) -> None:
    run = experiment(fleet, "errors", "node1,shop")
    assert run.code != 0
    assert "node1: not in the group chaos" in run.output
    assert not any(run.changed.values())
