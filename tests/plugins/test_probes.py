"""Probes: what the inventory says becomes targets, and a mistake in it is named."""

from __future__ import annotations

from textwrap import indent
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.fleetwatch.monitoring.plugins.action.verify_host import plan_of
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.fleet import SettingError
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.inventory_check import InventoryCheck
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.probes import host_of, seconds

from tests.plugins.conftest import INVENTORY, write

if TYPE_CHECKING:
    from pathlib import Path

    from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.fleet import Fleet

    from tests.plugins.conftest import MakeFleet

PROBER = {
    "prober/defaults/main.yml": """
        prober_port: 9115
        prober_probes: []
        prober_probe_hosts: []
        prober_modules:
          web: {prober: http}
          connect: {prober: tcp}
          ping: {prober: icmp}
          name: {prober: dns}
        prober_extra_modules: {}
        probe_probes: []
        """,
    "prober/meta/argument_specs.yml": """
        argument_specs:
          main:
            options:
              prober_port: {type: int}
              prober_probes: {type: list, elements: dict}
              prober_probe_hosts: {type: list, elements: str}
              prober_modules: {type: dict}
              prober_extra_modules: {type: dict}
              probe_probes: {type: list, elements: dict}
              probe_scrape: {type: bool}
        """,
    "prober/monitoring/scrape.yml": """
        - job: prober
        - {job: probe, prober: prober, metrics_path: /probe}
        """,
}
PROBERS = INVENTORY + "prober: {hosts: {monitor: }}\n"
HEALTH = "probe_probes: [{name: health, module: web, target: 'http://{{ inventory_hostname }}/'}]"

PROBE = "{name: a, module: web, target: '%s'}"


@pytest.fixture(autouse=True)
def _prober(roles: Path) -> None:
    write(roles, PROBER)


def groups(fleet: Fleet) -> list[dict[str, Any]]:
    """Return the file_sd groups of the job of the probes."""
    return [dict(group) for job in fleet.scrape_jobs() if job.name == "probe" for group in job.targets]


def probes(fleet: Fleet) -> list[tuple[str, str, str]]:
    """Return host, name and target of each probe."""
    return [
        (labels["host"], labels["name"], labels["target"])
        for labels in (group["labels"] for group in groups(fleet))
    ]


def problems(fleet: Fleet) -> list[str]:
    return InventoryCheck(fleet).run()[0]


