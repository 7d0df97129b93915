"""The rules that every dashboard keeps, after those of Grafana's dashboard linter; works on JSON alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Iterator
from typing import Any

import promql_parser

from .queries import Json, annotation_queries, panels, queries, substitute

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
FLEET_METRICS = (
    "ALERTS",
    "ALERTS_FOR_STATE",
    "up",
    "scrape_duration_seconds",
    "scrape_samples_post_metric_relabeling",
    "scrape_samples_scraped",
    "scrape_series_added",
    "push_time_seconds",
    "push_failure_time_seconds",
    "alertmanager_alerts",
)
"""Metrics that are about all jobs and hosts, so that they may be asked for without naming any."""
RATES = {"rate", "irate", "increase"}
COUNTED = RATES | {"resets", "changes", "absent", "count_over_time", "count", "group"}
"""What may be asked of a counter: how fast it grows, or whether it is there. Its value tells nothing."""
COUNTERS = ("_total", "_bucket", "_count", "_sum")
KERNEL_COUNTERS = ("node_vmstat_", "node_netstat_")
"""Begin the names of counters that are called as the kernel calls them."""
ON_TIME_CHANGE = 2
"""Of a variable: Grafana asks for its values whenever the time range changes."""
_UID = re.compile(r"/d/([\w-]+)")


def problems(dashboard: Json, known: Container[str] | None = None) -> list[str]:
    """Return what is wrong with a dashboard, a line each.

    Args:
        dashboard: its JSON.
        known: the uids of all dashboards; a link to any other is wrong.

    """
    found = [line for rule in _RULES for line in rule(dashboard)]
    if known is not None:
        found += [
            f"links to the dashboard {uid}, which there is not"
            for uid in sorted(set(_UID.findall(str(dashboard))))
            if uid not in known
        ]
    return found


def selectors(expression: Any) -> Iterator[Any]:
    """Yield all vector selectors below a node of a parsed expression."""
    for node, _ in _walk(expression, ()):
        if isinstance(node, promql_parser.VectorSelector):
            yield node


def metrics(expr: str) -> set[str]:
    """Return the names of the metrics that an expression with Grafana's variables asks for."""
    return {name for node in selectors(promql_parser.parse(substitute(expr))) if (name := _metric(node))}


