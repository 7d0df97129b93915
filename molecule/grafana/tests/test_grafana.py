"""Grafana as the role leaves it, and what a change does to it.

The tests build on one another, in this order.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import ROOT, Fleet, Run, wait_for

from lab.browser import chromium
from lab.screenshots import PICTURES, Site, take

FOUND = json.loads((Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "grafana.json").read_text())
SETTINGS = yaml.safe_load((ROOT / "molecule/grafana/group_vars/all/grafana.yml").read_text())
PASSWORD = SETTINGS["grafana_admin_password"]
NEW_PASSWORD = 'only for "the tests", a n€w one with $HOME and #;'  # noqa: S105 - of the tests
ONLY = "molecule/grafana/only.yml"
EXPOSURE_LIMIT = 20
"""Of systemd-analyze security, in tenths, as for every other unit."""
GROUPS = ("prometheus", "node_exporter", "grafana")
DASHBOARDS = {
    json.loads(path.read_text())["uid"]
    for group in GROUPS
    for path in (ROOT / "roles" / group / "monitoring/dashboards").glob("*.json")
}

needs_grafana = pytest.mark.skipif(not FOUND["real"], reason="needs Grafana: set GRAFANA_RELEASE")


def ask(fleet: Fleet, path: str, password: str = PASSWORD, *, scheme: str = "http") -> tuple[int, Any]:
    """Return the status and the JSON that Grafana answers."""
    url = fleet.url("monitor", 3000).replace("http", scheme, 1) + path
    headers = {}
    if password:
        headers["Authorization"] = f"Basic {base64.b64encode(f'admin:{password}'.encode()).decode()}"
    context = ssl._create_unverified_context()  # noqa: S323 - it has another name
    handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)]
    try:
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - of this scenario
        with urllib.request.build_opener(*handlers).open(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, None


def names(fleet: Fleet, path: str, key: str, password: str = PASSWORD) -> set[str]:
    """Return the names or uids in a list of Grafana's API."""
    status, found = ask(fleet, path, password)
    assert status == 200
    return {entry[key] for entry in found}


def process(fleet: Fleet) -> str:
    """Return the process of Grafana, which is another after a restart."""
    return str(fleet.host("monitor").service("grafana").systemd_properties["MainPID"])


def refused(fleet: Fleet, variables: dict[str, Any]) -> Run:
    """Run the role with settings that it must refuse, with Grafana and its files as before."""
    look = "find /etc/grafana -type f ! -name .provisioned -exec sha256sum {} + | sort"
    before, files = process(fleet), fleet.host("monitor").check_output(look)
    run = fleet.play_with(variables, playbook=ONLY)
    assert run.code != 0
    assert fleet.host("monitor").check_output(look) == files
    assert process(fleet) == before
    return run


# As it is after the converge


def test_unit_runs_as_its_own_user_in_a_sandbox(fleet: Fleet) -> None:
    host = fleet.host("monitor")
    service = host.service("grafana")
    assert service.is_running
    assert service.is_enabled
    assert service.systemd_properties["User"] == "grafana"
    assert service.systemd_properties["NRestarts"] == "0"
    analysis = host.run(f"systemd-analyze security --threshold={EXPOSURE_LIMIT} grafana.service")
    assert analysis.rc == 0, analysis.stdout.splitlines()[-1]
    assert host.run("systemd-analyze verify /etc/systemd/system/grafana.service").stderr == ""
    assert host.run("systemctl is-system-running").stdout.strip() == "running"


def test_release_keeps_its_tree(fleet: Fleet) -> None:
    host = fleet.host("monitor")
    home = f"/opt/grafana/{FOUND['grafana_version']}"
    assert host.file("/opt/grafana/current").linked_to == home
    assert host.file(f"{home}/bin/grafana").mode == 0o755
    assert host.file(f"{home}/conf/defaults.ini").mode == 0o644
    assert host.file(f"{home}/public").is_directory


def test_nobody_gets_in_without_the_password(fleet: Fleet) -> None:
    assert ask(fleet, "/api/health", "")[0] == 200
    assert ask(fleet, "/api/datasources", "")[0] == 401
    assert ask(fleet, "/api/datasources", "admin")[0] == 401
    status, account = ask(fleet, "/api/user")
    assert (status, account["login"], account["isGrafanaAdmin"]) == (200, "admin", True)


