from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils import inventory_check
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.inventory_check import InventoryCheck

from tests.plugins.conftest import INVENTORY, write

if TYPE_CHECKING:
    from tests.plugins.conftest import MakeFleet, RunPlaybook

SECRET = "hunter2-do-not-print"  # noqa: S105 - it is made up


class Check:
    """Check an inventory and return its problems, or its warnings."""

    def __init__(self, make_fleet: MakeFleet) -> None:
        self._make_fleet = make_fleet

    def problems(self, inventory: str = INVENTORY, **files: str) -> list[str]:
        return InventoryCheck(self._make_fleet(inventory, **files)).run()[0]

    def warnings(self, inventory: str = INVENTORY, **files: str) -> list[str]:
        return InventoryCheck(self._make_fleet(inventory, **files)).run()[1]


@pytest.fixture
def check(make_fleet: MakeFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    monkeypatch.chdir(tmp_path)  # places are shown relative to it
    return Check(make_fleet)


def test_sound_inventory(check: Check) -> None:
    fleet = check._make_fleet(
        INVENTORY + "production: {hosts: {web1: {}}}\nshop: {hosts: {web1: {}}}\n",
        group_vars_all="""
            fleetwatch_scheme: https
            fleetwatch_target_labels: {env: [production]}
            my_own_variable: 3
            node_exporter_port: "{{ my_own_variable + 9100 }}"
            node_exporter_scrape: 'yes'
            node_exporter_alert_down_after: "{{ ansible_memtotal_mb }}m"
            shop_worker_metrics_path: /x
            shop_channels: [{name: a, kind: mail, retries: '3'}]
            """,
        group_vars_shop="shop_api_key: '{{ vault_key }}'\nvault_key: abc",
    )
    assert InventoryCheck(fleet).run() == ([], [])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("node_exporter_port: http", "node_exporter_port must be a whole number"),
        ("node_exporter_port: true", "node_exporter_port must be a whole number"),
        ("node_exporter_port: '{{ [1] }}'", "node_exporter_port must be a whole number"),
        ("node_exporter_port:", "node_exporter_port is empty; give it a value or remove the line"),
        ("node_exporter_port: 70000", "node_exporter_port must be a port number from 1 to 65535"),
        (
            "node_exporter_scheme: htps",
            "node_exporter_scheme must be one of: http, https; did you mean https?",
        ),
        ("node_exporter_scheme: ftp", "node_exporter_scheme must be one of: http, https"),
        ("node_exporter_alert_down_after: 1.10", "node_exporter_alert_down_after must be text in quotes"),
        ("node_exporter_alert_down_after: on", "node_exporter_alert_down_after must be text in quotes"),
        ("node_exporter_alert_down_after: [1m]", "node_exporter_alert_down_after must be text in quotes"),
        ("node_exporter_flags: a=b", "node_exporter_flags must be a dictionary"),
        ("node_exporter_flags: [a]", "node_exporter_flags must be a dictionary"),
        ("node_exporter_groups: text", "node_exporter_groups must be a list"),
        ("node_exporter_groups: [a, b: c]", "node_exporter_groups must be a list in which each item is text"),
        ("node_exporter_scrape: perhaps", "node_exporter_scrape must be true or false"),
        ("node_exporter_metrics_path: metrics", "node_exporter_metrics_path must begin with /"),
        ("node_exporter_prot: 1", "node_exporter_prot is not a setting; did you mean node_exporter_port?"),
        ("node_exporter_zzz: 1", "node_exporter_zzz is not a setting"),
        ("shop_worker_prt: 1", "shop_worker_prt is not a setting; did you mean shop_worker_port?"),
        ("fleetwatch_adress: x", "fleetwatch_adress is not a setting; did you mean fleetwatch_address?"),
        (
            "node_exporter_port: '{{ nowhere }}'",
            "node_exporter_port refers to something that is not defined: 'nowhere' is undefined; set that",
        ),
        ("node_exporter_port: '{{ 1 / 0 }}'", "node_exporter_port cannot be rendered"),
        (
            "node_exporter_port: '{{ 1 + }}'",
            "node_exporter_port cannot be rendered: Syntax error in template",
        ),
        (
            "node_exporter_scrape: '{{ nowhere }}'",
            "node_exporter_scrape refers to something that is not defined",
        ),
        ("fleetwatch_address: 'a b'", "fleetwatch_address is 'a b', not a host name or an IP address"),
    ],
)
def test_wrong_setting(check: Check, line: str, problem: str) -> None:
    (found,) = check.problems(host_vars_web1=f"# a comment\n{line}")
    assert found.startswith(problem)
    assert found.endswith("(host web1, inventory/host_vars/web1.yml:2)")


