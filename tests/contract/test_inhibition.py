"""What the real Alertmanager mutes, with the configuration that the role writes for a host.

Nearly all is read from its API, so that one process serves all tests; each has hosts of its own. The last one
sees it from the other end: what Alertmanager posts.
"""

from __future__ import annotations

import itertools
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from tests.common.services import call, wait_until
from tests.contract.alertmanager import TOKEN, Alertmanager
from tests.contract.conftest import Start
from tests.docs.test_how_tos import SECRETS, render
from tests.faults.provider import Provider
from tests.faults.stack import Stack
from tests.rules.test_alerts import COMPONENTS, alerts, load, rules_file

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
Labels = dict[str, str]

_VARIABLES: dict[str, Any] = yaml.safe_load((ROOT / "roles/alertmanager/vars/main.yml").read_text())
PAIRS: list[dict[str, Any]] = _VARIABLES["alertmanager_inhibit_pairs"]
THING: list[str] = _VARIABLES["alertmanager_inhibit_equal"]
ORDER = ["critical", "warning", "info"]
SEVERITIES: dict[str, str] = {
    alert: rule["labels"]["severity"] for component in COMPONENTS for alert, rule in alerts(component).items()
}
_hosts = (f"host{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the configuration as the role writes it, quick and with the token in place of a file."""
    inventory = tmp_path_factory.mktemp("render") / "inventory"
    shutil.copytree(ROOT / "inventory/example", inventory)
    (inventory / "group_vars/all/vault.yml").write_text(yaml.safe_dump(SECRETS))
    timing = {"group_wait": "200ms", "group_interval": "1s", "repeat_interval": "1h"}
    (inventory / "group_vars/alertmanager.yml").write_text(
        yaml.safe_dump({"alertmanager_timings": dict.fromkeys(("critical", "warning", "info"), timing)})
    )
    config = yaml.safe_load((render("alertmanager", inventory) / "alertmanager.yml").read_text())
    for receiver in config["receivers"]:
        for hook in receiver.get("webhook_configs", []):
            hook["http_config"] = {"authorization": {"credentials": TOKEN}}
    return cast("dict[str, Any]", config)


def _to(config: dict[str, Any], url: str) -> dict[str, Any]:
    """Return the configuration with its receivers at a URL."""
    text = yaml.safe_dump(config)
    return cast(
        "dict[str, Any]", yaml.safe_load(re.sub(r"url: http://\S+/alerts", f"url: {url}/alerts", text))
    )


@pytest.fixture(scope="module")
def am(rendered: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    """Run one Alertmanager for all tests that only ask its API."""
    nowhere = "http://127.0.0.1:9"
    running = Alertmanager(tmp_path_factory.mktemp("am") / "am", nowhere, config=_to(rendered, nowhere))
    running.start()
    yield running
    running.kill()


@pytest.fixture
def host() -> str:
    """Return the name of a host that no other test uses."""
    return next(_hosts)


def _muted(am: Alertmanager, **labels: str) -> bool:
    """Whether the one alert with exactly these labels is muted by another."""
    kept = {name: value for name, value in labels.items() if value}  # it drops empty ones
    found = [each for each in call("GET", f"{am.url}/api/v2/alerts").json if each["labels"] == kept]
    assert len(found) == 1, f"{labels}: {len(found)} alerts"
    return bool(found[0]["status"]["inhibitedBy"])


def _alert(name: str, severity: str = "warning", /, **labels: str) -> Labels:
    return {"alertname": name, "severity": severity, **labels}


def _send(am: Alertmanager, *alerts: Labels, ended: bool = False) -> None:
    for alert in alerts:
        am.fire(alert["alertname"], ended=ended, **{k: v for k, v in alert.items() if k != "alertname"})


def _judge(am: Alertmanager, source: Labels, *, muted: list[Labels], heard: list[Labels]) -> None:
    """Check what the source mutes: all of that, nothing of this, and nothing any more once it has ended."""
    _send(am, *muted, *heard)
    assert not any(_muted(am, **alert) for alert in [*muted, *heard]), "muted without the source"
    _send(am, source)
    wait_until(lambda: all(_muted(am, **alert) for alert in muted), what=f"{source} mutes {muted}")
    _wait_until_seen(am)
    assert [alert for alert in heard if _muted(am, **alert)] == []
    _send(am, source, ended=True)
    wait_until(lambda: not any(_muted(am, **alert) for alert in muted), what="the end of the source un-mutes")
    _send(am, *muted, *heard, ended=True)


def _wait_until_seen(am: Alertmanager) -> None:
    """Wait until what was sent so far mutes what it is to mute: a pair that is sent last comes last."""
    canary = {"host": next(_hosts)}
    _send(am, _alert("NodeDown", "critical", **canary), _alert("Canary", **canary))
    wait_until(lambda: _muted(am, **_alert("Canary", **canary)), what="the canary is muted")


# Host down


def test_host_down_mutes_what_else_the_host_has(am: Alertmanager, host: str) -> None:
    _judge(
        am,
        _alert("NodeDown", "critical", host=host, instance=f"{host}:9100", job="node_exporter"),
        muted=[
            _alert("LowDiskSpace", host=host, instance=f"{host}:9100", mountpoint="/"),
            _alert("TargetUnreachable", host=host, instance=f"{host}:9187", job="db"),
            _alert("ShopDown", "critical", host=host, instance=f"{host}:443"),
            _alert("HighNetworkTraffic", "info", host=host),
            _alert("PrometheusTSDBReloadsFailing", host=host),
            {"alertname": "WithoutSeverity", "host": host, "severity": ""},
        ],
        heard=[
            _alert("LowDiskSpace", host=f"{host}-other"),
            _alert("ShopDown", "critical", host=f"{host}0"),
            _alert("NodeDown", "critical", host=f"{host}-third", instance=f"{host}-third:9100"),
            _alert("TargetDown", job="node_exporter"),
        ],
    )


def test_host_down_mutes_no_cry_of_the_alert_path(am: Alertmanager, host: str) -> None:
    """node_exporter may be down alone, on a host whose receiver tells that it loses its store."""
    _judge(
        am,
        _alert("NodeDown", "critical", host=host),
        muted=[_alert("PrometheusConfigReloadFailed", host=host)],
        heard=[
            _alert(name, "critical", host=host)
            for name, severity in SEVERITIES.items()
            if severity == "critical" and re.match("AlertReceiver|Alertmanager|Prometheus", name)
        ],
    )


def test_without_a_host_nothing_is_muted(am: Alertmanager, host: str) -> None:
    """`equal` alone would hold, as the label is missing on both sides."""
    _judge(
        am,
        _alert("NodeDown", "critical", test=host),
        muted=[],
        heard=[_alert("LowDiskSpace", test=host), _alert("TargetDown", job=host)],
    )
    _judge(
        am,
        _alert("Same", "critical", test=host),
        muted=[],
        heard=[_alert("Same", test=host), _alert("Same", "info", test=f"{host}-other")],
    )


# Severities


@pytest.mark.parametrize(("severity", "other"), list(itertools.permutations(ORDER, 2)))
def test_a_severity_mutes_the_lower_ones_of_the_same_thing(
    am: Alertmanager, host: str, severity: str, other: str
) -> None:
    thing = {"host": host, "instance": f"{host}:9100", "device": "sda", "mountpoint": "/"}
    same = [_alert("Full", other, **thing)]
    lower = ORDER.index(other) > ORDER.index(severity)
    _judge(
        am,
        _alert("Full", severity, **thing),
        muted=same if lower else [],
        heard=[
            *([] if lower else same),
            _alert("Full", other, **thing | {"host": f"{host}-other"}),
            _alert("Full", other, **thing | {"device": "sdb", "mountpoint": "/data"}),
            _alert("Hot", other, **thing),
        ],
    )


@pytest.mark.parametrize("label", [label for label in THING if label not in {"alertname", "host"}])
def test_another_thing_of_the_host_is_not_muted(am: Alertmanager, host: str, label: str) -> None:
    _judge(
        am,
        _alert("Broken", "critical", host=host, **{label: "one"}),
        muted=[_alert("Broken", host=host, **{label: "one"})],
        heard=[_alert("Broken", host=host, **{label: "two"}), _alert("Broken", host=host)],
    )


# Alerts of different names


def _shown() -> dict[str, Labels]:
    """Return each alert with labels that it really has: those with which it fires in its unit test."""
    shown = {}
    for component in COMPONENTS:
        for test in load(rules_file(component).with_name("rules_test.yml"))["tests"]:
            for case in test["alert_rule_test"]:
                for alert in case.get("exp_alerts") or []:
                    shown[case["alertname"]] = {"alertname": case["alertname"], **alert["exp_labels"]}
    return shown


SHOWN = _shown()
# Generated from the inventory, so no role has their rules; the labels are those that the generator gives.
SHOWN |= {
    name: _alert(name, severity, service="shop", slo="checkout")
    for name, severity in (("ErrorBudgetBurnFast", "critical"), ("ErrorBudgetBurnSlow", "warning"))
    if name not in SHOWN
}


def _named(pattern: str) -> list[str]:
    return [name for name in SHOWN if re.fullmatch(pattern, name)]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair["source"])
def test_pair_mutes_the_same_thing_only(am: Alertmanager, host: str, pair: dict[str, Any]) -> None:
    for source in _named(pair["source"]):
        for target in _named(pair["target"]):
            assert set(pair["equal"]) <= SHOWN[source].keys() & SHOWN[target].keys(), (
                f"{source} and {target} do not both have {pair['equal']}"
            )
            same = dict.fromkeys(pair["equal"], f"{host}-{source}-{target}")
            _judge(
                am,
                SHOWN[source] | same,
                muted=[SHOWN[target] | same],
                heard=[SHOWN[target] | same | {label: "another"} for label in pair["equal"]],
            )


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair["source"])
def test_pair_without_its_labels_mutes_nothing(am: Alertmanager, host: str, pair: dict[str, Any]) -> None:
    def bare(pattern: str) -> Labels:
        name = _named(pattern)[0]
        return _alert(name, SHOWN[name]["severity"], test=host)

    _judge(am, bare(pair["source"]), muted=[], heard=[bare(pair["target"])])


