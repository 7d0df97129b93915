"""Runs every query of every dashboard against a real Prometheus, as Grafana would.

    python -m lab.panels [--prometheus http://127.0.0.1:9090] [--window 600]

Each query must be answered without an error and with data. What may be without data is in ``EMPTY``, with the
reason; what is so only at times must name metrics that exist, so a misspelt one is found all the same. The
tests of Molecule and ``make bench-dashboards`` use this too.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

from fleetwatch.dashboards.lint import metrics
from fleetwatch.dashboards.queries import annotation_queries, panels, queries, substitute
from lab import ROOT

SCREEN = 1920
"""Pixels across; a panel gets at most one value for each of its own, which decides the step."""
COLUMNS = 24
STEPS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)
"""Seconds that Grafana rounds a step to."""
ANNOTATION, VARIABLE = "annotation ", "variable "
"""What stands before their names, where a panel has its title."""
HTTP_TIMEOUT = 60.0

Json = dict[str, Any]
_opener = build_opener(ProxyHandler({}))  # Prometheus is on this machine or beside it: no proxy


class When(Enum):
    """When a query has no data."""

    ALWAYS = "always"
    """In the test fleet it never has; should it have, the entry must go."""
    AT_TIMES = "at times"
    """It depends on what happens just then."""


@dataclass(frozen=True)
class Empty:
    """Queries that may be without data.

    Attributes:
        dashboard: its uid, as a regular expression.
        panel: title, as a regular expression.
        reason: why this is no mistake.
        when: always, or at times.
        expr: part of the query, if the panel has others, as a regular expression.
        without: it only counts while no series matches this selector; then they may be empty.

    """

    dashboard: str
    panel: str
    reason: str
    when: When = When.ALWAYS
    expr: str = ""
    without: str = ""

    def covers(self, answer: Answer) -> bool:
        """Tell whether it speaks of this query."""
        return bool(
            re.fullmatch(self.dashboard, answer.dashboard)
            and re.fullmatch(self.panel, answer.panel)
            and re.search(self.expr, answer.expr)
        )


@dataclass(frozen=True)
class Answer:
    """What one query of one panel brought."""

    dashboard: str
    panel: str
    ref: str
    expr: str
    """As it was sent."""
    step: float | None
    """Seconds between two values over time; none if only the newest is asked for."""
    seconds: float = 0.0
    series: int = 0
    """How many have a value that can be drawn."""
    error: str = ""

    @property
    def name(self) -> str:
        """Where it is."""
        return f"{self.dashboard} / {self.panel}{' ' + self.ref if self.ref else ''}"


class PrometheusError(RuntimeError):
    """Prometheus cannot be asked, or refuses a query."""


class Prometheus:
    """The HTTP API of a Prometheus."""

    def __init__(self, url: str, timeout: float = HTTP_TIMEOUT) -> None:
        """Remember where it answers, and how many seconds it has for an answer."""
        self._url = url.rstrip("/")
        self._timeout = timeout

    def get(self, path: str, **parameters: Any) -> Any:
        """Return the data of an answer.

        Raises:
            PrometheusError: it does not answer, or says that the request is wrong.

        """
        try:
            with _opener.open(
                f"{self._url}/api/v1/{path}?{urlencode(parameters, doseq=True)}", timeout=self._timeout
            ) as answer:
                return json.load(answer)["data"]
        except HTTPError as error:
            try:
                raise PrometheusError(json.load(error)["error"]) from error
            except ValueError:
                raise PrometheusError(f"{self._url}: {error}") from error
        except (URLError, OSError, ValueError) as error:
            raise PrometheusError(f"{self._url}: {error}") from error

    def exists(self, selector: str) -> bool:
        """Tell whether some series matches a selector now."""
        return bool(self.get("query", query=f"count({selector})")["result"])

    def scrape_interval(self) -> float:
        """Return the seconds between two scrapes, which Grafana's ``$__rate_interval`` depends on."""
        config = self.get("status/config")["yaml"]
        found = re.search(r"^\s+scrape_interval: (?:(\d+)m)?(?:(\d+)s)?$", config, re.MULTILINE)
        return 60.0 * int(found[1] or 0) + int(found[2] or 0) if found else 60.0


def dashboards() -> list[Json]:
    """Return every dashboard that a role ships, in the order of their names."""
    return [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(ROOT.glob("roles/*/monitoring/dashboards/*.json"), key=lambda path: path.name)
    ]