def test_wrong_number_of_instances(check: Check, roles: Path) -> None:
    write(
        roles,
        {
            "mill/defaults/main.yml": "mill_port: 8100\n",
            "mill/meta/argument_specs.yml": "{argument_specs: {main: {options: {mill_wheels: {type: int}}}}}",
            "mill/monitoring/scrape.yml": "- {job: mill, group: node_exporter, instances: mill_wheels}\n",
        },
    )
    (found,) = check.problems(group_vars_all="mill_wheels: 2", host_vars_web1="mill_wheels: 0")
    assert found.startswith("mill_wheels must be a number of instances from 1 to 64 (host web1, ")


@pytest.mark.parametrize(
    ("channel", "problem"),
    [
        ("{name: a, retries: many}", "argument 'retries' is of type str"),
        ("{name: a, kind: fax}", "value of kind must be one of: mail, sms"),
        ("{kind: sms}", "missing required arguments: name"),
        (
            "{name: a, knid: sms}",
            "shop_channels.knid. Supported parameters include: kind, name, retries, token",
        ),
    ],
)
def test_wrong_setting_inside_another(check: Check, channel: str, problem: str) -> None:
    shop = "shop: {hosts: {web1: {shop_api_key: x}}}\n"
    found = check.problems(INVENTORY + shop, group_vars_shop=f"shop_channels: [{channel}]")
    assert len(found) == 1, found
    assert found[0].startswith("shop_channels is wrong: ")
    assert problem in found[0]
    assert found[0].endswith("(host web1, inventory/group_vars/shop.yml:1)")


def test_one_line_for_many_hosts(check: Check) -> None:
    hosts = ", ".join(f"h{number}: {{}}" for number in range(9))
    problems = check.problems(
        f"node_exporter: {{hosts: {{{hosts}}}}}", group_vars_all="node_exporter_port: x"
    )
    shown = "hosts h0, h1, h2 and 6 more, inventory/group_vars/all.yml:1"
    assert problems == [f"node_exporter_port must be a whole number ({shown})"]


def test_all_mistakes_are_found_at_once(check: Check) -> None:
    assert len(check.problems(host_vars_web1="node_exporter_port: x\nfoo: 1\nnode_exporter_prot: 1")) == 2


def test_settings_count_only_for_the_hosts_of_the_role(check: Check) -> None:
    assert check.problems(host_vars_web1="prometheus_port: x") == []


def test_value_that_needs_facts_is_not_judged(check: Check) -> None:
    assert (
        check.problems(
            group_vars_all="""
                node_exporter_port: "{{ ansible_facts.processor_vcpus }}"
                node_exporter_alert_down_after: "{{ mine }}"
                mine: "{{ ansible_memtotal_mb // 2 }}"
                """
        )
        == []
    )


def test_template_is_judged_for_each_host(check: Check) -> None:
    files = {"group_vars_all": "port: http\nnode_exporter_port: '{{ port }}'", "host_vars_monitor": "port: 1"}
    (problem,) = check.problems(**files, host_vars_web1="port: 2")
    assert problem == "node_exporter_port must be a whole number (host web2, inventory/group_vars/all.yml:2)"


def test_missing_secret(check: Check) -> None:
    (problem,) = check.problems(INVENTORY + "shop: {hosts: {web1: {}}}\n")
    assert problem == "shop_api_key is missing; set it in a file that ansible-vault encrypts (host web1)"


def test_empty_secret(check: Check) -> None:
    (problem,) = check.problems(INVENTORY + "shop: {hosts: {web1: {shop_api_key: ''}}}\n")
    assert problem.startswith("shop_api_key is empty")