def test_datasources_follow_from_the_inventory(fleet: Fleet) -> None:
    _, (prometheus,) = ask(fleet, "/api/datasources")
    assert (prometheus["name"], prometheus["uid"], prometheus["type"]) == (
        "Prometheus",
        "prometheus-monitor",
        "prometheus",
    )
    assert (prometheus["url"], prometheus["isDefault"]) == ("http://monitor:9090", True)
    assert prometheus["jsonData"]["timeInterval"] == "2s"


def test_dashboards_of_components_with_hosts_are_there(fleet: Fleet) -> None:
    _, found = ask(fleet, "/api/search?type=dash-db&limit=5000")
    assert {entry["uid"] for entry in found} == DASHBOARDS
    assert {entry["folderTitle"] for entry in found} <= {"Fleetwatch"}


def test_prometheus_scrapes_it(fleet: Fleet) -> None:
    wait_for(lambda: fleet.query('up{job="grafana", host="monitor"} == 1'))


def test_settings_and_secrets_are_not_for_everybody(fleet: Fleet) -> None:
    host = fleet.host("monitor")
    assert host.run("runuser -u nobody -- find /etc/grafana /var/lib/grafana -type f -readable").stdout == ""
    text = host.check_output("journalctl --no-pager --output=cat; ps -eo args=")
    assert "only-for-the-" not in text.replace("only-for-the-encryption-of-the-test ", "")
    ini = host.file("/etc/grafana/grafana.ini").content_string
    assert "only-for-the-" not in ini
    for line in ("reporting_enabled = false", "check_for_updates = false", "allow_sign_up = false"):
        assert f"\n{line}\n" in ini


@needs_grafana
def test_every_dashboard_loads(fleet: Fleet) -> None:
    for uid in DASHBOARDS:
        status, answer = ask(fleet, f"/api/dashboards/uid/{uid}")
        assert status == 200, uid
        assert answer["meta"]["provisioned"] is True
        assert answer["dashboard"]["panels"], uid


@needs_grafana
def test_every_dashboard_is_drawn_in_a_browser(fleet: Fleet, tmp_path: Path) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    with chromium(tmp_path) as browser:
        site = Site(fleet.url("monitor", 3000), "admin", PASSWORD)
        assert take(browser, site, sorted(DASHBOARDS), PICTURES) == []


@needs_grafana
def test_grafana_reaches_prometheus(fleet: Fleet) -> None:
    status, answer = ask(fleet, "/api/datasources/uid/prometheus-monitor/health")
    assert (status, answer["status"]) == (200, "OK")


# Changes


def test_a_change_is_taken_without_a_restart_and_goes_again(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "Shop").mkdir()
    model = {"uid": "orders", "title": "Orders", "panels": [], "schemaVersion": 39}
    (tmp_path / "Shop/orders.json").write_text(json.dumps(model))
    secret = {"name": "Shop", "type": "prometheus", "url": "http://shop:9090", "uid": "shop"}
    changes = {
        "grafana_admin_password": NEW_PASSWORD,
        "grafana_dashboard_dir": str(tmp_path),
        "grafana_extra_datasources": [{**secret, "secureJsonData": {"basicAuthPassword": "only-for-$hop"}}],
    }
    before = process(fleet)
    run = fleet.play_with(changes, playbook=ONLY)
    assert run.code == 0, run.output
    assert "only-for-$hop" not in run.output
    assert NEW_PASSWORD not in run.output
    assert ask(fleet, "/api/user")[0] == 401
    assert names(fleet, "/api/datasources", "name", NEW_PASSWORD) == {"Prometheus", "Shop"}
    _, found = ask(fleet, "/api/search?type=dash-db&limit=5000", NEW_PASSWORD)
    assert {entry["uid"]: entry["folderTitle"] for entry in found}["orders"] == "Shop"
    again = fleet.play_with(changes, playbook=ONLY)
    assert (again.code, again.changed["monitor"]) == (0, 0), again.output

    run = fleet.play(playbook=ONLY)
    assert run.code == 0, run.output
    assert ask(fleet, "/api/user", NEW_PASSWORD)[0] == 401
    assert names(fleet, "/api/datasources", "name") == {"Prometheus"}
    assert names(fleet, "/api/search?type=dash-db&limit=5000", "uid") == DASHBOARDS
    assert process(fleet) == before


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"grafana_admin_password": "admin"}, "grafana_admin_password must have at least 12 characters"),
        ({"grafana_extra_settings": {"smpt": {"host": "x"}}}, "no section [smpt]; did you mean smtp?"),
        ({"grafana_scheme": "https"}, "grafana_tls_certificate is missing"),
        ({"grafana_extra_datasources": [{"name": "x"}]}, "each needs a type"),
    ],
    ids=["password", "setting", "tls", "datasource"],
)
def test_mistakes_are_refused_before_anything_changes(
    fleet: Fleet, variables: dict[str, Any], words: str
) -> None:
    assert words in " ".join(refused(fleet, variables).output.split())


