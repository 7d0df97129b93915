"""The modules that work through Grafana's API, against a stand-in (molecule/grafana/standin.py)."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible_collections.fleetwatch.monitoring.plugins.module_utils import local_http
from ansible_collections.fleetwatch.monitoring.plugins.modules import (
    grafana_admin,
    grafana_check,
    grafana_provisioning,
    verified_service,
)
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.grafana import ini

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STANDIN = ROOT / "molecule/grafana/standin.py"
PASSWORD = "the first password"  # noqa: S105 - of a stand-in
CERTIFICATE = ["-days", "2", "-nodes", "-subj", "/CN=grafana.example.com", "-newkey", "rsa:2048"]


class Grafana:
    """A stand-in in a folder, and its program where the role would have put it."""

    def __init__(self, folder: Path, *, scheme: str = "http") -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder, self.url = folder, f"{scheme}://127.0.0.1:{self.port}"
        self.home, self.config = folder / "home", folder / "etc/grafana.ini"
        self.certificate = str(folder / "tls.crt") if scheme == "https" else None
        for name in ("home/bin", "etc/provisioning/datasources", "etc/provisioning/dashboards", "data"):
            (folder / name).mkdir(parents=True)
        (folder / "etc/dashboards").mkdir()
        program = self.home / "bin/grafana"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {STANDIN} "$@"\n')
        program.chmod(0o755)
        server = {"protocol": scheme, "http_addr": "127.0.0.1", "http_port": self.port}
        if self.certificate:
            command = ["openssl", "req", "-x509", *CERTIFICATE, "-keyout", f"{folder}/tls.key", "-out"]
            subprocess.run([*command, self.certificate], check=True, capture_output=True)  # noqa: S603
            server |= {"cert_file": self.certificate, "cert_key": f"{folder}/tls.key"}
        settings = {
            "server": server,
            "paths": {"data": folder / "data", "provisioning": folder / "etc/provisioning"},
            "security": {"admin_user": "admin", "admin_password": PASSWORD},
        }
        self.config.write_text(ini(settings))
        provider = {"name": "own", "folder": "Own", "options": {"path": str(folder / "etc/dashboards")}}
        self.write("provisioning/dashboards/own.yml", {"apiVersion": 1, "providers": [provider]})
        self.datasources("Prometheus")

    def write(self, path: str, content: Any) -> None:
        (self.folder / "etc" / path).write_text(yaml.safe_dump(content))

    def datasources(self, *names: str, prune: bool = True) -> None:
        entries = [{"name": name, "type": "prometheus"} for name in names]
        self.write("provisioning/datasources/own.yml", {"prune": prune, "datasources": entries})

    def dashboards(self, *uids: str) -> None:
        for path in (self.folder / "etc/dashboards").glob("*.json"):
            path.unlink()
        for uid in uids:
            model = {"uid": uid, "title": uid, "panels": []}
            (self.folder / f"etc/dashboards/{uid}.json").write_text(json.dumps(model))

    def start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [self.home / "bin/grafana", "server", f"--config={self.config}"], stdout=subprocess.DEVNULL
        )
        for _ in range(100):
            if not verified_service.not_ready(f"{self.url}/api/health", self.certificate):
                return process
            time.sleep(0.05)
        process.kill()
        raise AssertionError("the stand-in does not answer")

    def module(self, *, check_mode: bool = False, **params: Any) -> Any:
        def run(argv: list[str], *, data: str = "", cwd: str = ".", **_: Any) -> tuple[int, str, str]:
            if argv[0] == "journalctl":
                return 0, "the last words", ""
            assert argv[:4] == ["runuser", "-u", "grafana", "--"]
            assert not [word for word in argv if data.strip() in word], "a secret on a command line"
            done = subprocess.run(  # noqa: S603 - our own program
                argv[4:], input=data, cwd=cwd, text=True, capture_output=True, check=False
            )
            return done.returncode, done.stdout, done.stderr

        common = {"url": self.url, "certificate": self.certificate, "user": "admin", "password": PASSWORD}
        return SimpleNamespace(params={**common, **params}, check_mode=check_mode, run_command=run)

    def admin(self, *, check_mode: bool = False, **params: Any) -> list[str]:
        own = {"home": str(self.home), "config": str(self.config), "run_as": "grafana"}
        return grafana_admin.Admin(self.module(check_mode=check_mode, **{**own, **params})).run()

    def provisioning(self, *, check_mode: bool = False, **params: Any) -> list[str]:
        own = {"config_dir": str(self.folder / "etc"), "datasources": [], "dashboards": [], "timeout": 1}
        module = self.module(check_mode=check_mode, **{**own, **params})
        return grafana_provisioning.Provisioning(module).run()

    def names(self) -> set[str]:
        found = local_http.get(
            f"{self.url}/api/datasources", login=("admin", PASSWORD), certificate=self.certificate
        )
        return {entry["name"] for entry in found}


@pytest.fixture
def grafana(tmp_path: Path) -> Iterator[Grafana]:
    standin = Grafana(tmp_path)
    process = standin.start()
    yield standin
    process.kill()
    process.wait()


# The administrator


def test_a_password_that_works_is_left_alone(grafana: Grafana) -> None:
    assert grafana.admin() == []


def test_a_changed_password_really_changes(grafana: Grafana) -> None:
    new = 'another "pass$word" ü'
    assert grafana.admin(password=new, check_mode=True) == ["password"]
    assert grafana.admin(password=new) == ["password"]
    assert grafana.admin(password=new) == []
    with pytest.raises(local_http.HttpError, match="401"):
        grafana.names()


def test_a_changed_login_renames_the_account(grafana: Grafana) -> None:
    assert grafana.admin(user="boss") == ["password", "login"]
    assert grafana.admin(user="boss") == []
    assert grafana.admin(user="boss", password=f"{PASSWORD}!") == ["password"]


def test_words_of_the_command_line_are_passed_on(grafana: Grafana) -> None:
    with pytest.raises(grafana_admin.AdminError, match=r"grafana cli says:\n.*too short"):
        grafana.admin(password="abc")  # noqa: S106 - it is refused


def test_a_login_that_opens_nothing_says_what_may_be_wrong(
    grafana: Grafana, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grafana_admin, "FIRST_NAMES", ("root",))
    with pytest.raises(grafana_admin.AdminError, match="set grafana_admin_user to that login"):
        grafana.admin(user="boss")


def test_an_ordinary_user_is_refused(grafana: Grafana, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grafana_admin.Admin, "account", lambda *_: {"isGrafanaAdmin": False})
    with pytest.raises(grafana_admin.AdminError, match="not its administrator"):
        grafana.admin()


def test_before_the_first_start_check_mode_predicts(tmp_path: Path) -> None:
    standin = Grafana(tmp_path)
    assert standin.admin(check_mode=True) == ["password"]
    assert standin.provisioning(check_mode=True) == ["datasources", "dashboards"]
    with pytest.raises(OSError, match="refused"):
        standin.admin()


# Provisioning


def test_what_changed_is_taken_once(grafana: Grafana) -> None:
    assert grafana.provisioning(datasources=["Prometheus"]) == ["datasources", "dashboards"]
    assert grafana.provisioning(datasources=["Prometheus"]) == []
    grafana.datasources("Prometheus", "Loki")
    assert grafana.provisioning(datasources=["Prometheus", "Loki"], check_mode=True) == ["datasources"]
    assert grafana.names() == {"Prometheus"}
    assert grafana.provisioning(datasources=["Prometheus", "Loki"]) == ["datasources"]
    assert grafana.names() == {"Prometheus", "Loki"}
    grafana.dashboards("one", "two")
    assert grafana.provisioning(datasources=["Prometheus", "Loki"], dashboards=["one", "two"]) == [
        "dashboards"
    ]
    assert grafana.provisioning(datasources=["Prometheus", "Loki"], dashboards=["one", "two"]) == []


def test_what_left_goes(grafana: Grafana) -> None:
    grafana.datasources("Prometheus", "Loki")
    grafana.dashboards("one")
    grafana.provisioning(datasources=["Prometheus", "Loki"], dashboards=["one"])
    grafana.datasources("Prometheus")
    grafana.dashboards()
    assert grafana.provisioning(datasources=["Prometheus"]) == ["datasources", "dashboards"]
    assert grafana.names() == {"Prometheus"}


def test_a_grafana_that_keeps_what_left_is_noticed_and_tried_again(grafana: Grafana) -> None:
    grafana.datasources("Prometheus", "Loki")
    grafana.provisioning(datasources=["Prometheus", "Loki"])
    grafana.datasources("Prometheus", prune=False)
    for _ in range(2):  # the failed run is not taken for done
        with pytest.raises(
            grafana_provisioning.ProvisioningError, match="has not deleted the datasources Loki"
        ):
            grafana.provisioning(datasources=["Prometheus"])


def test_a_dashboard_that_is_not_taken_is_named(grafana: Grafana) -> None:
    with pytest.raises(
        grafana_provisioning.ProvisioningError, match="has not taken the dashboards lost"
    ) as error:
        grafana.provisioning(datasources=["Prometheus"], dashboards=["lost"])
    assert "the last words" in str(error.value)


def test_what_was_lost_in_grafana_comes_back(grafana: Grafana) -> None:
    grafana.provisioning(datasources=["Prometheus"])
    path = grafana.folder / "data/standin.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"datasources": []}))
    assert grafana.names() == set()
    assert grafana.provisioning(datasources=["Prometheus"]) == ["datasources"]
    assert grafana.names() == {"Prometheus"}


def test_a_refusal_carries_grafanas_words(grafana: Grafana) -> None:
    entries = [{"name": name, "type": "loki", "isDefault": True} for name in "ab"]
    grafana.write("provisioning/datasources/own.yml", {"prune": True, "datasources": entries})
    with pytest.raises(grafana_provisioning.ProvisioningError, match=r"refused its datasources.*as default"):
        grafana.provisioning(datasources=["a", "b"])


# TLS


def test_tls_is_by_the_configured_certificate(tmp_path: Path) -> None:
    standin, other = Grafana(tmp_path / "a", scheme="https"), Grafana(tmp_path / "b", scheme="https")
    process = standin.start()
    try:
        assert standin.admin() == []
        assert "CERTIFICATE_VERIFY_FAILED" in verified_service.not_ready(
            f"{standin.url}/api/health", other.certificate
        )
    finally:
        process.kill()
        process.wait()


# The check of the settings

DEFAULTS = """
app_mode = production
[server]
;protocol = http
http_port = 3000
[smtp]
enabled = false
host = localhost:25
"""


def test_settings_that_grafana_would_pass_over_are_named(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/defaults.ini").write_text(DEFAULTS)
    known = grafana_check.known_settings(tmp_path)
    assert known == {
        "DEFAULT": {"app_mode"},
        "server": {"protocol", "http_port"},
        "smtp": {"enabled", "host"},
    }
    fine = {"server": {"protocol": "h2"}, "plugin.x": {"y": 1}, "feature_toggles": {"z": True}, "smtp": None}
    assert grafana_check.unknown_settings(fine, known) == []
    wrong = {"smpt": {"host": "a"}, "server": {"http_prot": 1, "nothing_like_it": 2}}
    assert grafana_check.unknown_settings(wrong, known) == [
        "this Grafana has no section [smpt]; did you mean smtp?",
        "this Grafana has no http_prot in the section [server]; did you mean http_port?",
        "this Grafana has no nothing_like_it in the section [server]",
    ]


def test_certificate_and_key_must_belong_together(tmp_path: Path) -> None:
    one, two = Grafana(tmp_path / "a", scheme="https"), Grafana(tmp_path / "b", scheme="https")
    assert one.certificate
    assert grafana_check.certificate_problem(one.certificate, f"{one.folder}/tls.key") == ""
    problem = grafana_check.certificate_problem(one.certificate, f"{two.folder}/tls.key")
    assert "KEY_VALUES_MISMATCH" in problem.upper().replace(" ", "_")
    assert "there is no file /nowhere" in grafana_check.certificate_problem("/nowhere", "/nowhere")
    assert ssl.OPENSSL_VERSION
