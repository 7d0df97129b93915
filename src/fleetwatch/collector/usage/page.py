"""The page: a form, a chart, and what each host used. Complete without JavaScript."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, make_response, render_template, request
from pydantic import ValidationError
from werkzeug.exceptions import BadRequest, HTTPException

from fleetwatch.collector.usage import answers, api, chart
from fleetwatch.collector.usage.answers import HostAverage
from fleetwatch.collector.usage.context import usage
from fleetwatch.collector.usage.params import (
    POINTS_OF_AVERAGE,
    Question,
    UsageQuery,
    choose_step,
    question,
)
from fleetwatch.collector.usage.prometheus import PrometheusError
from fleetwatch.common import web

RESOURCES = {"cpu": "CPU", "mem": "Memory", "disk": "Disk"}
RANGES = {
    "15m": "15 minutes",
    "1": "hour",
    "6": "6 hours",
    "24": "24 hours",
    "7d": "7 days",
    "30d": "30 days",
}
LINES = 8
"""Hosts that the chart shows at most: those that used most."""
ROWS = 100
"""Hosts that the table shows at most."""

_POINTS = 400  # of a line
_NAMES = 1000  # that the form proposes
_DAY = 86400.0

page = Blueprint(
    "page", __name__, template_folder="templates", static_folder="static", static_url_path="/static"
)


@page.get("/")
def show() -> Response:
    """Show what the form asks for; at first the CPU of all hosts within the last hour."""
    fields = {
        name: request.args.get(name, "").strip()
        for name in ("resource", "range", "start", "end", "host", "group")
    }
    fields["resource"] = fields["resource"] if fields["resource"] in RESOURCES else "cpu"
    if not fields["range"] and not fields["start"]:
        fields["range"] = "1"
    values: dict[str, Any] = {
        "fields": fields,
        "resources": RESOURCES,
        "ranges": RANGES,
        "groups": sorted(usage().settings.groups),
        "names": _names(),
    }
    try:
        values |= _found(fields)
    except HTTPException as error:
        return make_response(_render(problem=error.description, **values), error.code)
    except PrometheusError as error:
        return make_response(_render(problem=str(error), **values), error.status)
    return make_response(_render(**values))


def _found(fields: dict[str, str]) -> dict[str, Any]:
    given = {name: text for name, text in fields.items() if text}
    if "start" in given:
        given.pop("range", None)
    else:
        given.pop("end", None)
    for name in ("start", "end"):
        if name in given and not given[name].endswith("Z"):
            given[name] += "Z"  # what a browser's field for date and time gives, which the form calls UTC
    try:
        query = UsageQuery.model_validate(given)
    except ValidationError as error:
        raise BadRequest(web.explain(error)) from None
    settings = usage().settings
    asked = question(query, settings, POINTS_OF_AVERAGE, datetime.now(UTC))
    found = api.averages(asked)
    hosts = sorted(found.items(), key=lambda item: (-item[1].average, item[0]))
    drawn = _draw(asked, hosts)
    numbers = {line.name: line.number for line in drawn.lines}
    return {
        "asked": asked,
        "average": answers.overall(found),
        "rows": [(name, host.average, numbers.get(name)) for name, host in hosts[:ROWS]],
        "count": len(hosts),
        "chart": drawn,
        "data": json.dumps([{"name": line.name, "points": line.points} for line in drawn.lines]).replace(
            "<", "\\u003c"
        ),
        "times": [datetime.fromtimestamp(at, UTC) for at in (asked.start, asked.end)],
        "links": {
            "Average (JSON)": f"/avg_usage?{urlencode(given)}",
            "Points (JSON)": f"/metrics_usage?{urlencode(given)}",
            "Points (CSV)": f"/metrics_usage?{urlencode({**given, 'format': 'csv'})}",
        },
    }


def _draw(asked: Question, hosts: list[tuple[str, HostAverage]]) -> chart.Chart:
    """Draw the hosts that used most."""
    names = [name for name, _ in hosts[:LINES]]
    step = choose_step(asked.end - asked.start, _POINTS, usage().settings.min_step)
    fewer = replace(asked, names=names, step=step)
    values: dict[str, dict[int, float]] = defaultdict(dict)
    for part in answers.points(usage().prometheus, usage().settings, fewer):
        for at, host, value in part:
            values[host][at] = value
    return chart.draw([(name, values[name]) for name in names], asked.start, asked.end, step)


def _names() -> list[str]:
    """Return names of hosts for the form to propose; none when Prometheus is away: others tell that."""
    try:
        since = datetime.now(UTC).timestamp() - _DAY
        return usage().prometheus.label_values("host", since=since)[:_NAMES]
    except PrometheusError:
        return []


def _render(**values: Any) -> str:
    return render_template("usage.html", size=chart, **values)