def test_secret_that_is_not_in_the_vault(check: Check) -> None:
    shop = "shop: {hosts: {web1: {shop_api_key: '{{ vault_shop_api_key }}'}}}\n"
    (problem,) = check.problems(INVENTORY + shop)
    assert "'vault_shop_api_key' is undefined; set that in a file that ansible-vault encrypts" in problem


@pytest.mark.parametrize(
    "line",
    [
        f"shop_api_key: ['{SECRET}']",
        f"shop_api_key: \"{{{{ '{SECRET}' | to_datetime }}}}\"",
        f"shop_api_key: x\nshop_port: \"{{{{ '{SECRET}' | to_datetime }}}}\"",
        f"shop_api_key: x\nshop_scheme: \"{{{{ '{SECRET}' | to_datetime }}}}\"",
        f"shop_api_key: x\nshop_port: '{SECRET}'",
        f"shop_api_key: x\nshop_channels: [{{name: x, kind: '{SECRET}'}}]",
        f"shop_api_key: x\nshop_channels: [{{name: x, retries: '{SECRET} found in shop'}}]",
        f"shop_api_key: x\nshop_channels: [{{name: x, token: ['{SECRET}'], retries: '{SECRET}: x'}}]",
        f"shop_api_key: x\nshop_channels: ['{SECRET}']",
        f"shop_api_key: x\nshop_channels: '{SECRET}'",
        f"shop_api_kye: '{SECRET}'\nshop_api_key: x",
    ],
)
def test_values_are_not_shown(check: Check, line: str) -> None:
    problems = check.problems(INVENTORY + "shop: {hosts: {web1: {}}}\n", group_vars_shop=line)
    assert problems
    assert SECRET not in "\n".join(problems)


ALERT_ROLE = {
    "node_exporter/defaults/main.yml": """
        node_exporter_port: 9100
        node_exporter_alert_low_threshold: 0.1
        node_exporter_alert_low_for: 1m
        node_exporter_alert_many_threshold: 3
        """,
    "node_exporter/meta/argument_specs.yml": """
        argument_specs:
          main:
            options:
              node_exporter_port: {type: int}
              node_exporter_alert_low_threshold: {type: float}
              node_exporter_alert_low_for: {type: str}
              node_exporter_alert_many_threshold: {type: float}
        """,
    "node_exporter/monitoring/rules.yml": """
        groups:
          - name: node_exporter
            rules:
              - alert: Low
                expr: free < [[ node_exporter_alert_low_threshold ]]
                for: [[ node_exporter_alert_low_for ]]
                annotations: {summary: "{{ $labels.host }} is low"}
              - alert: Many
                expr: count(up == 0) > [[ node_exporter_alert_many_threshold ]]
        """,
    "node_exporter/monitoring/recording_rules.yml": "groups: []\n",
}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("node_exporter_alert_low_threshold: abc", "node_exporter_alert_low_threshold must be a number"),
        ("node_exporter_alert_low_threshold: true", "node_exporter_alert_low_threshold must be a number"),
        (
            "node_exporter_alert_low_for: 5 minutes",
            "node_exporter_alert_low_for must be a duration such as 30s, 5m or 1h30m",
        ),
        ("node_exporter_alert_low_fro: 5m", "node_exporter_alert_low_fro is not a setting; did you mean"),
        (
            "node_exporter_alert_many_threshold: 9",
            "node_exporter_alert_many_threshold cannot have an effect, because the alert Many is not about"
            " one host; set it for the hosts of the group prometheus",
        ),
    ],
)
def test_wrong_threshold_of_one_host(check: Check, roles: Path, line: str, problem: str) -> None:
    write(roles, ALERT_ROLE)
    (found,) = check.problems(host_vars_web1=line)
    assert found.startswith(problem)
    assert "host web1" in found
    (found,) = check.problems(
        "prometheus: {hosts: {monitor: {}}}\nnode_exporter: {hosts: {monitor: {}}}\n"
        "shop_workers: {hosts: {web1: {}}}",  # any host that is scraped
        host_vars_web1=line,
    )
    assert found.startswith(problem)


def test_thresholds_of_some_hosts(check: Check, roles: Path) -> None:
    write(roles, ALERT_ROLE)
    files = {
        "group_vars_all": "node_exporter_alert_many_threshold: 5\nnode_exporter_alert_low_for: 0",
        "group_vars_node_exporter": "node_exporter_alert_low_threshold: 0.2",
        "host_vars_web1": "node_exporter_alert_low_threshold: '{{ share }}'\nshare: 0.3",
        "host_vars_web2": "node_exporter_alert_low_threshold: '{{ ansible_memtotal_mb }}'",
    }
    assert check.problems(**files) == []


