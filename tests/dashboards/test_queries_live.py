"""The dashboards of the hosts, asked of a real Prometheus with what node_exporter tells of 26 hosts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from bench import nodes
from lab import panels
from lab.panels import Empty, Prometheus, When, Window

pytestmark = pytest.mark.slow
HOSTS = 26
CRITICAL, WARNING, DOWN = "web0000", "web0025", "web0007"
OF_HOSTS = ("fleetwatch-fleet", "fleetwatch-host")
EMPTY = [Empty(".*", "annotation Restarts", "no restart within this hour", When.AT_TIMES)]


@pytest.fixture(scope="module")
def fleet() -> nodes.Fleet:
    begin = int(time.time()) // nodes.BLOCK * nodes.BLOCK - nodes.BLOCK
    return nodes.Fleet(HOSTS, 1, begin, seconds=nodes.BLOCK)


@pytest.fixture(scope="module")
def prometheus(fleet: nodes.Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    data = tmp_path_factory.mktemp("prometheus") / "data"
    data.mkdir()
    nodes.write(fleet, data)
    with nodes.prometheus(fleet, data) as url:
        nodes.record(fleet, url, data)
    with nodes.prometheus(fleet, data) as url:
        yield Prometheus(url)


@pytest.fixture
def window(fleet: nodes.Fleet, prometheus: Prometheus) -> Window:
    return Window(float(fleet.end), 3600, prometheus.scrape_interval())


@pytest.fixture
def dashboards() -> list[dict[str, Any]]:
    return [dashboard for dashboard in panels.dashboards() if dashboard["uid"] in OF_HOSTS]


@pytest.mark.parametrize("several", [False, True], ids=["all hosts", "two hosts"])
def test_every_panel_has_data(
    dashboards: list[dict[str, Any]], prometheus: Prometheus, window: Window, *, several: bool
) -> None:
    answers = [
        answer
        for dashboard in dashboards
        for answer in panels.ask(dashboard, prometheus, window, several=several)
    ]
    assert {answer.dashboard for answer in answers} == set(OF_HOSTS)
    assert panels.problems(answers, prometheus, EMPTY) == []


def test_a_broken_query_is_noticed(
    dashboards: list[dict[str, Any]], prometheus: Prometheus, window: Window
) -> None:
    text = dashboards[0]["panels"][1]["targets"][0]
    text["expr"] = "count(upp)"
    found = panels.problems(panels.ask(dashboards[0], prometheus, window), prometheus, EMPTY)
    assert len(found) == 1
    assert "no data: count(upp)" in found[0]
    text["expr"] = "count(up"
    assert (
        "parse error" in panels.problems(panels.ask(dashboards[0], prometheus, window), prometheus, EMPTY)[0]
    )


def test_hosts_are_sorted_by_trouble(
    dashboards: list[dict[str, Any]], prometheus: Prometheus, window: Window
) -> None:
    """Down, critical, warning, and then the one of which most is used."""
    answers = list(panels.ask(dashboards[0], prometheus, window))
    state = next(answer for answer in answers if answer.panel == "Hosts" and "node_(" in answer.expr)
    found = prometheus.get("query", query=f"sort_desc({state.expr})", time=window.end)["result"]
    order = [result["metric"]["host"] for result in found]
    values = [float(result["value"][1]) for result in found]
    assert order[:3] == [DOWN, CRITICAL, WARNING]
    assert [int(value) for value in values] == [4, 3, 2] + [0] * (HOSTS - 3)
    used = prometheus.get(
        "query",
        query="sort_desc(max by (host) ({__name__=~'instance:node_(cpu|memory|filesystem)_utilisation:.*'}))",
        time=window.end,
    )["result"]
    # By their values, since some are equal.
    rest = [float(result["value"][1]) for result in used if result["metric"]["host"] not in order[:3]]
    assert values[3:] == pytest.approx(rest)


def test_recorded_series_are_what_their_expressions_say(fleet: nodes.Fleet, prometheus: Prometheus) -> None:
    """promtool wrote them; the overview reads nothing else of the hosts."""

    def values(query: str, at: float) -> dict[str, float]:
        found = prometheus.get("query", query=query, time=at)["result"]
        return {result["metric"]["host"]: float(result["value"][1]) for result in found}

    for record, expr in nodes.expressions().items():
        at = next(iter(values(f"timestamp({record})", fleet.end).values()))  # between two scrapes
        recorded = values(record, at)
        assert len(recorded) == HOSTS
        assert recorded == pytest.approx(values(expr, at)), record
