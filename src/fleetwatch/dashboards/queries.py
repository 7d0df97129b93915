"""Reads what a dashboard asks Prometheus, from its JSON alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

INTERVAL = "1m"
RANGE = "24h"
BUILT_IN = {
    "__rate_interval": "5m",
    "__interval": INTERVAL,
    "__range": RANGE,
    "__rate_interval_ms": "300000",
    "__interval_ms": "60000",
    "__range_s": "86400",
    "__range_ms": "86400000",
}
"""Values for the variables that Grafana itself has."""
ALL = ".+"
"""What a variable with several values is when all are chosen."""

_LABEL_VALUES = re.compile(r"label_values\((?P<selector>.+), *(?P<label>\w+)\)")
_VARIABLE = re.compile(r"\$(\w+)|\$\{(\w+)(?::\w+)?\}")


@dataclass(frozen=True)
class Target:
    """One query of one panel."""

    panel: str
    """Title of the panel."""
    ref: str
    """The query's letter, e.g. A."""
    expr: str
    """PromQL, with Grafana's variables still in it."""
    instant: bool
    """Whether only the newest value is asked for, rather than values over time."""
    legend: str = ""


def panels(dashboard: Json) -> Iterator[Json]:
    """Yield all panels but the rows, those of collapsed rows too."""
    for panel in dashboard.get("panels", []):
        if panel["type"] == "row":
            yield from panel.get("panels", [])
        else:
            yield panel


def queries(dashboard: Json) -> list[Target]:
    """Return every query of every panel, in the order in which they are drawn."""
    return [
        Target(
            panel=panel.get("title", ""),
            ref=target.get("refId", ""),
            expr=target["expr"],
            instant=bool(target.get("instant")),
            legend=target.get("legendFormat", ""),
        )
        for panel in panels(dashboard)
        for target in panel.get("targets", [])
    ]


def annotation_queries(dashboard: Json) -> list[Target]:
    """Return the queries of the annotations, with the annotation's name as the panel."""
    return [
        Target(panel=annotation["name"], ref="", expr=annotation["expr"], instant=False)
        for annotation in dashboard.get("annotations", {}).get("list", [])
        if annotation.get("expr")
    ]


def variables(dashboard: Json) -> dict[str, tuple[str, str] | str]:
    """Return what each variable is when all of its values are chosen.

    That is either an expression such as ``.+``, or a selector and the label whose values, joined by ``|``, it
    is: Grafana asks Prometheus for them. The selector may have variables in turn.
    """
    found: dict[str, tuple[str, str] | str] = {}
    for variable in dashboard.get("templating", {}).get("list", []):
        if variable["type"] != "query":
            continue
        match = _LABEL_VALUES.fullmatch(variable["query"])
        if match and not variable.get("allValue"):
            found[variable["name"]] = (match["selector"], match["label"])
        else:
            found[variable["name"]] = variable.get("allValue") or ALL
    return found


def substitute(expr: str, values: Mapping[str, str] | None = None) -> str:
    """Return an expression that Prometheus takes.

    Args:
        expr: with variables such as ``$host``, ``${host}`` or ``$__rate_interval``.
        values: of the variables; Grafana's own have a default, any other is everything (``.+``).

    """
    known = {**BUILT_IN, **(values or {})}
    return _VARIABLE.sub(lambda match: known.get(match[1] or match[2], ALL), expr)