@dataclass(frozen=True)
class Window:
    """The time that is looked at."""

    end: float
    seconds: float
    scrape_interval: float
    """What the data source in Grafana is told."""

    def step(self, width: int) -> float:
        """Return the seconds between two values in a panel that is so many of the grid's columns wide."""
        exact = max(self.seconds / (SCREEN * width / COLUMNS), self.scrape_interval)
        return next((step for step in STEPS if step >= exact), STEPS[-1])

    def built_in(self, step: float) -> dict[str, str]:
        """Return Grafana's own variables."""
        rate = max(step + self.scrape_interval, 4 * self.scrape_interval)
        return {
            "__interval": f"{step:.0f}s",
            "__interval_ms": f"{1000 * step:.0f}",
            "__rate_interval": f"{rate:.0f}s",
            "__rate_interval_ms": f"{1000 * rate:.0f}",
            "__range": f"{self.seconds:.0f}s",
            "__range_s": f"{self.seconds:.0f}",
            "__range_ms": f"{1000 * self.seconds:.0f}",
        }


def variables(
    dashboard: Json, prometheus: Prometheus, window: Window, *, several: bool = False
) -> tuple[dict[str, str], list[Answer]]:
    """Return the values that a dashboard's variables have at first, as they appear in a query.

    Args:
        dashboard: its JSON.
        prometheus: knows the values.
        window: in which to look for them.
        several: choose the first two values rather than all, where a variable takes more than one.

    Returns:
        The values, and the answers to the queries for them.

    """
    values: dict[str, str] = {}
    answers: list[Answer] = []
    for variable in dashboard.get("templating", {}).get("list", []):
        name = variable["name"]
        if variable["type"] == "query":
            known, answer = _values(dashboard["uid"], variable, values, prometheus, window)
            answers.append(answer)
            if not known:
                continue  # then it is everything; the answer tells
            if not variable["multi"]:
                values[name] = known[0].replace("\\", r"\\").replace('"', r"\"")
            elif several or not variable["includeAll"]:
                values[name] = any_of(known[:2])
            else:
                values[name] = variable.get("allValue") or any_of(known)
        elif variable["type"] in {"custom", "constant", "textbox", "interval"}:
            chosen = variable.get("current", {}).get("value") or variable["query"].split(",")[0]
            values[name] = chosen[0] if isinstance(chosen, list) else str(chosen)
    return values, answers


def any_of(values: Iterable[str]) -> str:
    """Return the pattern for some values as Grafana writes it into an expression, between quotes."""
    escaped = (re.sub(r"[$^*{}\[\]'+?.()|]", r"\\\\\g<0>", value.replace("\\", 4 * "\\")) for value in values)
    return f"({'|'.join(escaped)})"


def _values(
    dashboard: str, variable: Json, known: Mapping[str, str], prometheus: Prometheus, window: Window
) -> tuple[list[str], Answer]:
    """Return the values of a variable, sorted, and what asking for them brought."""
    found = re.fullmatch(r"label_values\((?:(.+),)?\s*(\w+)\)", variable["query"].strip())
    if not found:
        raise ValueError(
            f"variable {variable['name']}: {variable['query']} is not label_values(metric, label)"
        )
    selector = substitute(found[1] or "up", known)
    values: list[str] = []
    error = ""
    began = time.perf_counter()
    try:
        values = prometheus.get(
            f"label/{found[2]}/values",
            start=window.end - window.seconds,
            end=window.end,
            **{"match[]": selector},
        )
    except PrometheusError as refused:
        error = str(refused)
    seconds = time.perf_counter() - began
    pattern = (variable.get("regex") or "").strip("/")
    values = sorted(value for value in values if re.search(pattern, value))
    question = Answer(dashboard, VARIABLE + variable["name"], "", selector, None)
    return values, replace(question, seconds=seconds, series=len(values), error=error)


def ask(
    dashboard: Json, prometheus: Prometheus, window: Window, *, several: bool = False
) -> Iterator[Answer]:
    """Run every query of a dashboard, those of its annotations too, and yield what came.

    Args:
        dashboard: its JSON.
        prometheus: answers.
        window: the time that the dashboard shows.
        several: see :func:`variables`.

    """
    values, answers = variables(dashboard, prometheus, window, several=several)
    yield from answers
    widths = {panel["title"]: panel["gridPos"]["w"] for panel in panels(dashboard)}
    for target in queries(dashboard):
        step = window.step(widths[target.panel])
        expr = substitute(target.expr, values | window.built_in(step))
        asked = None if target.instant else step
        yield run(Answer(dashboard["uid"], target.panel, target.ref, expr, asked), prometheus, window)
    for target in annotation_queries(dashboard):
        step = max(60.0, window.step(COLUMNS))
        expr = substitute(target.expr, values | window.built_in(step))
        yield run(Answer(dashboard["uid"], ANNOTATION + target.panel, "", expr, step), prometheus, window)


