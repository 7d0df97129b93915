"""The load on the lab: its limits, its summary, and Locust for a few seconds on a service of the test."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from flask import Flask, Response, jsonify, request
from werkzeug.serving import WSGIRequestHandler, make_server

from lab import ROOT
from lab.console import LabError
from lab.load import Count, Load, Summary, check_target
from tests.common.services import free_port, wait_until

PLENTY = 300.0
"""Seconds: Locust takes many to start on a busy machine."""


class Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002
        pass


class Shop:
    """A service with the paths of the transactions service, which counts what it is asked."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, str]] = []
        self.agents: set[str] = set()
        self.known: set[str] = set()
        self.unknown = 0
        app = Flask("shop")
        app.before_request(self._note)
        app.add_url_rule("/health", view_func=lambda: jsonify(status="ok"), endpoint="health")
        app.add_url_rule("/transactions", view_func=self._list, endpoint="list")
        app.add_url_rule("/transactions/<id>", view_func=self._one, endpoint="one")
        app.add_url_rule("/transactions/create", view_func=self._create, endpoint="create", methods=["POST"])
        app.add_url_rule("/error", view_func=lambda: ("no JSON", 500), endpoint="error")
        self._server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _note(self) -> None:
        self.asked[str(request.endpoint)] += 1

    def _list(self) -> tuple[Response, int]:
        if self.asked["list"] % 4 == 0:
            return jsonify(title="unavailable"), 503
        return jsonify(transactions=[{"id": self._new()}], next_cursor=None), 200

    def _one(self, id: str) -> Response:  # noqa: A002
        self.unknown += id not in self.known
        return jsonify(id=id)

    def _create(self) -> tuple[Response, int]:
        self.bodies.append(request.get_json())
        if self.asked["create"] % 2:
            return jsonify(id=self._new()), 201
        return jsonify(title="declined"), 402

    def _new(self) -> str:
        new = str(uuid4())
        self.known.add(new)
        return new


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.close()