def test_prometheus_servers_must_agree_on_thresholds(check: Check, roles: Path) -> None:
    write(roles, ALERT_ROLE)
    inventory = INVENTORY.replace("node_exporter:", "    web1:\nnode_exporter:", 1)
    value = "node_exporter_alert_low_threshold: 0.2"
    assert check.problems(inventory, host_vars_web1=value) == [
        "node_exporter_alert_low_threshold differs between the hosts of the group prometheus, whose value"
        " counts for all hosts; set it in group_vars/prometheus (hosts monitor, web1)"
    ]
    assert check.problems(inventory, host_vars_web1="", group_vars_prometheus=value) == []


SLO_ROLES = {
    "common/meta/argument_specs.yml": """
        argument_specs:
          main:
            options:
              fleetwatch_slos: {type: list, elements: dict}
        """,
    "prometheus/meta/argument_specs.yml": """
        argument_specs:
          main:
            options:
              prometheus_retention_time: {type: str}
        """,
    "prometheus/defaults/main.yml": "prometheus_port: 9090\nprometheus_retention_time: 15d\n",
}
SLOS = """
fleetwatch_slos:
  - {name: a, service: shop, objective: 99, errors: 'rate(e[$window])', total: 'rate(t[$window])'}
"""


def test_wrong_objective_is_named(check: Check, roles: Path) -> None:
    write(roles, SLO_ROLES)
    assert check.problems(
        group_vars_all=SLOS.replace("99", "100").replace("rate(t[$window])", "rate(t[5m])")
    ) == [
        "fleetwatch_slos entry 1 (a): objective must be a percentage above 0 and below 100, such as 99.9"
        " (hosts monitor, web2, web1, inventory/group_vars/all.yml:2)",
        "fleetwatch_slos entry 1 (a): total must have [$window] as its time range, as in"
        " rate(requests_total[$window]) (hosts monitor, web2, web1, inventory/group_vars/all.yml:2)",
    ]


def test_wrong_objective_of_a_component_is_named(check: Check, roles: Path) -> None:
    options = "shop_slo_availability_objective: {type: float}"
    write(
        roles, {"prometheus/meta/argument_specs.yml": f"argument_specs: {{main: {{options: {{{options}}}}}}}"}
    )
    assert check.problems(group_vars_prometheus="shop_slo_availability_objective: 99.5") == []
    (problem,) = check.problems(group_vars_prometheus="shop_slo_availability_objective: 100")
    assert problem.startswith("shop_slo_availability_objective must be a percentage above 0 and below 100")


@pytest.mark.parametrize(
    ("retention", "warned"),
    [("", True), ("4w1d", True), ("719h59m", True), ("30d", False), ("1y", False), ("4w2d", False)],
)
def test_objectives_need_samples_of_thirty_days(
    check: Check, roles: Path, retention: str, warned: bool
) -> None:
    write(roles, SLO_ROLES)
    own = f"prometheus_retention_time: {retention}" if retention else ""
    warnings = check.warnings(group_vars_all=SLOS, group_vars_prometheus=own)
    assert [text.startswith("prometheus_retention_time is less than 30 days") for text in warnings] == (
        [True] if warned else []
    )


RECEIVER_ROLE = {
    "alert_receiver/monitoring/scrape.yml": "- job: alert_receiver\n",
    "alert_receiver/defaults/main.yml": """
        alert_receiver_port: 5001
        alert_receiver_sender: ''
        alert_receiver_recipients: []
        alert_receiver_sendgrid_api_key: ''
        alert_receiver_channels: [{name: mail, sender: '{{ alert_receiver_sender }}'}]
        alert_receiver_database_url: sqlite:////var/lib/alert_receiver/alerts.db
        """,
    "alert_receiver/meta/argument_specs.yml": """
        argument_specs:
          main:
            options:
              alert_receiver_sender: {type: str}
              alert_receiver_recipients: {type: list, elements: str}
              alert_receiver_sendgrid_api_key: {type: str, no_log: true}
              alert_receiver_channels: {type: list, elements: dict}
              alert_receiver_database_url: {type: str}
        """,
}
CHANNELS = "alert_receiver_channels: [{name: team}]\n"