def _walk(node: Any, callers: tuple[str, ...]) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Yield all nodes, each with the functions and aggregations around it, the outermost first."""
    yield node, callers
    if isinstance(node, promql_parser.Call):
        for argument in node.args:
            yield from _walk(argument, (*callers, node.func.name))
    if isinstance(node, promql_parser.AggregateExpr):
        callers = (*callers, str(node.op))
    for name in ("lhs", "rhs", "expr", "param"):
        if below := getattr(node, name, None):
            yield from _walk(below, callers)
    if isinstance(node, promql_parser.MatrixSelector):
        yield from _walk(node.vector_selector, callers)


def _metric(selector: Any) -> str:
    if selector.name:
        return str(selector.name)
    return next((matcher.value for matcher in selector.matchers.matchers if matcher.name == "__name__"), "")


def _head(dashboard: Json) -> Iterator[str]:
    for name in ("uid", "title", "description", "timezone", "refresh"):
        if not dashboard.get(name):
            yield f"has no {name}"
    if dashboard.get("editable") is not False:
        yield "is editable: a change in Grafana would be lost"
    if "fleetwatch" not in dashboard.get("tags", []):
        yield "has no tag fleetwatch"
    if dashboard["title"].lower().startswith("fleetwatch"):
        yield "its title begins with the project's name"
    names = {annotation["name"] for annotation in dashboard["annotations"]["list"]}
    for name in ("Alerts", "Restarts"):
        if name not in names:
            yield f"has no annotation {name}"


def _variables(dashboard: Json) -> Iterator[str]:
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    source = variables.get("datasource", {})
    if (source.get("type"), source.get("query")) != ("datasource", "prometheus"):
        yield "has no variable datasource of type prometheus"
    for name, variable in variables.items():
        if not variable.get("label"):
            yield f"variable {name} has no label"
        if variable["type"] != "query":
            continue
        if variable.get("datasource") != DATASOURCE:
            yield f"variable {name} asks another data source than ${{datasource}}"
        if variable.get("refresh") != ON_TIME_CHANGE:
            yield f"variable {name} keeps its values when the time changes"
        if "label_values(" not in variable["query"]:
            yield f"variable {name} is no label_values()"


def _identifiers(dashboard: Json) -> Iterator[str]:
    every = [*dashboard["panels"], *(p for row in dashboard["panels"] for p in row.get("panels", []))]
    for number, count in Counter(panel.get("id") for panel in every).items():
        if count > 1 or not number:
            yield f"panel id {number} is missing or used {count} times"
    for panel in panels(dashboard):
        letters = [target.get("refId") for target in panel.get("targets", [])]
        if len(set(letters)) < len(letters) or not all(letters):
            yield f"{panel['title']}: queries without a letter of their own"


def _grid(dashboard: Json) -> Iterator[str]:
    """Panels do not overlap, and leave no hole."""
    cells: Counter[tuple[int, int]] = Counter()
    shown = [*dashboard["panels"]]
    for panel in shown:
        place = panel["gridPos"]
        if place["x"] + place["w"] > 24:  # noqa: PLR2004 - the grid's width
            yield f"{panel['title']}: beyond the grid"
        cells.update(
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        )
    if any(count > 1 for count in cells.values()):
        yield "panels overlap"
    if cells and len(cells) != 24 * (max(y for _, y in cells) + 1):
        yield "the grid has holes"


def _panels(dashboard: Json) -> Iterator[str]:
    for panel in panels(dashboard):
        title = panel.get("title") or f"panel {panel.get('id')}"
        for name in ("title", "description"):
            if not panel.get(name):
                yield f"{title}: has no {name}"
        if panel.get("description") and not panel["description"].endswith((".", "?")):
            yield f"{title}: its description is no sentence"
        if panel.get("datasource") != DATASOURCE:
            yield f"{title}: asks another data source than ${{datasource}}"
        if panel["type"] == "text":
            continue
        if not panel.get("targets"):
            yield f"{title}: has no query"
        yield from (f"{title}: {line}" for line in _look(panel))
    for title, count in Counter(
        panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"
    ).items():
        if count > 1:
            yield f"{count} rows are called {title}"


def _look(panel: Json) -> Iterator[str]:
    defaults = panel.get("fieldConfig", {}).get("defaults", {})
    for name in ("unit", "decimals", "thresholds"):
        if name not in defaults:
            yield f"has no {name}"
    options = panel.get("options", {})
    legend = options.get("legend", {})
    if legend.get("showLegend") is False or legend.get("show") is False:
        yield "its legend is hidden"
    if "reduceOptions" in options and not options["reduceOptions"].get("calcs"):
        yield "does not say which value it shows"
    if panel["type"] in {"gauge", "bargauge"} and "min" not in defaults:
        yield "has no minimum"
    if panel["type"] == "gauge" and "max" not in defaults:
        yield "has no maximum"


def _targets(dashboard: Json) -> Iterator[str]:
    chosen = {variable["name"] for variable in dashboard["templating"]["list"]} & {"job", "host"}
    for panel in panels(dashboard):
        for target in panel.get("targets", []):
            if target.get("datasource") != DATASOURCE:
                yield f"{panel['title']}: a query asks another data source than ${{datasource}}"
    for target in queries(dashboard):
        place = f"{target.panel} {target.ref}"
        if not target.legend:
            yield f"{place}: its series have no name"
        for line in _expression(target.expr, chosen, graph=not target.instant):
            yield f"{place}: {line}"
    for target in annotation_queries(dashboard):
        for line in _expression(target.expr, set(), graph=True):
            yield f"annotation {target.panel}: {line}"


def _expression(expr: str, chosen: set[str], *, graph: bool) -> Iterator[str]:
    try:
        tree = promql_parser.parse(substitute(expr))
    except ValueError as error:
        yield f"is no PromQL: {str(error).splitlines()[0]}: {expr}"
        return
    # A counter over a fixed window is right where a title says so, as in "within the last hour".
    if graph and re.search(r"\b(?:i?rate)\([^()]*\[(?!\$__(?:rate_interval|range)\])", expr):
        yield f"a rate has another window than $__rate_interval: {expr}"
    for node, callers in _walk(tree, ()):
        if not isinstance(node, promql_parser.VectorSelector):
            continue
        metric = _metric(node)
        if metric.endswith(("_total", "_bucket")) and not COUNTED & set(callers):
            yield f"the counter {metric} has no rate() or increase()"
        if RATES & set(callers) and not metric.endswith(COUNTERS) and not metric.startswith(KERNEL_COUNTERS):
            yield f"{metric} is no counter, and yet has a rate"
        if chosen and ":" not in metric and metric not in FLEET_METRICS:
            named = {matcher.name for matcher in node.matchers.matchers}
            if not named & {"job", "host"}:
                yield f"{metric} has no matcher for job or host"


_RULES: tuple[Callable[[Json], Iterator[str]], ...] = (
    _head,
    _variables,
    _identifiers,
    _grid,
    _panels,
    _targets,
)