def start(url: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lab.load"],
        cwd=ROOT,
        env=os.environ | {"LAB_TRANSACTIONS_URL": url, "http_proxy": "http://127.0.0.1:9"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_without_variables_the_defaults_hold() -> None:
    assert Load.read({}) == Load("http://127.0.0.1:8000", 60, 20, 10)
    assert Load.read({"LAB_LOAD_SECONDS": "5", "LAB_LOAD_RATE": "3", "LAB_LOAD_USERS": "2"}) == Load(
        "http://127.0.0.1:8000", 5, 3, 2
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LAB_LOAD_SECONDS", "0"),
        ("LAB_LOAD_SECONDS", "3601"),
        ("LAB_LOAD_RATE", "201"),
        ("LAB_LOAD_RATE", "many"),
        ("LAB_LOAD_USERS", "-1"),
        ("LAB_LOAD_USERS", "101"),
    ],
)
def test_load_has_limits(variable: str, value: str) -> None:
    with pytest.raises(LabError, match=f"{variable} is '{value}': choose a number from 1 to "):
        Load.read({variable: value})


@pytest.mark.parametrize(
    "url",
    [
        "http://192.0.2.1:8000",
        "http://10.89.0.250:8000",
        "http://[2001:db8::1]:8000",
        "http://example.org",
        "http://127.0.0.1.example.org:8000",
        "http://127.0.0.1@192.0.2.1:8000",
        "https://127.0.0.1:8000",
        "http://127.0.0.1:8000/path",
        "http://127.0.0.1:port",
        "ftp://127.0.0.1",
        "127.0.0.1:8000",
    ],
)
def test_load_stays_in_the_lab(tmp_path: Path, url: str) -> None:
    with pytest.raises(LabError, match=r"write it like|127\.0\.0\.1 and the lab's own hosts only"):
        check_target(url, tmp_path)


def test_the_labs_own_hosts_are_targets(tmp_path: Path) -> None:
    (tmp_path / "addresses.json").write_text(json.dumps({"shop": "127.0.0.9", "far": "192.0.2.1"}))
    with pytest.raises(LabError, match="does not answer"):
        check_target(f"http://127.0.0.9:{free_port()}", tmp_path)
    (tmp_path / "addresses.json").write_text(json.dumps({"shop": "192.0.2.2"}))
    with pytest.raises(LabError, match="own hosts only"):
        check_target("http://192.0.2.1:8000", tmp_path)


def test_a_target_that_answers_is_one_also_when_it_is_not_well(shop: Shop, tmp_path: Path) -> None:
    check_target(shop.url, tmp_path)
    check_target(shop.url.replace("127.0.0.1", "localhost"), tmp_path)
    assert shop.asked == {"health": 2}


def test_percentiles_are_those_of_the_answers() -> None:
    count = Count()
    for milliseconds in range(100, 0, -1):
        count.add(milliseconds / 1000, error=False)
    count.add(None, error=True)
    assert [count.percentile(percent) for percent in (50, 95, 99, 100)] == [
        "50 ms",
        "95 ms",
        "99 ms",
        "100 ms",
    ]
    assert count.cells(10)[:2] == ("10.1/s", "1.0 %")
    assert Count().cells(0) == ("-", "-", "-", "-", "-")


def test_the_summary_has_lines_for_what_is_new_and_a_table_for_all() -> None:
    now = 100.0
    lines: list[str] = []
    summary = Summary(lines.append, lambda: now)
    summary.begin(Load(users=1))
    assert summary.reached  # nothing was asked yet
    for _ in range(3):
        summary.add("GET /transactions", 0.010, 200, error=False)
    summary.add("GET /transactions", 15.0, 0, error=True)
    now = 102.0
    summary.line()
    summary.add("POST /transactions/create", 0.030, 402, error=False)
    now = 104.0
    summary.line()
    summary.end()
    assert lines[0] == "http://127.0.0.1:8000: 60 s, up to 20 requests/s from 1 user"
    assert [re.split(r"\s{2,}", line.strip()) for line in lines[1:]] == [
        ["time", "rate", "errors", "p50", "p95", "p99"],
        ["2 s", "2.0/s", "25.0 %", "10 ms", "10 ms", "10 ms"],
        ["4 s", "0.5/s", "0.0 %", "30 ms", "30 ms", "30 ms"],
        [""],
        ["request", "count", "rate", "errors", "p50", "p95", "p99"],
        ["GET /transactions", "4", "1.0/s", "25.0 %", "10 ms", "10 ms", "10 ms"],
        ["POST /transactions/create", "1", "0.2/s", "0.0 %", "30 ms", "30 ms", "30 ms"],
        ["all", "5", "1.2/s", "20.0 %", "10 ms", "30 ms", "30 ms"],
        ["answers by status: 200: 3, 402: 1, no answer: 1"],
    ]


def test_a_service_that_never_answered_was_not_reached() -> None:
    summary = Summary(lambda _line: None)
    summary.add("GET /transactions", 1.0, 0, error=True)
    assert not summary.reached


@pytest.mark.slow
def test_without_a_service_it_says_so_and_fails() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    out, err = (process := start(url)).communicate(timeout=PLENTY)
    assert process.returncode == 1
    assert out == ""
    assert err.startswith(f"lab-load: {url}/health does not answer: ")
    assert err.endswith("Is the lab up? (make lab)\n")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_the_load_is_mixed_bounded_and_summed_up(shop: Shop) -> None:
    process = start(shop.url, LAB_LOAD_SECONDS="3", LAB_LOAD_RATE="40", LAB_LOAD_USERS="5")
    out, err = process.communicate(timeout=PLENTY)
    assert (process.returncode, err) == (0, "")
    asked = shop.asked - Counter(health=1)
    assert asked["list"] > asked["create"]
    assert asked.total() <= 150  # 3 seconds of 40, and what was under way
    assert not shop.unknown
    for body in shop.bodies:
        assert re.fullmatch(r"\d+\.\d\d", body["amount"])
        assert float(body["amount"]) > 0
        assert body["currency"] in ("EUR", "USD", "GBP", "PLN")
    first, *_, last = out.splitlines()
    assert first == f"{shop.url}: 3 s, up to 40 requests/s from 5 users"
    assert re.search(r"\b503: \d+", last)
    assert "no answer" not in last
    rows = {fields[0]: fields[1:] for line in out.splitlines() if (fields := re.split(r"\s{2,}", line))}
    lists = int(rows["GET /transactions"][0])
    assert 0 <= asked["list"] - lists <= 5  # what was under way may not count
    share = float(rows["GET /transactions"][2].removesuffix(" %"))
    assert share == pytest.approx(25, abs=600 / lists)
    assert rows["POST /transactions/create"][2] == "0.0 %"  # what is declined is no error
    assert 0 <= asked.total() - int(rows["all"][0]) <= 5


@pytest.mark.slow
def test_an_interrupt_ends_it_with_the_summary(shop: Shop) -> None:
    process = start(shop.url, LAB_LOAD_SECONDS="3600")
    wait_until(lambda: shop.asked["list"], PLENTY, "the load has begun")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PLENTY)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[-1].startswith("answers by status: ")


@pytest.mark.slow
def test_a_service_that_goes_away_meanwhile_is_no_failure_of_the_load(shop: Shop) -> None:
    process = start(shop.url, LAB_LOAD_SECONDS="3600")
    wait_until(lambda: shop.asked["list"], PLENTY, "the load has begun")
    shop.close()
    assert process.stdout is not None
    for line in process.stdout:
        if " 100.0 %" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PLENTY)
    assert (process.returncode, err) == (0, "")
    assert "no answer: " in out.splitlines()[-1]
