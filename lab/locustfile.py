"""What the users of ``lab.load`` ask: mostly for lists, sometimes for a new transaction. Locust runs this."""

from __future__ import annotations

import os
import random
import secrets
import signal
import time
from collections import deque
from collections.abc import Container
from typing import Any

import gevent  # type: ignore[import-untyped]
from locust import HttpUser, constant_throughput, events, task
from locust.env import Environment

from lab.load import INTERVAL, Load, Summary

_CURRENCIES = {"EUR": 6, "USD": 2, "GBP": 1, "PLN": 1}
_TIMEOUT = 15  # seconds

load = Load.read(os.environ)
summary = Summary(lambda text: print(text, flush=True))  # noqa: T201 - the command's output
known_ids: deque[str] = deque(maxlen=1000)


class Customer(HttpUser):
    """Asks one thing after the other, as fast as its part of the rate allows."""

    wait_time = constant_throughput(load.rate / load.users)

    def on_start(self) -> None:
        """Begin at some moment, so that not all users ask at once."""
        self.client.trust_env = False  # the service is on this machine: no proxy
        time.sleep(random.uniform(0, load.users / load.rate))  # noqa: S311 - not a secret

    @task(70)
    def list_transactions(self) -> None:
        """Ask for the newest."""
        answer = self._ask("GET", "/transactions", "/transactions", fine=(200,))
        if answer is not None:
            known_ids.extend(str(each["id"]) for each in answer.get("transactions", ()))

    @task(20)
    def create(self) -> None:
        """Pay something; that the payment is declined is no error of the service."""
        (currency,) = random.choices(list(_CURRENCIES), list(_CURRENCIES.values()))  # noqa: S311 - not a secret
        body = {
            "amount": f"{random.lognormvariate(4, 0.8) + 0.01:.2f}",  # around 55
            "currency": currency,
            "reference": f"lab-load {secrets.token_hex(4)}",
        }
        answer = self._ask("POST", "/transactions/create", "/transactions/create", fine=(201, 402), json=body)
        if answer is not None and "id" in answer:
            known_ids.append(str(answer["id"]))

    @task(5)
    def get_one(self) -> None:
        """Look at a transaction that is known, or find some."""
        if known_ids:
            one = random.choice(known_ids)  # noqa: S311 - not a secret
            self._ask("GET", f"/transactions/{one}", "/transactions/<id>", fine=(200,))
        else:
            self.list_transactions()

    @task(5)
    def fail(self) -> None:
        """Ask for an error."""
        self._ask("GET", "/error", "/error (on purpose)", fine=(500,))

    def _ask(
        self, method: str, path: str, route: str, *, fine: Container[int], **body: Any
    ) -> dict[str, Any] | None:
        """Send a request and count what came of it; return the answer when it is one of a success.

        fine: statuses that are no errors.
        """
        began = time.monotonic()
        with self.client.request(
            method, path, name=route, catch_response=True, allow_redirects=False, timeout=_TIMEOUT, **body
        ) as response:
            status = int(response.status_code or 0)
            summary.add(f"{method} {route}", time.monotonic() - began, status, error=status not in fine)
            response.success()  # what Locust itself counts is not shown
            if not 200 <= status < 300:  # noqa: PLR2004 - the successes
                return None
            found: dict[str, Any] = response.json()
            return found


@events.init.add_listener  # type: ignore[untyped-decorator]  # Locust has no types there
def _prepare(**_: Any) -> None:
    # gevent counts from when it last looked at the clock, which was before the imports: --run-time would be
    # over seconds too early.
    gevent.get_hub().loop.update_now()


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def _begin(environment: Environment, **_: Any) -> None:
    summary.begin(load)

    assert environment.runner is not None  # noqa: S101 - it fires this event
    # Ctrl-C, held back until now, is the end like any other.
    gevent.signal_handler(signal.SIGINT, environment.runner.quit)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def lines() -> None:
        while True:
            gevent.sleep(INTERVAL)
            summary.line()

    gevent.spawn(lines)


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def _end(environment: Environment, **_: Any) -> None:
    summary.end()
    environment.process_exit_code = 0 if summary.reached else 1
