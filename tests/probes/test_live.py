"""Probes as the inventory has them, made by the real blackbox_exporter and scraped by the real Prometheus."""

from __future__ import annotations

import json
import os
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.fleet import Fleet

from lab import tools
from lab.console import Console
from tests.common.services import answers, call, free_port, wait_until
from tests.docs.test_how_tos import blocks
from tests.rules.test_alerts import alert_variables, load, render

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DEFAULTS: dict[str, Any] = load(ROOT / "roles/blackbox_exporter/defaults/main.yml")


@pytest.fixture(scope="session")
def exporter() -> Path:
    """Return Debian's blackbox_exporter."""
    return tools.ensure(Console()) / "prometheus-blackbox-exporter"


def check(exporter: Path, folder: Path, modules: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Check modules as the role does."""
    file = folder / "blackbox.yml"
    file.write_text(yaml.safe_dump({"modules": modules}))
    command = [str(exporter), "--config.check", f"--config.file={file}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - as above


def test_the_checker_takes_the_modules_and_refuses_others(exporter: Path, tmp_path: Path) -> None:
    modules = DEFAULTS["blackbox_exporter_modules"]
    for _, block in blocks("probe", "inventory/production/"):
        modules = modules | (load_text(block).get("blackbox_exporter_extra_modules") or {})
    assert {"smtp_starttls", "http_internal", "dns_www"} <= modules.keys()
    modules["http_internal"]["http"]["tls_config"] = {}  # the file is not here
    assert check(exporter, tmp_path, modules).returncode == 0
    done = check(exporter, tmp_path, {"icmp": {"prober": "icmp", "icmp": {"colour": "blue"}}})
    assert done.returncode != 0
    assert "colour" in done.stderr


def load_text(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text)
    return found


class Site(BaseHTTPRequestHandler):
    """Answers 200, or 503 where it is asked to."""

    def do_GET(self) -> None:
        self.send_response(503 if self.path == "/broken" else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Ssh(socketserver.BaseRequestHandler):
    """Says what an SSH server says first."""

    def handle(self) -> None:
        self.request.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        self.request.recv(100)


@contextmanager
def served(server: socketserver.BaseServer) -> Iterator[int]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield int(server.server_address[1])  # type: ignore[index] # it has a port
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Ports:
    http: int
    https: int
    ssh: int
    exporter: int
    closed: int


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[Ports]:
    """Serve what is probed; the certificate ends in five days."""
    subprocess.run(  # noqa: S603 - fixed command
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "5"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    secure = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    with (
        served(ThreadingHTTPServer(("127.0.0.1", 0), Site)) as http,
        served(secure) as https,
        served(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Ssh)) as ssh,
    ):
        yield Ports(http, https, ssh, free_port(), free_port())


def fleet_of(folder: Path, inventory: dict[str, Any]) -> Fleet:
    """Return a fleet of the real roles."""
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
    loader = DataLoader()
    manager = InventoryManager(loader, sources=[str(folder / "hosts.yml")])
    hostvars = HostVars(manager, VariableManager(loader, manager), loader)
    return Fleet(hostvars, manager.get_groups_dict(), loader)


def inventory_of(folder: Path, ports: Ports) -> dict[str, Any]:
    own_ca = {"tls_config": {"ca_file": str(folder / "cert.pem")}}
    probes = [
        {"name": "page", "module": "http_2xx", "target": f"http://localhost:{ports.http}/"},
        {"name": "broken", "module": "http_2xx", "target": f"http://localhost:{ports.http}/broken"},
        {"name": "shop", "module": "https_own", "target": f"https://localhost:{ports.https}/"},
        {"name": "untrusted", "module": "https_2xx", "target": f"https://localhost:{ports.https}/"},
        {"name": "plain", "module": "https_2xx", "target": f"http://localhost:{ports.http}/"},
        {"name": "tls", "module": "tls_own", "target": f"localhost:{ports.https}"},
        {"name": "ssh", "module": "ssh_banner", "target": f"localhost:{ports.ssh}"},
        {
            "name": "web_is_no_ssh",
            "module": "ssh_banner",
            "target": f"localhost:{ports.http}",
            "interval": "2s",
        },
        {"name": "open", "module": "tcp_connect", "target": f"localhost:{ports.ssh}"},
        {"name": "closed", "module": "tcp_connect", "target": f"localhost:{ports.closed}"},
    ]
    modules = {"https_own": {"prober": "http", "http": own_ca}}
    modules["tls_own"] = {"prober": "tcp", "tcp": {"tls": True, **own_ca}}
    own = {
        "blackbox_exporter_port": ports.exporter,
        "blackbox_exporter_extra_modules": modules,
        # A ping needs a right that who runs the tests may not have.
        "blackbox_exporter_probe_hosts": ["icmp"] if os.geteuid() == 0 else [],
    }
    address = {"ansible_host": "127.0.0.1"}
    return {
        "blackbox_exporter": {"hosts": {"monitor": address}, "vars": own},
        "node_exporter": {"hosts": {"web": address | {"blackbox_probes": probes}}},
    }


@contextmanager
def running(log: Path, *command: str | Path) -> Iterator[None]:
    with log.open("w") as stream:
        process = subprocess.Popen([str(word) for word in command], stdout=stream, stderr=stream)  # noqa: S603
    try:
        yield
    finally:
        process.kill()
        process.wait(10)


def test_what_is_probed_is_seen_and_alerted_on(exporter: Path, ports: Ports, tmp_path: Path) -> None:
    inventory = inventory_of(tmp_path, ports)
    modules = inventory["blackbox_exporter"]["vars"]["blackbox_exporter_extra_modules"]
    assert check(exporter, tmp_path, DEFAULTS["blackbox_exporter_modules"] | modules).returncode == 0
    jobs = {job.name: job for job in fleet_of(tmp_path, inventory).scrape_jobs()}
    for name in ("blackbox", "blackbox_exporter"):
        (tmp_path / f"{name}.json").write_text(jobs[name].file_sd())
    at_once = {name: "0s" for name in alert_variables("blackbox_exporter") if name.endswith("_for")}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(render("blackbox_exporter", **at_once)))
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            {"job_name": name, "file_sd_configs": [{"files": [f"{name}.json"]}], **jobs[name].config}
            for name in ("blackbox", "blackbox_exporter")
        ],
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def results(expression: str) -> dict[str, float]:
        answer = call("GET", f"{url}/api/v1/query?query={expression}").json["data"]["result"]
        return {series["metric"]["name"]: float(series["value"][1]) for series in answer}

    def firing() -> set[tuple[str, str]]:
        alerts = call("GET", f"{url}/api/v1/alerts").json["data"]["alerts"]
        return {
            (a["labels"]["alertname"], a["labels"].get("name", "")) for a in alerts if a["state"] == "firing"
        }

    expected = {
        **dict.fromkeys(("page", "shop", "tls", "ssh", "open"), 1.0),
        **dict.fromkeys(("broken", "untrusted", "plain", "web_is_no_ssh", "closed"), 0.0),
    }
    if os.geteuid() == 0:
        expected["icmp"] = 1.0
    alerts = {
        *(("ProbeFailed", name) for name, success in expected.items() if not success),
        *(
            (f"ProbeCertificate{state}", name)
            for state in ("Expiring", "AlmostExpired")
            for name in ("shop", "tls")
        ),
    }
    with (
        running(
            tmp_path / "exporter.log",
            exporter,
            f"--config.file={tmp_path / 'blackbox.yml'}",
            f"--web.listen-address=127.0.0.1:{ports.exporter}",
        ),
        running(
            tmp_path / "prometheus.log",
            tools.BIN / "prometheus",
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ),
    ):
        wait_until(lambda: answers(f"{url}/-/ready"), 60, "Prometheus answers")
        wait_until(lambda: results("probe_success").keys() == expected.keys(), 90, "every probe has a result")
        wait_until(lambda: results("probe_success") == expected, 90, "they are as expected")
        assert results("probe_http_status_code")["broken"] == 503
        # A target that is down is no target of Prometheus that is down.
        assert set(results('up{job="blackbox"}').values()) == {1.0}
        wait_until(lambda: firing() == alerts, 90, f"{alerts} fire")