def run(question: Answer, prometheus: Prometheus, window: Window) -> Answer:
    """Run the query of an answer, again or for the first time, and return what came."""
    step = question.step
    began = time.perf_counter()
    try:
        if step is None:
            data = prometheus.get("query", query=question.expr, time=window.end)
        else:
            # Grafana asks at multiples of the step.
            end = window.end // step * step
            begin = (window.end - window.seconds) // step * step
            data = prometheus.get("query_range", query=question.expr, start=begin, end=end, step=step)
    except PrometheusError as error:
        return replace(question, seconds=time.perf_counter() - began, series=0, error=str(error))
    return replace(question, seconds=time.perf_counter() - began, series=_drawn(data), error="")


def _drawn(data: Json) -> int:
    """Return how many series have a value; NaN is none, since nothing is drawn of it."""
    if data["resultType"] == "scalar":
        return int(not math.isnan(float(data["result"][1])))
    samples = (series.get("values") or [series["value"]] for series in data["result"])
    return sum(any(not math.isnan(float(value)) for _, value in values) for values in samples)


def unknown(expr: str, known: Collection[str]) -> set[str]:
    """Return the names of metrics in an expression, or their patterns, of which none is known."""
    return {asked for asked in metrics(expr) if not any(re.fullmatch(asked, metric) for metric in known)}


def problems(answers: Iterable[Answer], prometheus: Prometheus, empty: Sequence[Empty]) -> list[str]:
    """Return what is wrong: errors, queries without data, and entries of ``empty`` that are not needed.

    Args:
        answers: to all queries.
        prometheus: knows which metrics exist.
        empty: what may be without data.

    """
    known = set(prometheus.get("label/__name__/values"))
    valid = {entry for entry in empty if not (entry.without and prometheus.exists(entry.without))}
    found: list[str] = []
    used: set[Empty] = set()
    for answer in answers:
        entries = [entry for entry in empty if entry.covers(answer)]
        used.update(entries)
        entry = next((entry for entry in entries if entry in valid), None)
        if answer.error:
            found.append(f"{answer.name}: {answer.error}: {answer.expr}")
        elif entry is None and not answer.series:
            found.append(f"{answer.name}: no data: {answer.expr}")
        elif entry and entry.without:
            continue
        elif entry and entry.when is When.ALWAYS and answer.series:
            found.append(f"{answer.name}: has data, but is listed as empty ({entry.reason})")
        elif entry and entry.when is When.AT_TIMES and (names := unknown(answer.expr, known)):
            found.append(f"{answer.name}: no such metric: {', '.join(sorted(names))}")
    found += [f"listed as empty, but there is no such query: {entry}" for entry in empty if entry not in used]
    return found


def quantile(answers: Sequence[Answer], share: float) -> float:
    """Return the seconds that this share of the panels did not exceed; a panel's queries run at once."""
    slowest: dict[tuple[str, str], float] = {}
    for answer in answers:
        key = answer.dashboard, answer.panel
        slowest[key] = max(slowest.get(key, 0), answer.seconds)
    ordered = sorted(slowest.values())
    return ordered[min(math.ceil(len(ordered) * share) - 1, len(ordered) - 1)] if ordered else 0.0


def report(answers: Sequence[Answer]) -> Iterator[str]:
    """Yield a line for each panel, with the time of its slowest query, and one for each dashboard."""
    for uid in dict.fromkeys(answer.dashboard for answer in answers):
        of_dashboard = [answer for answer in answers if answer.dashboard == uid]
        for panel in dict.fromkeys(answer.panel for answer in of_dashboard):
            of_panel = [answer for answer in of_dashboard if answer.panel == panel]
            yield (
                f"  {1000 * max(answer.seconds for answer in of_panel):8.1f} ms"
                f"{sum(answer.series for answer in of_panel):6} series  {panel}"
            )
        p95 = 1000 * quantile(of_dashboard, 0.95)
        yield f"{uid}: {len(of_dashboard)} queries, p95 of its panels {p95:.1f} ms"


