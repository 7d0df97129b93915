"""The rules of dashboards: every dashboard keeps them, and each rule finds what breaks it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from prometheus_client import CollectorRegistry

from fleetwatch.dashboards.files import ROOT, kept
from fleetwatch.dashboards.lint import metrics, problems
from fleetwatch.dashboards.queries import annotation_queries, panels, queries
from fleetwatch.demo.metrics import ApiMetrics, PoolMetrics, WorkerMetrics
from fleetwatch.dispatcher.metrics import DeliveryMetrics, HousekeepingMetrics, ReconciliationMetrics
from fleetwatch.receiver.metrics import Metrics
from fleetwatch.simulator.metrics import OwnMetrics

Json = dict[str, Any]
UIDS = {path.stem for path in kept()}
OURS = ("alert_receiver_", "alert_dispatcher_", "metrics_simulator_", "transactions_")
"""How the names of the metrics begin that our own services have."""


def test_rules_are_kept(each_dashboard: Json) -> None:
    assert problems(each_dashboard, UIDS) == []


def test_uid_is_the_files_name(each_dashboard: Json) -> None:
    assert each_dashboard["uid"] in UIDS


def test_titles_are_unique() -> None:
    titles = [json.loads(path.read_text(encoding="utf-8"))["title"] for path in kept()]
    assert len(titles) == len(set(titles))


def _own_metrics() -> set[str]:
    """Return the names of all metrics of the services, from the services."""
    registry = CollectorRegistry()
    Metrics(registry, Mock(), "https://alerts.example.org")
    DeliveryMetrics(registry, ["mail"])
    ReconciliationMetrics(registry)
    HousekeepingMetrics(registry)
    OwnMetrics(registry, Mock(names=()))
    PoolMetrics(registry)
    ApiMetrics(registry)
    worker = CollectorRegistry()  # a process of its own; some names are the API's too
    PoolMetrics(worker)
    WorkerMetrics(worker)
    return {*registry._names_to_collectors, *worker._names_to_collectors}


def test_metrics_of_our_services_are_there(each_dashboard: Json) -> None:
    asked = {name for target in queries(each_dashboard) for name in metrics(target.expr)}
    assert {name for name in asked if name.startswith(OURS)} <= _own_metrics()


def _recorded() -> set[str]:
    rules = [*ROOT.glob("roles/*/monitoring/recording_rules.yml")]
    return {
        name for path in rules for name in re.findall(r"record: *(\S+)", path.read_text(encoding="utf-8"))
    }


def test_recorded_series_are_recorded(each_dashboard: Json) -> None:
    asked = {name for target in queries(each_dashboard) for name in metrics(target.expr)}
    for name in asked:
        if name.startswith("instance:"):  # may be a pattern
            assert any(re.fullmatch(name, recorded) for recorded in _recorded()), name


def test_every_query_is_read() -> None:
    """No dashboard has an expression that the checks do not see."""
    for path in kept():
        text = path.read_text(encoding="utf-8")
        dashboard = json.loads(text)
        assert text.count('"expr"') == len(queries(dashboard)) + len(annotation_queries(dashboard))


def _first(dashboard: Json, kind: str = "timeseries") -> Json:
    return next(panel for panel in panels(dashboard) if panel["type"] == kind)


def _ask(expr: str) -> Callable[[Json], object]:
    return lambda dashboard: _first(dashboard)["targets"][0].update(expr=expr)


BROKEN: dict[str, Callable[[Json], object]] = {
    "has no description": lambda d: d.update(description=""),
    "is editable": lambda d: d.update(editable=True),
    "has no tag fleetwatch": lambda d: d.update(tags=[]),
    "begins with the project's name": lambda d: d.update(title="Fleetwatch Prometheus"),
    "has no annotation Restarts": lambda d: d["annotations"].update(list=d["annotations"]["list"][:1]),
    "has no variable datasource": lambda d: d["templating"]["list"].pop(0),
    "variable job has no label": lambda d: d["templating"]["list"][1].pop("label"),
    "variable job asks another data source": lambda d: d["templating"]["list"][1].update(
        datasource={"type": "prometheus", "uid": "abc"}
    ),
    "variable job keeps its values": lambda d: d["templating"]["list"][1].update(refresh=1),
    "variable job is no label_values": lambda d: d["templating"]["list"][1].update(query="query_result(up)"),
    "panel id 2 is missing or used 2 times": lambda d: d["panels"][2].update(id=2),
    "queries without a letter": lambda d: _first(d)["targets"].append(dict(_first(d)["targets"][0])),
    "panels overlap": lambda d: d["panels"][2]["gridPos"].update(x=0),
    "beyond the grid": lambda d: d["panels"][1]["gridPos"].update(w=25),
    "the grid has holes": lambda d: d["panels"][1]["gridPos"].update(h=1),
    "has no title": lambda d: _first(d).update(title=""),
    "its description is no sentence": lambda d: _first(d).update(description="no sentence"),
    "asks another data source than": lambda d: _first(d).update(datasource={"uid": "abc"}),
    "a query asks another data source": lambda d: _first(d)["targets"][0].update(datasource={"uid": "abc"}),
    "has no query": lambda d: _first(d).update(targets=[]),
    "has no unit": lambda d: _first(d)["fieldConfig"]["defaults"].pop("unit"),
    "has no decimals": lambda d: _first(d)["fieldConfig"]["defaults"].pop("decimals"),
    "has no thresholds": lambda d: _first(d)["fieldConfig"]["defaults"].pop("thresholds"),
    "its legend is hidden": lambda d: _first(d)["options"]["legend"].update(showLegend=False),
    "does not say which value": lambda d: _first(d, "stat")["options"]["reduceOptions"].update(calcs=[]),
    "has no minimum": lambda d: (
        _first(d)["fieldConfig"]["defaults"].pop("min", 0),
        _first(d).update(type="bargauge"),
    ),
    "its series have no name": lambda d: _first(d)["targets"][0].update(legendFormat=""),
    "is no PromQL": _ask('sum(up{job="$job"'),
    "another window than $__rate_interval": _ask('sum(rate(x_total{job=~"$job"}[5m]))'),
    "the counter x_total has no rate": _ask('sum(x_total{job=~"$job"})'),
    "x_bytes is no counter, and yet has a rate": _ask('rate(x_bytes{job=~"$job"}[$__rate_interval])'),
    "x_bytes has no matcher for job or host": _ask("sum(x_bytes)"),
    "2 rows are called Rules": lambda d: [
        panel.update(title="Rules") for panel in d["panels"] if panel["title"] == "Storage"
    ],
    "annotation Alerts: is no PromQL": lambda d: d["annotations"]["list"][0].update(expr="ALERTS{"),
    "links to the dashboard fleetwatch-gone": lambda d: d["links"][0].update(url="/d/fleetwatch-gone?x=1"),
}


@pytest.mark.parametrize("problem", BROKEN)
def test_a_broken_rule_is_found(problem: str, prometheus: Json) -> None:
    assert problems(prometheus, UIDS) == []
    BROKEN[problem](prometheus)
    assert any(problem in line for line in problems(prometheus, UIDS)), problems(prometheus, UIDS)


@pytest.mark.parametrize(
    "expr",
    [
        'sum(rate(x_total{host=~"$host"}[$__rate_interval]))',
        'sum(increase(x_total{job=~"$job"}[1h]))',
        'count(x_total{job=~"$job"})',
        'histogram_quantile(0.9, sum by (le) (rate(x_bucket{job="x"}[$__rate_interval])))',
        "instance:x:rate5m",
        "count(up == 0) or vector(0)",
        'rate(node_vmstat_oom_kill{job=~"$job"}[$__rate_interval])',
    ],
)
def test_what_is_right_is_left_alone(expr: str, prometheus: Json) -> None:
    _ask(expr)(prometheus)
    assert problems(prometheus, UIDS) == []


def test_metrics_are_found_wherever_they_are() -> None:
    rate = 'topk(3, sum by (x) (rate(a_total{h=~"$h"}[$__rate_interval])))'
    expr = f"{rate} / on (x) (b + max_over_time(c[1h:1m]))"
    assert metrics(expr) == {"a_total", "b", "c"}
    assert metrics('{__name__="d"} unless -e') == {"d", "e"}


def test_runs_without_knowing_the_others(prometheus: Json) -> None:
    prometheus["links"][0]["url"] = "/d/anything"
    assert problems(prometheus) == []


def test_the_house_has_no_other_json() -> None:
    """What is in the folders of dashboards is shipped; nothing strays there."""
    folders: set[Path] = {path.parent for path in kept()}
    assert {path.suffix for folder in folders for path in folder.iterdir()} == {".json"}