def test_pairs_name_alerts_that_exist() -> None:
    for pair in PAIRS:
        for pattern in (pair["source"], pair["target"]):
            for name in _alternatives(pattern):
                assert name in SHOWN, f"there is no alert {name}"


def test_pairs_mute_nothing_severer_than_their_source() -> None:
    for pair in PAIRS:
        for source, target in itertools.product(_named(pair["source"]), _named(pair["target"])):
            assert ORDER.index(SHOWN[source]["severity"]) <= ORDER.index(SHOWN[target]["severity"])
            assert source != target


def _alternatives(pattern: str) -> list[str]:
    """``A(B|C)D|E`` gives ABD, ACD and E."""
    names = []
    for part in re.findall(r"(?:[^|(]|\([^)]*\))+", pattern):
        before, choice, after = re.fullmatch(r"(\w*)(?:\(([\w|]+)\))?(\w*)", part).groups()  # type: ignore[union-attr]
        names += [before + each + after for each in (choice or "").split("|")]
    return names


# What is posted


def test_what_is_muted_is_not_told_until_it_is_not_muted(
    start: Start, stack: Stack, provider: Provider, rendered: dict[str, Any], host: str
) -> None:
    am = start(config=_to(rendered, stack.url))
    down, disk = _alert("NodeDown", "critical", host=host), _alert("LowDiskSpace", host=host)
    elsewhere = _alert("HighLoadAverage", host=f"{host}-other")
    _send(am, down)
    wait_until(lambda: ("NodeDown", "firing") in provider.known)
    _send(am, disk, elsewhere)
    wait_until(lambda: ("HighLoadAverage", "firing") in provider.known)
    time.sleep(2)  # two of its intervals
    assert ("LowDiskSpace", "firing") not in provider.known
    _send(am, down, ended=True)
    wait_until(lambda: provider.known >= {("NodeDown", "resolved"), ("LowDiskSpace", "firing")})
    stack.wait_delivered()
    assert set(provider.told().values()) == {1}
