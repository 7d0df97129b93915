"""The dashboards are what Grafana's model allows: a schema of ours, and the SDK reading them back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard
from jsonschema import Draft202012Validator

from fleetwatch.dashboards.queries import panels
from tests.dashboards.schema import DASHBOARD

Json = dict[str, Any]
UNITS = {getattr(units, name) for name in dir(units) if name[0].isupper()}

plugins.register_default_plugins()


def _errors(dashboard: Json) -> list[str]:
    found = Draft202012Validator(DASHBOARD).iter_errors(dashboard)
    return [f"{'/'.join(str(part) for part in error.path)}: {error.message[:200]}" for error in found]


def _changes(before: Any, after: Any, path: str = "") -> list[str]:
    """Return what is lost or different in ``after``; more there may be."""
    if isinstance(before, dict) and isinstance(after, dict):
        lost = [f"{path}/{key} is lost" for key in before.keys() - after.keys()]
        return lost + [
            line
            for key in before.keys() & after.keys()
            for line in _changes(before[key], after[key], f"{path}/{key}")
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [line for index, (old, new) in pairs for line in _changes(old, new, f"{path}/{index}")]
    return [] if before == after else [f"{path}: {before!r} became {after!r}"]


def _read_back(dashboard: Json) -> Any:
    return json.loads(JSONEncoder().encode(Dashboard.from_json(json.loads(json.dumps(dashboard)))))


@pytest.mark.slow
def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(DASHBOARD)


def test_schema(each_dashboard: Json) -> None:
    assert _errors(each_dashboard) == []


def test_the_sdk_reads_it_back(each_dashboard: Json) -> None:
    """The SDK's model is generated from Grafana's: what it does not know, it loses."""
    assert _changes(each_dashboard, _read_back(each_dashboard)) == []


def test_units_are_grafanas(each_dashboard: Json) -> None:
    for panel in panels(each_dashboard):
        config = panel.get("fieldConfig", {"defaults": {}, "overrides": []})
        used = {config["defaults"].get("unit")} | {
            entry["value"]
            for override in config["overrides"]
            for entry in override["properties"]
            if entry["id"] == "unit"
        }
        assert used - {None} <= UNITS, panel["title"]


def _panel(dashboard: Json, kind: str = "timeseries") -> Json:
    return next(panel for panel in panels(dashboard) if panel["type"] == kind)


BROKEN: dict[str, Callable[[Json], object]] = {
    "misspelt key": lambda d: d.update(refesh="30s"),
    "editable": lambda d: d.update(editable=True),
    "another model": lambda d: d.update(schemaVersion=1),
    "uid with a space": lambda d: d.update(uid="fleetwatch x"),
    "no tag": lambda d: d.update(tags=["prometheus"]),
    "unknown panel": lambda d: _panel(d).update(type="graph"),
    "no title": lambda d: _panel(d).pop("title"),
    "data source by name": lambda d: _panel(d).update(datasource={"type": "prometheus", "uid": "Prometheus"}),
    "beyond the grid": lambda d: _panel(d)["gridPos"].update(w=25),
    "colour that is none": lambda d: _panel(d)["fieldConfig"]["defaults"]["thresholds"]["steps"][0].update(
        color="gren"
    ),
    "second colour without a value": lambda d: _panel(d)["fieldConfig"]["defaults"]["thresholds"][
        "steps"
    ].append({"color": "red", "value": None}),
    "hidden legend": lambda d: _panel(d)["options"]["legend"].update(showLegend=False),
    "unknown transformation": lambda d: _panel(d, "table")["transformations"].append(
        {"id": "x", "options": {}}
    ),
    "unknown property": lambda d: _panel(d, "table")["fieldConfig"]["overrides"][0]["properties"].append(
        {"id": "units", "value": "s"}
    ),
    "query without expression": lambda d: _panel(d)["targets"][0].pop("expr"),
    "link to a foreign site": lambda d: d["links"].append(
        {**d["links"][0], "type": "link", "url": "https://example.org/"}
    ),
    "variable that is a constant": lambda d: d["templating"]["list"][1].update(type="constant"),
    "annotation of Grafana": lambda d: d["annotations"]["list"][0].update(builtIn=1),
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_the_schema_finds(mistake: str, prometheus: Json) -> None:
    BROKEN[mistake](prometheus)
    assert _errors(prometheus)


def test_reading_back_finds(prometheus: Json) -> None:
    _panel(prometheus)["options"]["legend"]["shown"] = True
    assert any("legend/shown is lost" in line for line in _changes(prometheus, _read_back(prometheus)))
