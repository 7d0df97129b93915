"""Reading the queries of a dashboard from its JSON."""

from __future__ import annotations

from typing import Any

import pytest

from fleetwatch.dashboards.queries import Target, annotation_queries, queries, substitute, variables

DASHBOARD: dict[str, Any] = {
    "annotations": {"list": [{"name": "Alerts", "expr": "ALERTS"}, {"name": "By hand"}]},
    "templating": {
        "list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus"},
            {"name": "job", "type": "query", "query": 'label_values(up{job=~"a|b"}, job)'},
            {"name": "host", "type": "query", "query": "label_values(up, host)", "allValue": ".+"},
        ]
    },
    "panels": [
        {"type": "row", "title": "A", "panels": []},
        {
            "type": "stat",
            "title": "One",
            "targets": [
                {"refId": "A", "expr": "up", "instant": True, "legendFormat": "{{job}}"},
                {"refId": "B", "expr": "down", "instant": False},
            ],
        },
        {"type": "text", "title": "Text"},
        {
            "type": "row",
            "title": "B",
            "panels": [{"type": "table", "title": "Two", "targets": [{"refId": "A", "expr": "x"}]}],
        },
    ],
}


def test_queries_of_all_panels_also_of_collapsed_rows() -> None:
    assert queries(DASHBOARD) == [
        Target("One", "A", "up", True, "{{job}}"),
        Target("One", "B", "down", False),
        Target("Two", "A", "x", False),
    ]


def test_annotations() -> None:
    assert annotation_queries(DASHBOARD) == [Target("Alerts", "", "ALERTS", False)]


def test_variables() -> None:
    assert variables(DASHBOARD) == {"job": ('up{job=~"a|b"}', "job"), "host": ".+"}


@pytest.mark.parametrize(
    ("expr", "result"),
    [
        ('rate(x{job=~"$job"}[$__rate_interval])', 'rate(x{job=~".+"}[5m])'),
        ('x{host=~"${host}",a="${b:regex}"}', 'x{host=~"web1",a=".+"}'),
        ('x{host=~"$host|"}[$__range]', 'x{host=~"web1|"}[24h]'),
        ("x > $__interval_ms", "x > 60000"),
        ('x{a=~"b$"}', 'x{a=~"b$"}'),
    ],
)
def test_substitute(expr: str, result: str) -> None:
    assert substitute(expr, {"host": "web1"}) == result


def test_substitute_with_another_interval() -> None:
    assert substitute("rate(x[$__rate_interval])", {"__rate_interval": "1m"}) == "rate(x[1m])"
