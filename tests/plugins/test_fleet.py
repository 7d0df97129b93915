from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from ansible.errors import AnsibleError
from ansible.template import Templar, trust_as_template
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.fleet import (
    Endpoint,
    Fleet,
    FleetError,
    HostVariables,
    host_labels,
)

from tests.plugins.conftest import write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugins.conftest import MakeFleet


# Components


def test_components_are_the_roles_with_a_monitoring_folder(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    assert list(fleet.components) == ["node_exporter", "prometheus", "shop"]
    assert list(fleet.jobs) == ["node_exporter", "prometheus", "shop", "shop_worker"]
    assert fleet.jobs["shop"].group == "shop"
    assert fleet.jobs["shop_worker"].group == "shop_workers"
    assert fleet.components["prometheus"].rules is None


def test_a_component_needs_no_jobs(make_fleet: MakeFleet, roles: Path) -> None:
    write(roles, {"silent/monitoring/rules.yml": "groups: []"})
    assert make_fleet().components["silent"].jobs == ()


def test_the_first_of_two_roles_counts(make_fleet: MakeFleet, tmp_path: Path, roles: Path) -> None:
    write(tmp_path / "site", {"prometheus/monitoring/scrape.yml": "- job: own\n"})
    fleet = make_fleet()
    both = type(fleet)(fleet.hostvars, fleet.groups, fleet._loader, [tmp_path / "site", roles])
    assert "own" in both.jobs
    assert "prometheus" not in both.jobs


@pytest.mark.parametrize(
    ("scrape", "message"),
    [
        ("job: x", "must be a list of jobs"),
        ("- node_exporter", "must be a list of jobs"),
        ("- group: x", "needs a `job`"),
        ("- job: node-exporter", "needs a `job`"),
        ("- {job: x, group: [a]}", "must be the name of a group"),
        ("- {job: x, instances: 3}", "`instances` of the job x must be the name of the variable"),
        ("- job: shop", "the job shop exists twice"),
    ],
)
def test_broken_scrape_file_is_named(make_fleet: MakeFleet, roles: Path, scrape: str, message: str) -> None:
    write(roles, {"broken/monitoring/scrape.yml": scrape})
    with pytest.raises(FleetError, match=message):
        _ = make_fleet().jobs


# Endpoints


def test_endpoint_with_defaults(make_fleet: MakeFleet) -> None:
    assert [endpoint.as_dict() for endpoint in make_fleet().endpoints("prometheus")] == [
        {
            "host": "monitor",
            "address": "10.0.0.1",
            "port": 9090,
            "scheme": "http",
            "path": "/metrics",
            "netloc": "10.0.0.1:9090",
            "url": "http://10.0.0.1:9090",
        }
    ]


def test_endpoints_are_in_inventory_order(make_fleet: MakeFleet) -> None:
    assert [endpoint.host for endpoint in make_fleet().endpoints("node_exporter")] == [
        "monitor",
        "web2",
        "web1",
    ]


def test_every_setting_can_be_overridden_per_host(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(
        host_vars_web1="""
            node_exporter_port: 1234
            node_exporter_scheme: https
            node_exporter_metrics_path: /m
            fleetwatch_address: web1.example.org
            """
    )
    endpoint = {endpoint.host: endpoint for endpoint in fleet.endpoints("node_exporter")}["web1"]
    assert (endpoint.url, endpoint.path) == ("https://web1.example.org:1234", "/m")


def test_host_vars_win_over_group_vars_win_over_defaults(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(
        group_vars_all="node_exporter_port: 1",
        group_vars_node_exporter="node_exporter_port: 2",
        host_vars_web1="node_exporter_port: 3",
    )
    assert {e.host: e.port for e in fleet.endpoints("node_exporter")} == {"monitor": 2, "web1": 3, "web2": 2}


def test_one_variable_turns_every_url_to_https(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(group_vars_all="fleetwatch_scheme: https")
    urls = [e.url for job in ("prometheus", "node_exporter") for e in fleet.endpoints(job)]
    assert len(urls) == 4
    assert all(url.startswith("https://") for url in urls)


def test_templates_are_rendered_for_their_own_host(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(
        group_vars_all="""
            offset: 7
            node_exporter_port: "{{ 9000 + offset }}"
            fleetwatch_address: "{{ inventory_hostname }}.{{ hostvars['monitor'].ansible_host }}"
            """,
        host_vars_web1="offset: 8",
    )
    assert {e.host: e.netloc for e in fleet.endpoints("node_exporter")} == {
        "monitor": "monitor.10.0.0.1:9007",
        "web2": "web2.10.0.0.1:9007",
        "web1": "web1.10.0.0.1:9008",
    }


def test_job_of_a_component_has_settings_and_a_group_of_its_own(make_fleet: MakeFleet) -> None:
    (endpoint,) = make_fleet("shop_workers: {hosts: {w: {}}}").endpoints("shop_worker")
    assert (endpoint.url, endpoint.path) == ("http://w:8001", "/internal")


def test_role_without_jobs_has_endpoints_too(make_fleet: MakeFleet) -> None:
    assert [e.url for e in make_fleet("mailbox: {hosts: {m: {}}}").endpoints("mailbox")] == ["http://m:8025"]


def test_empty_group_has_no_endpoints(make_fleet: MakeFleet) -> None:
    assert make_fleet().endpoints("shop") == []


def test_unknown_component_gets_a_suggestion(make_fleet: MakeFleet) -> None:
    with pytest.raises(FleetError, match="no component or job 'prometeus'; did you mean prometheus"):
        make_fleet().endpoints("prometeus")


@pytest.mark.parametrize(
    ("address", "netloc"),
    [
        ("fd00::1", "[fd00::1]:9090"),
        ("[fd00::1]", "[fd00::1]:9090"),
        ("FD00:0:0::0001", "[fd00::1]:9090"),
        ("fe80::1%eth0", "[fe80::1%eth0]:9090"),
        ("10.0.0.9", "10.0.0.9:9090"),
        ("db_1.internal.", "db_1.internal.:9090"),
    ],
)
def test_addresses(make_fleet: MakeFleet, address: str, netloc: str) -> None:
    fleet = make_fleet(host_vars_monitor=f"fleetwatch_address: '{address}'")
    assert [e.netloc for e in fleet.endpoints("prometheus")] == [netloc]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("fleetwatch_address: 10.0.0.1:9090", "a port belongs in the variable <job>_port"),
        ("fleetwatch_address: ''", "not a host name"),
        ("fleetwatch_address: http://x", "not a host name"),
        ("fleetwatch_address: x/y", "not a host name"),
        (
            "fleetwatch_address: '{{ nowhere }}'",
            "fleetwatch_address of host monitor cannot be rendered: 'nowhere'",
        ),
        ("prometheus_port: 0", "prometheus_port of host monitor must be a port number"),
        ("prometheus_port: 65536", "must be a port number"),
        ("prometheus_port: true", "must be a port number"),
        ("prometheus_port: 90.5", "must be a port number"),
        ("prometheus_port: http", "must be a port number"),
        ("prometheus_port:", "is not set"),
        ("prometheus_scheme: ftp", "prometheus_scheme of host monitor must be http or https"),
        ("prometheus_metrics_path: metrics", "must begin with /"),
    ],
)
def test_wrong_setting_names_variable_and_host(make_fleet: MakeFleet, setting: str, message: str) -> None:
    with pytest.raises(FleetError, match=message):
        make_fleet(host_vars_monitor=setting).endpoints("prometheus")


def test_port_may_be_a_numeric_string(make_fleet: MakeFleet) -> None:
    (endpoint,) = make_fleet(host_vars_monitor="prometheus_port: '9191'").endpoints("prometheus")
    assert endpoint.port == 9191


# Instances

MILL = {
    "mill/defaults/main.yml": "mill_port: 8100\nmill_wheels: '{{ wheels | default(2) }}'\n",
    "mill/monitoring/scrape.yml": "- {job: mill, instances: mill_wheels}\n",
}


def test_each_instance_is_an_endpoint_and_a_target(make_fleet: MakeFleet, roles: Path) -> None:
    write(roles, MILL)
    fleet = make_fleet("mill: {hosts: {b: {wheels: 3, mill_listen_address: '::'}, a: {mill_port: 80}}}")
    assert [(e.host, e.number, e.local_url) for e in fleet.endpoints("mill")] == [
        ("b", 1, "http://[::1]:8101"),
        ("b", 2, "http://[::1]:8102"),
        ("b", 3, "http://[::1]:8103"),
        ("a", 1, "http://127.0.0.1:81"),
        ("a", 2, "http://127.0.0.1:82"),
    ]
    (job,) = fleet.scrape_jobs()
    assert [(target["targets"], target["labels"]) for target in job.targets] == [
        (["a:81"], {"host": "a"}),
        (["a:82"], {"host": "a"}),
        (["b:8101"], {"host": "b"}),
        (["b:8102"], {"host": "b"}),
        (["b:8103"], {"host": "b"}),
    ]
    assert job.config == {}


def test_job_without_instances_has_no_number(make_fleet: MakeFleet) -> None:
    assert [e.number for e in make_fleet().endpoints("prometheus")] == [None]


@pytest.mark.parametrize("value", ["0", "-1", "65", "true", "1.5", "many", "[1]"])
def test_wrong_number_of_instances_is_named(make_fleet: MakeFleet, roles: Path, value: str) -> None:
    write(roles, MILL)
    fleet = make_fleet("mill: {hosts: {a: {}}}", host_vars_a=f"mill_wheels: {value}")
    message = "mill_wheels of host a must be a number of instances from 1 to 64"
    with pytest.raises(FleetError, match=message):
        fleet.scrape_jobs()


def test_instances_must_be_set_and_have_ports(make_fleet: MakeFleet, roles: Path) -> None:
    write(roles, MILL)
    with pytest.raises(FleetError, match="mill_wheels of host a is not set"):
        make_fleet("mill: {hosts: {a: {mill_wheels: }}}").endpoints("mill")
    fleet = make_fleet("mill: {hosts: {a: {mill_port: 65534}}}")
    with pytest.raises(FleetError, match="mill_port of host a must leave room for 2 instances below 65536"):
        fleet.endpoints("mill")
    assert len(make_fleet("mill: {hosts: {a: {mill_port: 65533}}}").endpoints("mill")) == 2


# Scrape jobs


def targets(fleet: object, labels: object = None) -> dict[str, list[dict[str, object]]]:
    return {job.name: list(job.targets) for job in fleet.scrape_jobs(labels)}  # type: ignore[attr-defined]


def test_targets_are_sorted_by_host_and_jobs_without_hosts_vanish(make_fleet: MakeFleet) -> None:
    assert targets(make_fleet()) == {
        "node_exporter": [
            {"targets": ["10.0.0.1:9100"], "labels": {"host": "monitor"}},
            {"targets": ["10.0.0.2:9100"], "labels": {"host": "web1"}},
            {"targets": ["10.0.0.3:9100"], "labels": {"host": "web2"}},
        ],
        "prometheus": [{"targets": ["10.0.0.1:9090"], "labels": {"host": "monitor"}}],
    }


def test_other_keys_of_the_job_are_passed_through(make_fleet: MakeFleet) -> None:
    fleet = make_fleet("shop: {hosts: {a: {}}}\nshop_workers: {hosts: {b: {}}}")
    assert {job.name: job.config for job in fleet.scrape_jobs()} == {
        "shop": {"honor_labels": True},
        "shop_worker": {"metrics_path": "/internal", "params": {"format": ["prometheus"]}},
    }


@pytest.mark.parametrize("value", ["false", "'no'", "'{{ false }}'", "0"])
def test_host_can_opt_out(make_fleet: MakeFleet, value: str) -> None:
    fleet = make_fleet(host_vars_web1=f"node_exporter_scrape: {value}")
    assert [t["labels"]["host"] for t in targets(fleet)["node_exporter"]] == ["monitor", "web2"]  # type: ignore[index]
    assert len(fleet.endpoints("node_exporter")) == 3


def test_job_vanishes_when_all_hosts_opt_out(make_fleet: MakeFleet) -> None:
    assert "prometheus" not in targets(make_fleet(group_vars_all="prometheus_scrape: false"))


def test_opt_out_must_be_boolean(make_fleet: MakeFleet) -> None:
    with pytest.raises(FleetError, match="node_exporter_scrape of host monitor must be true or false"):
        make_fleet(group_vars_all="node_exporter_scrape: perhaps").scrape_jobs()


def test_scheme_and_path_are_labels_only_where_they_differ_from_the_job(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(
        "shop_workers: {hosts: {a: {}, b: {}}}\nshop: {hosts: {c: {}}}",
        host_vars_b="shop_worker_metrics_path: /metrics\nshop_worker_scheme: https",
    )
    assert targets(fleet) == {
        "shop": [{"targets": ["c:8000"], "labels": {"host": "c"}}],
        "shop_worker": [
            {"targets": ["a:8001"], "labels": {"host": "a"}},
            {
                "targets": ["b:8001"],
                "labels": {"host": "b", "__scheme__": "https", "__metrics_path__": "/metrics"},
            },
        ],
    }


def test_labels_come_from_groups(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(
        """
        prometheus: {hosts: {monitor: {}}}
        production: {hosts: {monitor: {}}}
        europe: {children: {berlin: {hosts: {monitor: {}}}}}
        """
    )
    labels = {"env": ["production", "staging"], "region": ["europe", "asia"]}
    assert targets(fleet, labels)["prometheus"][0]["labels"] == {
        "host": "monitor",
        "env": "production",
        "region": "europe",
    }


def test_file_does_not_depend_on_the_order_of_the_inventory(make_fleet: MakeFleet) -> None:
    first = make_fleet("node_exporter: {hosts: {a: {}, b: {}}}\nx: {hosts: {a: {}}}\ny: {hosts: {a: {}}}")
    second = make_fleet("y: {hosts: {a: {}}}\nx: {hosts: {a: {}}}\nnode_exporter: {hosts: {b: {}, a: {}}}")
    one, two = first.scrape_jobs({"l": ["x"], "m": ["y"]}), second.scrape_jobs({"m": ["y"], "l": ["x"]})
    assert one[0].file_sd() == two[0].file_sd()
    assert json.loads(one[0].file_sd()) == one[0].targets


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["env"], "must map each label to a list of groups"),
        ({"env": "a"}, "env must be a list of group names"),
        ({"env": [1]}, "env must be a list of group names"),
        ({"my-env": ["a"]}, "'my-env' is not a label name"),
        ({"1st": ["a"]}, "is not a label name"),
        ({"__env": ["a"]}, "is not a label name"),
        ({1: ["a"]}, "is not a label name"),
        ({"host": ["a"]}, "every target has the label host already"),
        ({"instance": ["a"]}, "every target has the label instance already"),
        ({"job": ["a"]}, "every target has the label job already"),
        (
            {"env": ["a", "b"]},
            "host h would have two values of the label env, because it is in the groups a and b",
        ),
    ],
)
def test_wrong_target_labels(labels: object, message: str) -> None:
    with pytest.raises(FleetError, match=message):
        host_labels({"a": ["h"], "b": ["h"]}, labels)


# Rendering: the shortcut for simple templates must give what Ansible gives


@pytest.mark.parametrize(
    "template",
    [
        "{{ number }}",
        "{{number}}",
        "{{ text }}",
        "{{ empty }}",
        "{{ nothing }}",
        "{{ items }}",
        "{{ alias }}",
        "{{ alias_of_alias }}",
        "{{ missing | default(text) }}",
        "{{ number | default(text) }}",
        "{{ nothing | default(text) }}",
        "{{ broken_alias | default(text) }}",
        "{{ text | upper }}",
        "a {{ text }} b",
        "{{ untrusted }}",
        "{{ role_default }}",
        "{% if number %}yes{% endif %}",
    ],
)
def test_render_gives_what_ansible_gives(template: str) -> None:
    raw = {
        "number": 5,
        "text": "word",
        "empty": "",
        "nothing": None,
        "items": [1, trust_as_template("{{ text }}")],
        "alias": trust_as_template("{{ number }}"),
        "alias_of_alias": trust_as_template("{{ alias }}"),
        "broken_alias": trust_as_template("{{ missing }}"),
        "untrusted": "{{ number }}",
    }
    defaults = {"role_default": trust_as_template("{{ alias }}")}
    ours = HostVariables("h", raw, defaults, Templar()).render(trust_as_template(template))
    assert ours == Templar(variables=defaults | raw).template(trust_as_template(template))


@pytest.mark.parametrize("template", ["{{ missing }}", "{{ a }}", "{{ missing | default(gone) }}", "{{ 1 +"])
def test_render_fails_where_ansible_fails(template: str) -> None:
    raw = {"a": trust_as_template("{{ b }}"), "b": trust_as_template("{{ a }}")}
    with pytest.raises(AnsibleError):
        HostVariables("h", raw, {}, Templar()).render(trust_as_template(template))


def test_untrusted_text_is_not_rendered() -> None:
    assert HostVariables("h", {"x": 1}, {}, Templar()).render("{{ x }}") == "{{ x }}"


def test_roles_beside_the_playbook_add_to_those_of_the_collection(
    make_fleet: MakeFleet, tmp_path: Path
) -> None:
    write(tmp_path, {"site/roles/bakery/monitoring/scrape.yml": "- job: bakery\n"})
    made = make_fleet()
    variables = {"hostvars": made.hostvars, "groups": made.groups, "playbook_dir": str(tmp_path / "site")}
    assert {"bakery", "node_exporter", "alert_receiver"} <= Fleet.of(
        variables, made._loader
    ).components.keys()


@pytest.mark.parametrize(
    ("listen", "listener", "url"),
    [
        ("0.0.0.0", "0.0.0.0:9100", "http://127.0.0.1:9100"),  # noqa: S104 - a value, nothing listens
        ("::", "[::]:9100", "http://[::1]:9100"),
        ("10.0.0.5", "10.0.0.5:9100", "http://10.0.0.5:9100"),
        ("fd00::5", "[fd00::5]:9100", "http://[fd00::5]:9100"),
    ],
)
def test_host_reaches_itself_where_it_listens(listen: str, listener: str, url: str) -> None:
    endpoint = Endpoint("web1", "web1.example.org", 9100, "http", "/metrics", listen)
    assert endpoint.listener == listener
    assert endpoint.local_url == url