def test_settings_with_which_it_does_not_start_are_put_back(fleet: Fleet) -> None:
    before = fleet.host("monitor").check_output("sha256sum /etc/grafana/grafana.ini")
    run = fleet.play_with({"grafana_extra_settings": {"server": {"http_addr": "203.0.113.1"}}}, playbook=ONLY)
    assert run.code != 0
    assert "The files from before are back and the service runs with them." in " ".join(run.output.split())
    assert fleet.host("monitor").check_output("sha256sum /etc/grafana/grafana.ini") == before
    assert ask(fleet, "/api/user")[0] == 200


def test_tls(fleet: Fleet) -> None:
    host = fleet.host("monitor")
    folder, name = "/etc/ssl/grafana", "grafana.example.com"
    host.check_output(f"install -d -m 0750 -g grafana {folder}")
    subject = f"-subj /CN={name} -keyout {folder}/tls.key -out {folder}/tls.crt"
    host.check_output(f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 {subject} 2>&1")
    tls = {
        "grafana_scheme": "https",
        "grafana_tls_certificate": f"{folder}/tls.crt",
        "grafana_tls_key": f"{folder}/tls.key",
    }
    run = fleet.play_with(tls, playbook=ONLY)  # openssl lets nobody but root read a key
    assert run.code != 0
    assert f"the user grafana cannot read {folder}/tls.key" in " ".join(run.output.split())
    host.check_output(f"chgrp grafana {folder}/tls.key && chmod 0640 {folder}/tls.key")
    try:
        run = fleet.play_with(tls, playbook=ONLY)
        assert run.code == 0, run.output
        assert ask(fleet, "/api/user", scheme="https")[0] == 200
        assert "cookie_secure = true" in host.file("/etc/grafana/grafana.ini").content_string
    finally:
        run = fleet.play(playbook=ONLY)
    assert run.code == 0, run.output
    assert ask(fleet, "/api/user")[0] == 200


# The package repository: its mechanism, with Debian's archive for the vendor's.

TRIXIE = ["04B54C3CDCA79751B16BC6B5225629DF75B188BD"]  # Debian Archive Automatic Signing Key (13/trixie)
SECURITY = ["05AB90340C0C5E797F44A8C8254CF3B5AEC0A8F0"]  # is in the same file, and has not signed this suite
REPOSITORY = """
- name: Use a vendor's repository
  hosts: grafana
  gather_facts: false
  tasks:
    - name: Use it
      fleetwatch.monitoring.signed_repository:
        name: vendor
        uri: "{{ uri }}"
        suite: "{{ suite | default('trixie') }}"
        components: [main]
        key_url: /usr/share/keyrings/debian-archive-keyring.gpg
        fingerprints: "{{ fingerprints }}"
"""


def test_a_signed_repository_is_trusted_by_its_fingerprints(fleet: Fleet, tmp_path: Path) -> None:
    host = fleet.host("monitor")
    playbook = tmp_path / "repository.yml"
    playbook.write_text(REPOSITORY)
    uri = host.check_output("grep -ohm1 'https\\?://[^ ]*' /etc/apt/sources.list")
    trusted = {"uri": uri, "fingerprints": TRIXIE}
    files = "ls /etc/apt/sources.list.d /etc/apt/keyrings"
    before = host.run(files).stdout
    for wrong in ({"suite": "no-such-suite"}, {"fingerprints": ["0" * 40]}, {"fingerprints": SECURITY}):
        run = fleet.play_with({**trusted, **wrong}, playbook=str(playbook))
        assert run.code != 0, wrong
        assert host.run(files).stdout == before
    run = fleet.play_with(trusted, playbook=str(playbook))
    assert run.code == 0, run.output
    assert run.changed == {"monitor": 1}
    assert fleet.play_with(trusted, playbook=str(playbook)).changed == {"monitor": 0}
    assert "vendor.sources" in host.run(files).stdout
    host.check_output("rm /etc/apt/sources.list.d/vendor.sources /etc/apt/keyrings/vendor.gpg")
