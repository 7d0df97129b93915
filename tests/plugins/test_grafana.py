"""What Grafana is given: the ini file and the datasources."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.grafana import (
    GrafanaError,
    Source,
    datasource_file,
    datasources,
    ini,
    uid,
)

PROMETHEUS = [Source("prometheus", name, f"http://{name}:9090", "15s") for name in ("m1", "m2")]
ALERTMANAGER = Source("alertmanager", "m1", "http://m1:9093")
LOKI, TEMPO = Source("loki", "l1", "http://l1:3100"), Source("tempo", "t1", "http://t1:3200")


def test_ini() -> None:
    assert ini(
        {
            "server": {"http_port": 3000, "domain": None, "root_url": "%(protocol)s://x/"},
            "auth.anonymous": {"enabled": False},
            "empty": {"nothing": None},
            "smtp": {"password": "a#b", "from_name": " x ", "user": '"quoted'},
            "DEFAULT": {"instance_name": "one"},
        }
    ).splitlines()[1:] == [
        "instance_name = one",
        "",
        "[server]",
        "http_port = 3000",
        "root_url = %(protocol)s://x/",
        "",
        "[auth.anonymous]",
        "enabled = false",
        "",
        "[smtp]",
        'password = """a#b"""',
        'from_name = """ x """',
        'user = """"quoted"""',
    ]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"a]b": {}}, "is not the name of a section"),
        ({"a": {"b=c": 1}}, "is not a key"),
        ({"a": 1}, "must map keys to values"),
        ({"a": {"b": [1]}}, "b in the section a must be written as grafana.ini has it"),
        ({"a": {"b": "x\n[auth.anonymous]\nenabled = true"}}, "in one line"),
    ],
)
def test_ini_refuses(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(GrafanaError, match=words):
        ini(settings)


def test_a_pair_of_prometheus_servers() -> None:
    first, second, alertmanager = datasources([*PROMETHEUS, ALERTMANAGER])
    assert (first["name"], first["uid"], first["isDefault"]) == ("Prometheus m1", "prometheus-m1", True)
    assert (second["name"], second["url"], second["isDefault"]) == ("Prometheus m2", "http://m2:9090", False)
    assert first["jsonData"]["alertmanagerUid"] == alertmanager["uid"] == "alertmanager-m1"
    assert first["jsonData"]["timeInterval"] == "15s"
    assert "exemplarTraceIdDestinations" not in first["jsonData"]
    assert alertmanager["name"] == "Alertmanager"
    assert alertmanager["jsonData"]["implementation"] == "prometheus"


def test_metrics_logs_and_traces_are_linked() -> None:
    prometheus, loki, tempo = datasources([PROMETHEUS[0], LOKI, TEMPO])
    uids = {"prometheus": prometheus["uid"], "loki": loki["uid"], "tempo": tempo["uid"]}
    assert [link["datasourceUid"] for link in prometheus["jsonData"]["exemplarTraceIdDestinations"]] == [
        "tempo-t1"
    ]
    assert {link["datasourceUid"] for link in loki["jsonData"]["derivedFields"]} == {uids["tempo"]}
    assert loki["jsonData"]["derivedFields"][0]["matcherType"] == "label"
    data = tempo["jsonData"]
    assert data["tracesToLogsV2"]["datasourceUid"] == uids["loki"]
    assert (
        data["tracesToMetrics"]["datasourceUid"] == data["serviceMap"]["datasourceUid"] == uids["prometheus"]
    )
    assert datasources([LOKI])[0]["jsonData"] == {}
    assert set(datasources([TEMPO])[0]["jsonData"]) == {"nodeGraph"}


def test_dollars_reach_grafana() -> None:
    file = datasource_file(datasources([LOKI, TEMPO]))
    assert (file["apiVersion"], file["prune"]) == (1, True)
    assert file["datasources"][0]["jsonData"]["derivedFields"][0]["url"] == "$${__value.raw}"
    own = {"name": "x", "type": "mysql", "secureJsonData": {"password": "pa$$w$rd"}}
    assert datasource_file([own])["datasources"][0]["secureJsonData"] == {"password": "pa$$$$w$$rd"}


def test_the_site_changes_and_adds() -> None:
    own = {"name": "Shop", "type": "mysql", "isDefault": True}
    changes = {"prometheus": {"jsonData": {"timeInterval": "1m"}, "basicAuth": True}}
    first, _, shop = datasources(PROMETHEUS, changes, [own])
    assert first["jsonData"]["timeInterval"] == "1m"
    assert first["jsonData"]["httpMethod"] == "POST"
    assert (first["basicAuth"], first["isDefault"]) == (True, False)
    assert shop == {"access": "proxy", "editable": False, **own}


@pytest.mark.parametrize(
    ("extra", "changes", "words"),
    [
        ([{"name": "x"}], {}, "each needs a type"),
        ([{"name": "Alertmanager", "type": "y"}], {}, "two datasources have the name Alertmanager"),
        ([{"name": "x", "type": "y", "uid": "alertmanager-m1"}], {}, "two datasources have the uid"),
        ([{"name": "x", "type": "y", "uid": "a b"}], {}, "the uid of x must be"),
        (
            [{"name": n, "type": "y", "isDefault": True} for n in "ab"],
            {},
            "more than one datasource is the default",
        ),
        ([], {"promtheus": {}}, "promtheus is none of prometheus, alertmanager, loki, tempo"),
    ],
)
def test_mistakes(extra: list[dict[str, Any]], changes: dict[str, Any], words: str) -> None:
    with pytest.raises(GrafanaError, match=words):
        datasources([ALERTMANAGER], changes, extra)


def test_uids_fit_and_differ() -> None:
    assert uid("prometheus", "m1") == "prometheus-m1"
    names = ["a.example.com", "a-example.com", f"{'x' * 60}1", f"{'x' * 60}2"]
    uids = {uid("prometheus", name) for name in names}
    assert len(uids) == len(names)
    assert max(map(len, uids)) <= 40
