"""Averages and points from a real Prometheus."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.collector.usage.conftest import BEGIN, END, INTERVAL, ODD, SAMPLES, run, value

pytestmark = pytest.mark.slow

WINDOW = {"start": "2026-01-02T00:00:00Z", "end": "2026-01-02T03:00:00Z"}


@pytest.fixture(scope="module")
def app(prometheus: str) -> Iterator[Flask]:
    with run(prometheus) as app:
        yield app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def average(client: FlaskClient, **query: Any) -> dict[str, Any]:
    answer = client.get("/avg_usage", query_string={"resource": "cpu", "step": "60", **WINDOW, **query})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.get_json()
    return found


def points(client: FlaskClient, **query: Any) -> dict[str, Any]:
    answer = client.get("/metrics_usage", query_string={"resource": "cpu", "step": "60", **WINDOW, **query})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.get_json()
    return found


def test_average_of_each_host_and_of_all(client: FlaskClient) -> None:
    found = average(client)
    assert {host["host"]: (host["average"], host["sources"]) for host in found["hosts"]} == {
        "web1": (11.5, ["metrics_collector"]),
        "web2": (21.5, ["node_exporter"]),
        "both": (31.5, ["metrics_collector"]),  # not 71.5, which node_exporter says
        ODD: (41.5, ["metrics_collector"]),
    }
    assert found["average_cpu_usage"] == 26.5
    assert {host["points"] for host in found["hosts"]} == {180}
    assert (found["points"], found["step"], found["unit"]) == (720, 60, "percent")


def test_a_host_counts_for_as_long_as_it_is_there_and_with_the_highest_of_its_targets(
    client: FlaskClient,
) -> None:
    found = average(client, resource="mem")
    [host] = found["hosts"]
    # Each minute after midnight up to the last sample at 00:59, which holds for 5 minutes. Where the value
    # is no number there is none.
    values = [value(2, min(minute, 59)) for minute in range(1, 65) if minute != 30]
    assert host["points"] == len(values)
    assert found["average_mem_usage"] == host["average"] == round(sum(values) / len(values), 4)


@pytest.mark.parametrize("budget", [1000, 1500, 100_000])
@pytest.mark.parametrize("step", [60, 45, 7])
def test_the_average_is_that_of_the_points_however_the_time_is_split(
    prometheus: str, budget: int, step: int
) -> None:
    with run(prometheus, query_samples=budget, query_points=max(100, budget // 10)) as app:
        found = average(app.test_client(), step=str(step), host="web1")
        told = points(app.test_client(), step=str(step), host="web1")["cpu_usage"]
    assert found["average_cpu_usage"] == pytest.approx(
        sum(row["value"] for row in told) / len(told), abs=1e-3
    )
    # And that of the sample that holds at each of these times.
    first = BEGIN // step * step + step
    held = [value(1, (at - BEGIN) // INTERVAL) for at in range(first, BEGIN + 3 * 3600 + 1, step)]
    assert [row["value"] for row in told] == held
    assert found["points"] == len(held)
    assert found["average_cpu_usage"] == round(sum(held) / len(held), 4)


def test_the_query_that_is_told_gives_the_same(client: FlaskClient, app: Flask) -> None:
    found = average(client, host="web1", start="2026-01-02T00:00:30Z", end="2026-01-02T01:00:30Z")
    at = BEGIN + 3630.0
    [series] = app.extensions["usage"].prometheus.query(found["query"], at)
    assert float(series.points[0][1]) == found["average_cpu_usage"] == 11.5


def test_points_come_by_time_and_host(client: FlaskClient) -> None:
    found = points(client, end="2026-01-02T00:02:00Z", group="web")
    assert found["cpu_usage"] == [
        {"time": "2026-01-02T00:01:00Z", "host": "web1", "value": 11.0},
        {"time": "2026-01-02T00:01:00Z", "host": "web2", "value": 21.0},
        {"time": "2026-01-02T00:02:00Z", "host": "web1", "value": 12.0},
        {"time": "2026-01-02T00:02:00Z", "host": "web2", "value": 22.0},
    ]


def test_csv_is_the_same(client: FlaskClient) -> None:
    query = {"resource": "cpu", "step": "60", **WINDOW, "format": "csv"}
    answer = client.get("/metrics_usage", query_string=query)
    assert answer.mimetype == "text/csv"
    assert 'filename="cpu_usage_2026-01-02T000000Z' in answer.headers["Content-Disposition"]
    rows = list(csv.reader(io.StringIO(answer.text, newline="")))
    assert rows[0] == ["time", "host", "cpu_usage"]
    told = points(client)["cpu_usage"]
    assert [(at, host, float(number)) for at, host, number in rows[1:]] == [
        (row["time"], row["host"], row["value"]) for row in told
    ]


@pytest.mark.parametrize(("query", "hosts"), [
    ({"host": ODD}, {ODD}),
    ({"group": "odd"}, {ODD}),
    ({"group": "both"}, {"web1", ODD}),
    ({"group": "web"}, {"web1", "web2"}),
    ({"group": "web", "host": "web2"}, {"web2"}),
])  # fmt: skip
def test_only_the_hosts_that_are_asked_for(
    client: FlaskClient, query: dict[str, str], hosts: set[str]
) -> None:
    assert {host["host"] for host in average(client, **query)["hosts"]} == hosts


@pytest.mark.parametrize("host", [
    '"} or {host!=""} #', 'web1"', "web.*", ".*", "web1|web2", "web1\\", "$hosts", "web1'", "\\x77eb1",
    "ẁeb1", 'web1"}) or vector(1) #',
])  # fmt: skip
def test_no_host_gets_into_the_query(client: FlaskClient, host: str) -> None:
    answer = client.get("/avg_usage", query_string={"resource": "cpu", **WINDOW, "host": host})
    assert (answer.status_code, answer.get_json()) == (404, {"error": f'Prometheus knows no host "{host}"'})


@pytest.mark.parametrize(("query", "reason"), [
    ({"host": "web9"}, 'Prometheus knows no host "web9"'),
    ({"resource": "disk"}, "there is no disk usage of any host from 2026-01-02T00:00:00Z to"),
    ({"resource": "disk", "host": "web1"}, 'there is no disk usage of host "web1" from'),
    ({"group": "absent"}, 'there is no cpu usage of group "absent" from'),
    ({"start": "2025-01-02T00:00:00Z", "end": "2025-01-03T00:00:00Z"}, "there is no cpu usage of any host"),
])  # fmt: skip
@pytest.mark.parametrize("path", ["/avg_usage", "/metrics_usage"])
def test_nothing_found_is_404(client: FlaskClient, path: str, query: dict[str, str], reason: str) -> None:
    answer = client.get(path, query_string={"resource": "cpu", **WINDOW, **query})
    assert answer.status_code == 404
    assert answer.get_json()["error"].startswith(reason)


def test_data_that_begins_late_is_found_in_small_parts(prometheus: str) -> None:
    with run(prometheus, query_points=100) as app:
        told = points(app.test_client(), start="2026-01-01T00:00:00Z", end="2026-01-03T00:00:00Z", step="600")
    times = {row["time"] for row in told["cpu_usage"]}
    # A sample holds for 5 minutes, so the last at 03:59 is seen at 04:00.
    assert (min(times), max(times)) == ("2026-01-02T00:00:00Z", "2026-01-02T04:00:00Z")
    assert len(told["cpu_usage"]) == 4 * 25
    assert END == BEGIN + SAMPLES * INTERVAL


def test_a_wrong_expression_is_502_and_says_which_setting(prometheus: str) -> None:
    wrong = [{"name": "wrong", "expression": "this is {not} PromQL $hosts"}]
    fine = [{"name": "fine", "expression": "up{$hosts}"}]
    with run(prometheus, expressions={"cpu": wrong, "mem": fine, "disk": fine}) as app:
        answer = app.test_client().get("/avg_usage", query_string={"resource": "cpu", "range": "1"})
    assert answer.status_code == 502
    assert '"expressions"' in answer.get_json()["error"]


def test_an_expression_may_tell_of_no_host(prometheus: str) -> None:
    odd = [{"name": "odd", "expression": "vector(5) or gauge_cpu_usage{$hosts} or on () absent(up{$hosts})"}]
    with run(prometheus, expressions={"cpu": odd, "mem": odd, "disk": odd}) as app:
        found = average(app.test_client(), group="both")
        assert {host["host"] for host in found["hosts"]} == {"web1", ODD}
        assert {row["host"] for row in points(app.test_client(), group="both")["cpu_usage"]} == {"web1", ODD}