QUIET = "nothing of the kind happens all the time"
NO_CONTROLLERS = "containers have no control groups of their own that limit and count"
EMPTY = [
    Empty(".*", f"{ANNOTATION}.*", QUIET, When.AT_TIMES),
    Empty(
        "fleetwatch-fleet", "Load for each CPU", "containers show the load of their machine: not collected"
    ),
    Empty("fleetwatch-fleet", "Hosts", "the same", expr="^max by \\(host\\) \\(instance:node_load1_per_cpu"),
    Empty("fleetwatch-host", "Load", "the same", expr="node_load"),
    Empty("fleetwatch-host", "Alerts", "no alert of this host fires", When.AT_TIMES),
    Empty("fleetwatch-host", "Units that failed", "no unit failed", When.AT_TIMES),
    Empty("fleetwatch-prometheus", "Targets that were down", "no target was down", When.AT_TIMES),
    Empty("fleetwatch-alertmanager", "Sent|Time to notify", "nothing was sent lately", When.AT_TIMES),
    Empty(
        "fleetwatch-alertmanager",
        "Members|Failed members|Messages in the queue",
        "one Alertmanager is no cluster",
        without="alertmanager_cluster_members",
    ),
    Empty(
        "fleetwatch-pushgateway",
        "Groups by time since the last push",
        "no push failed",
        When.AT_TIMES,
        expr="push_failure_time_seconds",
    ),
    Empty("fleetwatch-alerts", "Firing.*|Hosts with most alerts", "no alert fires", When.AT_TIMES),
    Empty(
        "fleetwatch-alert-receiver",
        "Requests per commit|Time to .*|Time of providers.*",
        "no alert came lately",
        When.AT_TIMES,
    ),
    Empty("fleetwatch-metrics-collector", ".*", "no collector is there", without="metrics_collector_success"),
    Empty(
        "fleetwatch-metrics-collector", "Temperature", "no thermometer", without="host_temperature_celsius"
    ),
    Empty("fleetwatch-metrics-collector", "Battery", "no battery", without="host_battery_charge_ratio"),
    Empty(
        "fleetwatch-metrics-collector",
        "Clock",
        "the virtual machine does not tell",
        without="host_cpu_frequency_hertz",
    ),
    Empty("fleetwatch-metrics-collector", "Failures", "no collector fails", When.AT_TIMES),
    Empty("fleetwatch-metrics-api", ".*", "no usage API is there", without="metrics_api_points_total"),
    Empty("fleetwatch-metrics-api", "Time for an answer", "nobody asks it anything yet", When.AT_TIMES),
    Empty("fleetwatch-slo", ".*", "no objective is set", without="slo:objective:ratio"),
    Empty("fleetwatch-slo", ".*", "nothing was asked yet", without="slo:sli_error:ratio_rate5m"),
    Empty("fleetwatch-grafana", ".*", "no Grafana is there", without="grafana_build_info"),
    Empty("fleetwatch-grafana", ".*", "nobody asks it anything yet", When.AT_TIMES),
    Empty("fleetwatch-rabbitmq", ".*", "no RabbitMQ is there", without="rabbitmq_build_info"),
    Empty("fleetwatch-redis", "Hit rate.*", "nothing is looked up", When.AT_TIMES),
    Empty("fleetwatch-postgresql", "Not yet applied by standbys", "there is no standby"),
    Empty(
        "fleetwatch-postgresql",
        "Statements by time|Found in memory|Rolled back",
        "nobody asks it anything",
        When.AT_TIMES,
    ),
    Empty("fleetwatch-probes", "Redirects", "nothing that is probed redirects"),
    Empty("fleetwatch-probes", "Probes that failed", "none failed", When.AT_TIMES),
    Empty("fleetwatch-probes", "First certificate to end|Certificates by their end", "no probe is by TLS"),
    Empty(
        "fleetwatch-transactions",
        "Failing.*|95 of 100.*|Time to .*|Exceptions|Payments|Requests by status",
        "no requests",
        When.AT_TIMES,
    ),
    Empty(
        "fleetwatch-transactions-business",
        "Failed|Cache hits|Payments that fail|Time .*",
        "nothing is bought",
        When.AT_TIMES,
    ),
    Empty(
        "fleetwatch-transactions",
        "CPU|Memory",
        "no collector of units is there",
        without='host_unit_tasks{unit=~"transactions-.+"}',
    ),
    Empty("fleetwatch-units", "Nearest to their limit", NO_CONTROLLERS),
    Empty("fleetwatch-units", "Most disk traffic|Disk traffic", NO_CONTROLLERS),
    Empty("fleetwatch-units", "CPU|Memory|All services", NO_CONTROLLERS, expr="_limit_"),
    Empty("fleetwatch-units", "Killed .*", NO_CONTROLLERS, without="host_unit_oom_kills_total"),
    Empty("fleetwatch-units", "Not active|Failed|Restarts", "all is well", When.AT_TIMES),
]
"""Queries that have no data in the lab and in Molecule's fleet; those hosts are containers."""


def main() -> int:
    """Ask everything once."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", metavar="URL")
    parser.add_argument("--window", type=float, default=600, help="seconds that the dashboards show")
    options = parser.parse_args()
    prometheus = Prometheus(options.prometheus)
    window = Window(time.time(), options.window, prometheus.scrape_interval())
    answers = [answer for dashboard in dashboards() for answer in ask(dashboard, prometheus, window)]
    wrong = problems(answers, prometheus, EMPTY)
    for line in (*report(answers), *wrong):
        print(line)  # noqa: T201 - the command's output
    print(f"{len(answers)} queries, p95 {1000 * quantile(answers, 0.95):.1f} ms, {len(wrong)} problems")  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