def test_a_probe_is_a_target_of_its_prober(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(
        PROBERS,
        host_vars_web1="probe_probes: [{name: a, module: web, target: https://web1/, labels: {team: 1}}]",
    )
    assert groups(fleet) == [
        {
            "targets": ["10.0.0.1:9115"],
            "labels": {
                "__param_module": "web",
                "__param_target": "https://web1/",
                "host": "web1",
                "module": "web",
                "name": "a",
                "prober": "monitor",
                "target": "https://web1/",
                "team": "1",
            },
        }
    ]
    assert problems(fleet) == []


def test_no_prober_no_probes(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(group_vars_all=HEALTH)
    assert [job.name for job in fleet.scrape_jobs()] == ["node_exporter", "prometheus"]
    found, warnings = InventoryCheck(fleet).run()
    assert found == []
    assert warnings == ["probe_probes has no effect, since the group prober has no hosts"]


def test_each_prober_has_every_probe(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(
        INVENTORY + "prober: {hosts: {monitor: , web2: }}\n",
        group_vars_all=HEALTH,
        host_vars_web2="prober_scheme: https",
    )
    found = [(g["targets"], g["labels"]["host"], g["labels"].get("__scheme__")) for g in groups(fleet)]
    assert found == [
        (["10.0.0.1:9115"], "monitor", None),
        (["10.0.0.3:9115"], "monitor", "https"),
        (["10.0.0.1:9115"], "web1", None),
        (["10.0.0.3:9115"], "web1", "https"),
        (["10.0.0.1:9115"], "web2", None),
        (["10.0.0.3:9115"], "web2", "https"),
    ]


def test_templates_are_rendered_for_the_host_that_is_probed(make_fleet: MakeFleet) -> None:
    assert probes(make_fleet(PROBERS, group_vars_all=HEALTH)) == [
        (host, "health", f"http://{host}/") for host in ("monitor", "web1", "web2")
    ]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("http://{{ name }}:80/{{name}}", "http://web:80/web"),
        ("http://{{ number }}/", "http://7/"),
        ("http://{{ number + 1 }}/", "http://8/"),
        ("http://{{ nested }}/", "http://webx/"),
        ("{{ whole }}", "http://web/"),
        ("{% if number == 7 %}http://a/{% endif %}", "http://a/"),
    ],
)
def test_templates_of_every_kind_are_rendered(make_fleet: MakeFleet, target: str, expected: str) -> None:
    variables = "{name: web, number: 7, nested: '{{ name }}x', whole: 'http://{{ name }}/'"
    fleet = make_fleet(PROBERS, host_vars_web1=f"{variables}, probe_probes: [{PROBE % target}]}}")
    assert probes(fleet) == [("web1", "a", expected)]


def test_a_target_with_something_undefined_is_named(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(PROBERS, host_vars_web1=f"probe_probes: [{PROBE % 'http://{{ nothing }}/'}]")
    (problem,) = problems(fleet)
    assert problem.startswith("probe_probes refers to something that is not defined: 'nothing' is undefined")


def test_every_host_of_the_fleet_can_be_probed(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(
        PROBERS + "others: {hosts: {printer: {ansible_host: 10.0.0.9}}}\n",
        group_vars_prober="prober_probe_hosts: [ping, connect]",
        host_vars_web1="ansible_port: 2222",
        host_vars_web2="probe_scrape: false",
        host_vars_printer="probe_probes: [{name: up, module: ping}]",
    )
    assert probes(fleet) == [
        ("monitor", "connect", "10.0.0.1:22"),
        ("monitor", "ping", "10.0.0.1"),
        ("printer", "up", "10.0.0.9"),
        ("web1", "connect", "10.0.0.2:2222"),
        ("web1", "ping", "10.0.0.2"),
    ]


@pytest.mark.parametrize(
    ("module", "target"),
    [("web", "http://10.0.0.2:9100/metrics"), ("connect", "10.0.0.2:9100"), ("ping", "10.0.0.2")],
)
def test_the_target_is_made_of_an_endpoint(make_fleet: MakeFleet, module: str, target: str) -> None:
    path = "path: /metrics" if module == "web" else "path: ''"
    entry = f"[{{name: x, module: {module}, endpoint: node_exporter, {path}}}]"
    fleet = make_fleet(PROBERS, host_vars_web1=f"probe_probes: {entry}")
    assert probes(fleet) == [("web1", "x", target)]


def test_an_endpoint_is_probed_on_all_its_hosts(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(
        PROBERS,
        group_vars_prober="prober_probes: [{name: metrics, module: web, endpoint: node_exporter}]",
    )
    assert probes(fleet) == [
        ("monitor", "metrics", "http://10.0.0.1:9100/"),
        ("web1", "metrics", "http://10.0.0.2:9100/"),
        ("web2", "metrics", "http://10.0.0.3:9100/"),
    ]


def test_a_target_outside_of_the_fleet_has_its_own_name_as_host(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(
        PROBERS,
        group_vars_prober="""
            prober_probes:
              - {name: shop, module: web, target: "https://www.example.org/shop"}
              - {name: node, module: web, target: "http://web1:9100/"}
            """,
    )
    assert probes(fleet) == [
        ("web1", "node", "http://web1:9100/"),
        ("www.example.org", "shop", "https://www.example.org/shop"),
    ]


def test_what_a_host_says_wins(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(
        PROBERS,
        group_vars_prober="""
            prober_probe_hosts: [connect]
            prober_probes: [{name: connect, module: connect, endpoint: node_exporter}]
            """,
        host_vars_web1="probe_probes: [{name: connect, module: connect, target: 'web1:443'}]",
    )
    assert probes(fleet) == [
        ("monitor", "connect", "10.0.0.1:9100"),
        ("web1", "connect", "web1:443"),
        ("web2", "connect", "10.0.0.3:9100"),
    ]


def test_probed_hosts_have_the_labels_of_their_groups(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(PROBERS + "production: {hosts: {web1: }}\n", host_vars_web1=HEALTH)
    (job,) = [job for job in fleet.scrape_jobs({"env": ["production"]}) if job.name == "probe"]
    assert [target["labels"]["env"] for target in job.targets] == ["production"]


@pytest.mark.parametrize(
    ("interval", "scrape_timeout", "expected"),
    [("5m", "10s", "10s"), ("5s", "10s", "5s"), ("15s", "30s", "15s"), ("1m30s", "2m", "1m30s")],
)
def test_no_probe_may_take_longer_than_its_interval(
    make_fleet: MakeFleet, interval: str, scrape_timeout: str, expected: str
) -> None:
    fleet = make_fleet(
        PROBERS,
        host_vars_web1=f"probe_probes: [{{name: a, module: ping, interval: {interval}}}]",
        group_vars_prometheus=f"prometheus_scrape_timeout: {scrape_timeout}",
    )
    (group,) = groups(fleet)
    labels = group["labels"]
    assert (labels["__scrape_interval__"], labels["__scrape_timeout__"]) == (interval, expected)


def test_verify_looks_at_each_probe(make_fleet: MakeFleet, roles: Path) -> None:
    write(
        roles, {"prometheus/monitoring/verify.yml": "- {unit: p.service, job: prometheus, api: prometheus}\n"}
    )
    write(roles, {"alertmanager/defaults/main.yml": "alertmanager_port: 9093\n"})
    fleet = make_fleet(
        PROBERS,
        host_vars_web1="probe_probes: [{name: a, module: ping}, {name: b, module: connect}]",
    )
    plan = plan_of(fleet, "monitor", dict)
    assert plan["prometheus"]["targets"]["probe"] == [
        ("10.0.0.1:9115 (probe a)", "web1"),
        ("10.0.0.1:9115 (probe b)", "web1"),
    ]


WRONG = [
    (
        "[{name: a, module: webb, target: 'http://a/'}]",
        "not in prober_modules or prober_extra_modules; did you mean web?",
    ),
    ("[{name: a, module: xy, target: 'http://a/'}]", "there are connect, name, ping, web"),
    ("[{name: a, target: 'http://a/'}]", "has the module '' in the probe 'a'"),
    ("[{module: ping}]", "has a probe without a name"),
    ("[{name: a, module: ping}, {name: a, module: connect}]", "has two probes with the name 'a'"),
    (
        "[{name: a, modul: ping}]",
        "has the key 'modul' in the probe 'a', which no probe has; did you mean module?",
    ),
    ("[{name: a, module: connect, target: 22}]", "a value of target in the probe 'a' that is not text"),
    ("[{name: a, module: web}]", "has neither target nor endpoint in the probe 'a'"),
    ("[{name: a, module: web, target: 'a.org'}]", "a URL with http:// or https:// is needed"),
    ("[{name: a, module: connect, target: a}]", "host:port is needed"),
    ("[{name: a, module: ping, target: 'http://a'}]", "a host name or address is needed"),
    ("[{name: a, module: name, target: 'a b'}]", "one without blanks is needed"),
    (
        "[{name: a, module: web, target: 'http://a', endpoint: shop}]",
        "has target and endpoint in the probe 'a'",
    ),
    ("[{name: a, module: web, target: 'http://a', path: /b}]", "has a path in the probe 'a'"),
    ("[{name: a, module: web, endpoint: shop, path: b}]", "has a path in the probe 'a'"),
    ("[{name: a, module: web, endpoint: shoop}]", "there is no component or job 'shoop'; did you mean shop?"),
    ("[{name: a, module: web, endpoint: shop}]", "but the host is not in the group shop"),
    ("[{name: a, module: ping, interval: often}]", "an interval that is no duration such as 30s or 5m"),
    ("[{name: a, module: ping, interval: 0s}]", "an interval that is no duration such as 30s or 5m"),
    (
        "[{name: a, module: ping, labels: {host: b}}]",
        "has the label host in the probe 'a', which every probe has",
    ),
    ("[{name: a, module: ping, labels: {a-b: b}}]", "has the label 'a-b' in the probe 'a'"),
    ("[{name: a, module: ping, labels: [b]}]", "has labels in the probe 'a' that are no dictionary"),
    ("[{name: a, module: ping, labels: {b: [c]}}]", "a value of the label b in the probe 'a'"),
    ("{name: a}", "must be a list of probes"),
    ("[a]", "must be a list of probes"),
]


@pytest.mark.parametrize(("value", "what"), WRONG)
def test_a_wrong_probe_is_named(make_fleet: MakeFleet, value: str, what: str) -> None:
    fleet = make_fleet(PROBERS, host_vars_web1=f"probe_probes: {value}\n")
    (problem,) = problems(fleet)
    assert problem.startswith("probe_probes ")
    assert what in problem
    assert "(host web1, " in problem
    assert "host_vars/web1.yml:1)" in problem
    with pytest.raises(SettingError, match=r"^probe_probes of host web1 (has|must)"):
        fleet.scrape_jobs()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            "prober_probes: [{name: a, module: ping}]",
            "prober_probes has neither target nor endpoint in the probe 'a'",
        ),
        ("prober_probes: [{name: a, module: nope, target: b}]", "prober_probes has the module 'nope'"),
        (
            "prober_probes: [{name: a, module: web, endpoint: nope}]",
            "prober_probes has the probe 'a', but there is no",
        ),
        (
            "prober_probe_hosts: [web]",
            "prober_probe_hosts must be a list of modules that need no more than a host",
        ),
        ("prober_probe_hosts: [pong]", "; there are connect, ping (host monitor"),
        (
            "prober_modules: {a: {prober: htp}}",
            "prober_modules has the module a with a prober that is none of dns",
        ),
        (
            "prober_extra_modules: {a: b}",
            "prober_extra_modules must map the name of each module to its settings",
        ),
    ],
)
def test_a_wrong_setting_of_the_prober_is_named(make_fleet: MakeFleet, settings: str, problem: str) -> None:
    (found,) = problems(make_fleet(PROBERS, host_vars_monitor=settings))
    assert problem in found
    assert "host_vars/monitor.yml:1)" in found


def test_probers_have_the_same_modules(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(
        INVENTORY + "prober: {hosts: {monitor: , web1: }}\n",
        host_vars_web1="prober_extra_modules: {own: {prober: http}}",
    )
    (problem,) = problems(fleet)
    assert problem.startswith("prober_extra_modules differs between the hosts of the group prober")


def test_a_service_with_instances_has_no_endpoint_to_probe(make_fleet: MakeFleet, roles: Path) -> None:
    write(
        roles,
        {
            "mill/defaults/main.yml": "mill_port: 8100\nmill_wheels: 2\n",
            "mill/monitoring/scrape.yml": "- {job: mill, instances: mill_wheels}\n",
        },
    )
    fleet = make_fleet(
        PROBERS + "mill: {hosts: {web1: }}\n",
        host_vars_web1="probe_probes: [{name: a, module: web, endpoint: mill}]",
    )
    (problem,) = problems(fleet)
    assert "has the endpoint mill in the probe 'a', of which a host has several" in problem


def test_a_port_of_the_probes_is_no_setting(make_fleet: MakeFleet) -> None:
    (problem,) = problems(make_fleet(PROBERS, host_vars_web1="probe_port: 1"))
    assert problem.startswith("probe_port is not a setting")


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("https://www.example.org/a?b", "www.example.org"),
        ("http://[2001:db8::1]:8080/", "2001:db8::1"),
        ("db.example.org:5432", "db.example.org"),
        ("[2001:db8::1]:22", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", "10.0.0.1"),
    ],
)
def test_host_of_a_target(target: str, host: str) -> None:
    assert host_of(target) == host


@pytest.mark.parametrize(
    ("duration", "value"),
    [("30s", 30), ("1h30m", 5400), ("500ms", 0.5), ("", 0), ("5", 0), ("m5", 0), ("0s", 0)],
)
def test_seconds_of_a_duration(duration: str, value: float) -> None:
    assert seconds(duration) == value


@pytest.mark.slow
def test_ten_thousand_hosts_are_computed_once(make_fleet: MakeFleet) -> None:
    """Each host is seen once by the code, and a list that hosts share is read once."""
    hosts = indent("".join(f"host{number}:\n" for number in range(10_000)), "    ")
    fleet = make_fleet(
        f"node_exporter:\n  hosts:\n{hosts}prober: {{hosts: {{host0: , host1: }}}}\n",
        group_vars_all="probe_probes: [{name: ssh, module: connect}]",
        group_vars_prober="prober_probe_hosts: [ping]",
    )
    found = groups(fleet)
    assert len(found) == 10_000 * 2 * 2
    (probing,) = fleet.probings()
    for host in ("host0", "host9999"):
        assert probing.probes_of(fleet.variables(host))["ssh"].target == f"{host}:22"
    # The defaults and the list of all hosts.
    assert len(probing._static) <= 2