def test_receiver_needs_a_channel(check: Check, roles: Path) -> None:
    write(roles, RECEIVER_ROLE)
    inventory = INVENTORY + "alert_receiver: {hosts: {web1: {}}}\n"
    cure = "or set alert_receiver_channels (host web1)"
    assert check.problems(inventory, group_vars_alert_receiver="alert_receiver_sender: ''") == [
        f"alert_receiver_sender is missing; set it in the inventory, {cure}",
        f"alert_receiver_recipients is missing; set it in the inventory, {cure}",
        "alert_receiver_sendgrid_api_key is missing; set it in a file that ansible-vault encrypts, " + cure,
    ]
    three = (
        "alert_receiver_sender: a@b\nalert_receiver_recipients: [c@d]\nalert_receiver_sendgrid_api_key: x\n"
    )
    assert check.problems(inventory, group_vars_alert_receiver=three) == []
    assert check.problems(inventory, group_vars_alert_receiver=CHANNELS) == []


def test_several_receivers_need_a_database_that_they_share(check: Check, roles: Path) -> None:
    write(roles, RECEIVER_ROLE)
    inventory = INVENTORY + "alert_receiver: {hosts: {web1: {}, web2: {}}}\n"
    (problem,) = check.problems(inventory, group_vars_alert_receiver=CHANNELS)
    assert problem.startswith("alert_receiver_database_url is a file of each host's own")
    assert problem.endswith("the same PostgreSQL database, or keep one host (hosts web1, web2)")
    shared = CHANNELS + "alert_receiver_database_url: postgresql://db/alerts\n"
    assert check.problems(inventory, group_vars_alert_receiver=shared) == []


def test_host_of_a_component_must_be_watched(check: Check) -> None:
    inventory = "prometheus: {hosts: {monitor: {}}}\nnode_exporter: {hosts: {web1: {}}}"
    assert check.problems(inventory) == [
        "group node_exporter lacks hosts of the group prometheus; add them, so that the machines are watched"
        " too (host monitor)"
    ]


@pytest.mark.parametrize(
    ("one", "two", "shown"),
    [
        ("10.0.0.7", "10.0.0.7", "10.0.0.7"),
        ("fd00::7", "FD00:0::7", "fd00::7"),
        ("Web.example.org", "web.example.org.", "web.example.org"),
    ],
)
def test_two_hosts_with_one_address(check: Check, one: str, two: str, shown: str) -> None:
    inventory = f"node_exporter: {{hosts: {{a: {{ansible_host: '{one}'}}, b: {{ansible_host: '{two}'}}}}}}"
    (problem,) = check.problems(inventory)
    assert problem.startswith(f"fleetwatch_address is {shown} on more than one host")
    assert problem.endswith("(hosts a, b)")


def test_shared_ansible_host_is_fine_with_addresses_of_their_own(check: Check) -> None:
    host = "{ansible_host: bastion, fleetwatch_address: '{{ inventory_hostname }}'}"
    assert check.problems(f"node_exporter: {{hosts: {{a: {host}, b: {host}}}}}") == []


def test_loopback_address_in_a_fleet(check: Check) -> None:
    (problem,) = check.problems("node_exporter: {hosts: {a: {ansible_host: 127.0.0.1}, b: {}}}")
    assert problem.startswith("fleetwatch_address is 127.0.0.1, where the other hosts cannot reach it")
    assert check.problems("node_exporter: {hosts: {a: {ansible_host: 127.0.0.1}}}") == []


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ("{env: [a, b]}", "fleetwatch_target_labels: host web1 would have two values of the label env"),
        ("{host: [a]}", "fleetwatch_target_labels: every target has the label host already"),
        ("[a]", "fleetwatch_target_labels must be a dictionary"),
        ("{env: a}", "fleetwatch_target_labels: env must be a list of group names"),
        ("{env: ['{{ nowhere }}']}", "fleetwatch_target_labels refers to something that is not defined"),
    ],
)
def test_wrong_target_labels(check: Check, labels: str, problem: str) -> None:
    groups = "a: {hosts: {web1: {}}}\nb: {hosts: {web1: {}}}\n"
    found = check.problems(INVENTORY + groups, group_vars_prometheus=f"fleetwatch_target_labels: {labels}")
    assert len(found) == 1
    assert found[0].startswith(problem)
    assert found[0].endswith("(host monitor, inventory/group_vars/prometheus.yml:1)")


