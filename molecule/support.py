"""What the tests of all scenarios use: the hosts, their APIs, and playbooks on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import testinfra
import yaml
from testinfra.host import Host

from lab.alert import ApiError, Tokens, Urls, call

ROOT = Path(__file__).resolve().parent.parent
SCENARIO = os.environ.get("MOLECULE_SCENARIO_NAME", "default")
SETTINGS = yaml.safe_load((ROOT / "molecule/group_vars/all.yml").read_text())
READER = SETTINGS["alert_receiver_users"][0]
"""The user of the alert receiver who reads and acts, as its role takes it."""
TOKENS = Tokens(SETTINGS["metrics_simulator_control_token"], READER["password"])
PLAYBOOK_TIMEOUT = 900

T = TypeVar("T")


def wait_for(look: Callable[[], T], seconds: float = 60) -> T:
    """Return what ``look`` returns as soon as that is true; a failing API counts as not yet."""
    deadline = time.monotonic() + seconds
    seen: object = None
    while time.monotonic() < deadline:
        try:
            found = look()
            if found:
                return found
            seen = found
        except (ApiError, AssertionError) as error:
            seen = error
        time.sleep(0.3)
    raise AssertionError(f"not within {seconds} s; last seen: {seen}")


@dataclass(frozen=True)
class Run:
    """What a playbook run said."""

    code: int
    output: str

    @property
    def error(self) -> str:
        """What went wrong, without all that went well."""
        return self.output.partition("[ERROR]")[2].partition("PLAY RECAP")[0]

    @property
    def changed(self) -> dict[str, int]:
        """Host to number of changed tasks."""
        recap = self.output.partition("PLAY RECAP")[2]
        lines = [line.split() for line in recap.splitlines() if "changed=" in line]
        return {
            line[0]: int(next(word for word in line if word.startswith("changed=")).partition("=")[2])
            for line in lines
        }


def run_playbook(
    playbook: str,
    inventories: Iterable[Path],
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    seconds: float = PLAYBOOK_TIMEOUT,
) -> Run:
    """Run a playbook of the checkout; of two inventories the later wins."""
    chosen = [word for inventory in inventories for word in ("-i", str(inventory))]
    done = subprocess.run(
        ["ansible-playbook", *chosen, str(ROOT / playbook), *arguments],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_FORCE_COLOR": "0", "NO_COLOR": "1", **(environment or {})},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds,
        check=False,
    )
    return Run(done.returncode, done.stdout)


class Fleet:
    """The hosts of the scenario."""

    @cached_property
    def _directory(self) -> Path:
        return ROOT / ".cache/hosts" / f"molecule-{SCENARIO}"

    @cached_property
    def _addresses(self) -> dict[str, str]:
        instances = yaml.safe_load(Path(os.environ["MOLECULE_INSTANCE_CONFIG"]).read_text())
        return {instance["instance"]: instance["address"] for instance in instances}

    def host(self, name: str) -> Host:
        """Return testinfra's view of a host."""
        return testinfra.get_host(f"ssh://{name}?ssh_config={self._directory / 'ssh_config'}")

    def url(self, name: str, port: int) -> str:
        """Return the URL of a service on a host."""
        return f"http://{self._addresses[name]}:{port}"

    @property
    def urls(self) -> Urls:
        """Return where the stations of an alert answer."""
        return Urls(
            simulator=self.url("simulator", 9101),
            prometheus=self.url("monitor", 9090),
            alertmanager=self.url("monitor", 9093),
            receiver=self.url("receiver", 5001),
            mailbox=self.url("receiver", 8025),
        )

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of an instant query to Prometheus."""
        answer = call("GET", f"{self.url('monitor', 9090)}/api/v1/query?{urlencode({'query': expression})}")
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def messages(self, text: str) -> list[dict[str, Any]]:
        """Return everything in the mailbox that holds ``text``, whichever way it came."""
        answer = call("GET", f"{self.urls.mailbox}/api/messages?{urlencode({'q': text})}")
        found: list[dict[str, Any]] = answer["messages"]
        return found

    def mails(self, text: str) -> list[dict[str, Any]]:
        """Return the mails through SendGrid whose subject holds ``text``."""
        messages = call("GET", f"{self.urls.mailbox}/api/messages")["messages"]
        return [
            message for message in messages if message["via"] == "sendgrid" and text in message["subject"]
        ]

    def post_alert(self) -> str:
        """Post an alert to the receiver with Alertmanager's token, wait for its 2xx, return its name."""
        name = f"Test{uuid.uuid4().hex[:12]}"
        alert = {"status": "firing", "labels": {"alertname": name, "severity": "critical"}}
        token = SETTINGS["alert_receiver_webhook_token"]
        call("POST", f"{self.urls.receiver}/alerts", {"alerts": [alert]}, token)
        return name

    def visit_shop(self) -> None:
        """Ask the transactions service for some of everything, whatever it answers."""
        url = self.url("shop", 8000)
        for method, path, body in (
            ("GET", "transactions", None),
            ("POST", "transactions/create", {"amount": "1.50", "currency": "EUR"}),
            ("GET", "error", None),
        ):
            with suppress(ApiError):
                call(method, f"{url}/{path}", body)

    def reboot(self, name: str) -> None:
        """Restart a host, as a power cycle does."""
        command = [sys.executable, "-m", "lab.hosts", "restart", f"molecule-{SCENARIO}", name]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)

    def play(self, *arguments: str, playbook: str = "site.yml", inventory: Path | None = None) -> Run:
        """Run a playbook on the scenario's inventory, with another inventory after it."""
        inventories = [Path(os.environ["MOLECULE_INVENTORY_FILE"]), *([inventory] if inventory else [])]
        return run_playbook(playbook, inventories, *arguments)

    def play_with(self, variables: dict[str, Any], *arguments: str, **options: Any) -> Run:
        """Run a playbook with variables from the command line."""
        return self.play("--extra-vars", json.dumps(variables), *arguments, **options)
