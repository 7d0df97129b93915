"""The house style: what a line of it becomes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fleetwatch.dashboards.finish import finish
from fleetwatch.dashboards.style import (
    Look,
    Panel,
    Row,
    above,
    bargauge,
    below,
    column,
    dashboard,
    dashboard_url,
    gauge,
    heatmap,
    host_link,
    host_variable,
    job_variable,
    mapping,
    markdown,
    query,
    render,
    row,
    stat,
    table,
    timeline,
    timeseries,
    units,
    variable,
)

Json = dict[str, Any]
UP = query("up", "{{job}}")


def _dashboard(*rows: Row, **more: Any) -> Json:
    found: Json = json.loads(render(dashboard("fleetwatch-x", "X", "A test.", *rows, **more)))
    return found


def _panel(panel: Panel) -> Json:
    found: Json = _dashboard(row("All", panel))["panels"][1]
    return found


def _stat(width: int = 3, height: int = 4) -> Panel:
    return stat("Up", "Targets.", UP, unit=units.Short, **Look(width=width, height=height))


def test_thresholds_of_what_is_well_when_low() -> None:
    assert above(orange=70, red=90) == [("green", None), ("orange", 70), ("red", 90)]
    assert above(red=1) == [("green", None), ("red", 1)]


def test_thresholds_of_what_is_well_when_high() -> None:
    assert below(orange=30, red=15) == [("red", None), ("orange", 15), ("green", 30)]
    assert below(red=1) == [("red", None), ("green", 1)]
    assert below(orange=1) == [("orange", None), ("green", 1)]


@pytest.mark.parametrize(
    ("widths", "placed"),
    [
        ([24], [(0, 0, 24)]),
        ([8, 8, 8], [(0, 0, 8), (8, 0, 8), (16, 0, 8)]),
        ([3] * 5, [(0, 0, 5), (5, 0, 5), (10, 0, 5), (15, 0, 5), (20, 0, 4)]),
        ([8, 8, 8, 8], [(0, 0, 8), (8, 0, 8), (16, 0, 8), (0, 4, 24)]),
        ([16, 12], [(0, 0, 24), (0, 4, 24)]),
    ],
)
def test_lines_are_filled(widths: list[int], placed: list[tuple[int, int, int]]) -> None:
    panels = _dashboard(row("All", *(_stat(width) for width in widths)))["panels"][1:]
    assert [(p["gridPos"]["x"], p["gridPos"]["y"] - 1, p["gridPos"]["w"]) for p in panels] == placed


def test_a_line_is_as_high_as_its_highest() -> None:
    panels = _dashboard(row("A", _stat(height=4), _stat(height=9)), row("B", _stat()))["panels"]
    assert [p["gridPos"]["h"] for p in panels] == [1, 9, 9, 1, 4]
    assert [p["gridPos"]["y"] for p in panels] == [0, 1, 1, 10, 11]


def test_a_collapsed_row_keeps_its_panels_and_takes_one_line() -> None:
    panels = _dashboard(row("A", _stat(), collapsed=True), row("B", _stat()))["panels"]
    assert [p["type"] for p in panels] == ["row", "row", "stat"]
    assert [p["gridPos"]["y"] for p in panels] == [0, 1, 2]
    (hidden,) = panels[0]["panels"]
    assert (hidden["title"], hidden["gridPos"]) == ("Up", {"h": 4, "w": 24, "x": 0, "y": 1})
    assert [panels[0]["id"], hidden["id"], panels[1]["id"], panels[2]["id"]] == [1, 2, 3, 4]


def test_what_the_sdk_leaves_out() -> None:
    panel = _panel(timeseries("Up", "Targets.", UP, query("down"), unit=units.Short))
    assert [target["refId"] for target in panel["targets"]] == ["A", "B"]
    assert panel["options"]["legend"]["showLegend"] is True
    bars = _panel(bargauge("Up", "Targets.", UP, unit=units.Short, minimum=0))
    assert bars["options"]["legend"]["showLegend"] is True
    assert _panel(_stat())["options"]["reduceOptions"]["calcs"] == ["lastNotNull"]
    assert "placement" not in json.dumps(_dashboard(row("A", _stat()))["links"])


def test_finish_mends_what_has_no_calculation() -> None:
    panel = {"type": "stat", "gridPos": {"h": 1, "w": 1}, "options": {"reduceOptions": {"calcs": []}}}
    finished = finish({"panels": [panel]})["panels"][0]["options"]["reduceOptions"]
    assert finished == {"calcs": ["lastNotNull"], "fields": "", "values": False}


@pytest.mark.parametrize(
    ("panel", "instant", "form"),
    [
        (_stat(), True, "time_series"),
        (stat("S", "S.", UP, unit="s", sparkline=True), False, "time_series"),
        (gauge("G", "G.", UP, unit="s", minimum=0, maximum=1), True, "time_series"),
        (bargauge("B", "B.", UP, unit="s", minimum=0), True, "time_series"),
        (timeseries("T", "T.", UP, unit="s"), False, "time_series"),
        (timeline("L", "L.", UP, mappings=mapping({0: ("down", "red")})), False, "time_series"),
        (heatmap("H", "H.", UP, unit="s"), False, "heatmap"),
        (table("T", "T.", column(UP, "Up", unit="s")), True, "table"),
    ],
)
def test_how_a_panel_asks(panel: Panel, instant: bool, form: str) -> None:
    (target,) = _panel(panel)["targets"]
    assert (target["instant"], target["range"], target["format"]) == (instant, not instant, form)
    assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_decimals_follow_the_unit() -> None:
    def decimals(unit: str, **look: Any) -> Any:
        return _panel(stat("S", "S.", UP, unit=unit, **look))["fieldConfig"]["defaults"]["decimals"]

    assert [decimals(unit) for unit in (units.Short, units.Percent, units.Seconds)] == [0, 1, 2]
    assert decimals(units.Short, decimals=3) == 3


def test_table_names_values_as_grafana_does() -> None:
    panel = _panel(
        table(
            "T",
            "T.",
            column("host", "Host", links=[host_link(field="Host")]),
            column(query("cpu"), "CPU", unit=units.PercentUnit, thresholds=above(red=0.9)),
            column(query("load"), "Load", unit=units.NoUnit, cell="color-text"),
            join="host",
            sort="CPU",
        )
    )
    join, keep, organize = panel["transformations"]
    assert join == {"id": "joinByField", "options": {"byField": "host", "mode": "outer"}}
    assert keep["options"]["include"]["names"] == ["host", "Value #A", "Value #B"]
    assert organize["options"]["renameByName"] == {"host": "Host", "Value #A": "CPU", "Value #B": "Load"}
    assert organize["options"]["indexByName"] == {"host": 0, "Value #A": 1, "Value #B": 2}
    assert panel["options"]["sortBy"] == [{"displayName": "CPU", "desc": True}]
    by_name = {
        entry["matcher"]["options"]: {p["id"]: p["value"] for p in entry["properties"]}
        for entry in panel["fieldConfig"]["overrides"]
    }
    assert "unit" not in by_name["Host"]
    assert by_name["Host"]["links"][0]["url"].startswith("/d/fleetwatch-host?")
    assert '${__data.fields["Host"]}' in by_name["Host"]["links"][0]["url"]
    assert by_name["CPU"]["unit"] == "percentunit"
    assert by_name["CPU"]["custom.cellOptions"]["type"] == "color-background"
    assert by_name["Load"]["custom.cellOptions"]["type"] == "color-text"


def test_a_table_of_one_query_has_one_value() -> None:
    panel = _panel(table("T", "T.", column("job", "Job"), column(UP, "Up", unit="short")))
    assert [entry["id"] for entry in panel["transformations"]] == ["filterFieldsByName", "organize"]
    assert panel["transformations"][0]["options"]["include"]["names"] == ["job", "Value"]


def test_a_table_cannot_be_sorted_by_what_it_has_not() -> None:
    with pytest.raises(ValueError, match="table 'T': no column 'Down' to sort by"):
        table("T", "T.", column(UP, "Up"), sort="Down")


def test_mappings() -> None:
    (found,) = mapping({0: ("down", "red"), "x": ("other", "blue")})
    assert json.loads(json.dumps(found.to_json(), default=lambda value: value.to_json())) == {
        "type": "value",
        "options": {
            "0": {"text": "down", "color": "red", "index": 0},
            "x": {"text": "other", "color": "blue", "index": 1},
        },
    }


def test_variables() -> None:
    found = _dashboard(
        row("A", _stat()),
        variables=[
            job_variable("x_info"),
            host_variable("x_info"),
            variable("one", "One", "label_values(up, host)", multi=False, hidden=True),
        ],
    )["templating"]["list"]
    source, job, host, one = found
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    assert job["query"] == "label_values(x_info, job)"
    assert "allValue" not in job, "all jobs are those with the metric, not all there are"
    assert host["query"] == 'label_values(x_info{job=~"$job"}, host)'
    assert (host["allValue"], host["current"]["value"], host["multi"]) == (".+", ["$__all"], True)
    assert (one["multi"], one["hide"], "current" in one) == (False, 2, False)


def test_annotations_follow_the_variables() -> None:
    def annotations(**more: Any) -> dict[str, str]:
        found = _dashboard(row("A", _stat()), **more)["annotations"]["list"]
        return {entry["name"]: entry["expr"] for entry in found}

    both = annotations(variables=[job_variable("x"), host_variable("x")], reloads="x_reload_seconds")
    assert both["Alerts"] == (
        'ALERTS{alertstate="firing",severity=~"critical|warning",job=~"$job",host=~"$host|"}'
    )
    assert both["Restarts"].startswith("sum by (job, host) (changes(process_start_time_seconds{")
    assert "changes(x_reload_seconds{" in both["Configurations"]
    none = annotations()
    assert set(none) == {"Alerts", "Restarts"}
    assert none["Alerts"] == 'ALERTS{alertstate="firing",severity=~"critical|warning"}'
    assert none["Restarts"].startswith("sum by (job) (changes(process_start_time_seconds{}[")
    only = annotations(variables=[host_variable("x", job=False)], scope='job="a"', restarts='job="b"')
    assert 'job="a"' in only["Alerts"]
    assert 'job="b"' in only["Restarts"]


def test_links() -> None:
    menu, logs = _dashboard(row("A", _stat()))["links"]
    assert (menu["type"], menu["tags"], menu["asDropdown"], menu["includeVars"]) == (
        "dashboards",
        ["fleetwatch"],
        True,
        False,
    )
    assert (logs["tags"], logs["asDropdown"], logs["includeVars"]) == (["fleetwatch-logs"], False, True)
    assert dashboard_url("fleetwatch-host", host="x") == (
        "/d/fleetwatch-host?${datasource:queryparam}&var-host=x&${__url_time_range}"
    )


def test_a_query_may_be_spread_over_lines() -> None:
    assert query("sum(\n    up\n)").expr == "sum( up )"


def test_text() -> None:
    panel = _panel(markdown("First", "What to do.", "Look."))
    assert (panel["type"], panel["options"]["content"]) == ("text", "Look.")