def test_warning_about_a_group_that_resembles_a_component(check: Check) -> None:
    assert check.warnings(INVENTORY + "node_exportr: {hosts: {web9: {}}}\n") == [
        "group node_exportr is no component; did you mean node_exporter?"
    ]
    assert check.warnings(INVENTORY + "node_exporters: {hosts: {web1: {}}}\n") == []


def test_warning_about_a_variable_that_resembles_a_setting(check: Check) -> None:
    files = {"group_vars_all": "promethues_port: 1\nnodeexporter_port: 1\nprometheus2_colour: 1"}
    assert check.warnings(**files) == [
        "variable promethues_port is not a setting; did you mean prometheus_port?",
    ]


def test_warning_about_a_group_that_gives_no_label(check: Check) -> None:
    inventory = INVENTORY + "production: {hosts: {web1: {}}}\n"
    assert check.warnings(inventory, group_vars_all="fleetwatch_target_labels: {env: [prodution]}") == [
        "fleetwatch_target_labels: the group prodution of the label env does not exist;"
        " did you mean production?"
    ]


def test_value_of_many_hosts_is_judged_once(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[dict[str, Any]] = []

    class Counting(ArgumentSpecValidator):  # type: ignore[misc]
        def validate(self, parameters: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            judged.append(parameters)
            return super().validate(parameters, *args, **kwargs)

    monkeypatch.setattr(inventory_check, "ArgumentSpecValidator", Counting)
    hosts = ", ".join(f"h{number}: {{}}" for number in range(50))
    variables = "node_exporter_port: 1\nnode_exporter_flags: {a: b}\nnode_exporter_alert_down_after: 5m"
    assert check.problems(f"node_exporter: {{hosts: {{{hosts}}}}}", group_vars_all=variables) == []
    assert len(judged) == 3


# In a real run

PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - fleetwatch.monitoring.check_inventory:
        roles_path: ["{{ playbook_dir }}/roles"]
      run_once: true
"""


@pytest.mark.slow
def test_play_fails_with_all_problems_and_touches_no_host(tmp_path: Path, run_playbook: RunPlaybook) -> None:
    write(tmp_path, {"play.yml": PLAY, "inventory/hosts.yml": INVENTORY})
    run = run_playbook(
        "play.yml", "--check", "--limit", "web1", "-e", "node_exporter_prot=1", "-e", "prometheus_port=x"
    )
    assert run.returncode == 2
    assert "The inventory has 2 mistakes:\n- " in run.stdout
    assert "\n- prometheus_port must be a whole number (host monitor, <CLI option '-e'>)\n" in run.stdout
    assert "node_exporter_prot is not a setting; did you mean node_exporter_port?" in run.stdout
    assert "unreachable=0" in run.stdout


@pytest.mark.slow
def test_secrets_from_the_vault_are_read_and_not_shown(tmp_path: Path, run_playbook: RunPlaybook) -> None:
    write(
        tmp_path,
        {
            "play.yml": PLAY,
            "inventory/hosts.yml": INVENTORY + "shop: {hosts: {web1: {shop_api_key: '{{ vault_key }}'}}}\n",
            "inventory/group_vars/shop.yml": f"vault_key: {SECRET}\nshop_port: '{{{{ vault_key }}}}'\n",
            "password": "secret\n",
        },
    )
    vault = str(Path(sys.executable).with_name("ansible-vault"))
    file = str(tmp_path / "inventory/group_vars/shop.yml")
    password = str(tmp_path / "password")
    subprocess.run(  # noqa: S603 - the tests' own command
        [vault, "encrypt", "--vault-password-file", password, file], check=True, capture_output=True
    )
    run = run_playbook("play.yml", "--vault-password-file", password, "-vvv")
    assert run.returncode == 2
    assert "shop_port must be a whole number" in run.stdout
    assert "shop_api_key" not in run.stdout
    assert SECRET not in run.stdout
