"""The dead man's switch with the real Alertmanager, configured as the role does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.plugins.filter.core import FilterModule
from ansible.plugins.filter.mathstuff import FilterModule as MathFilters
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tests.common.services import MailboxServer, free_port, run_mailbox, wait_until
from tests.contract.alertmanager import TOKEN, Alertmanager
from tests.contract.conftest import Start
from tests.faults.provider import Provider
from tests.faults.stack import Stack

pytestmark = pytest.mark.slow

ROLE = Path(__file__).parents[2] / "roles/alertmanager"
TIMEOUT = 6.0
INTERVAL = 2
MISSING = ("WatchdogMissing", "firing")
BACK = ("WatchdogMissing", "resolved")


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def settings(port: int) -> dict[str, Any]:
    """Expect heartbeats, and ask Alertmanager, which does not know of WatchdogMissing, often."""
    return {
        "watchdog_timeout": TIMEOUT,
        "watchdog_expected": True,
        "alertmanagers": [f"http://127.0.0.1:{port}"],
        "reconcile_interval": 0.3,
        "reconcile_grace": 0.5,
    }


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[MailboxServer]:
    """Run what stands for a dead man's switch outside the fleet."""
    (tmp_path / "outside").mkdir()
    with run_mailbox(tmp_path / "outside") as server:
        yield server


def _config(receiver: str, **variables: Any) -> dict[str, Any]:
    """Return routes and receivers as the role writes them."""
    environment = Environment(
        loader=FileSystemLoader(ROLE / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - YAML
    )
    environment.filters |= FilterModule().filters() | MathFilters().filters()
    values = {
        name: value
        for part in ("defaults", "vars")
        for name, value in yaml.safe_load((ROLE / part / "main.yml").read_text()).items()
    }
    values |= {
        "query": lambda *_: [{"url": receiver, "host": "receiver"}],
        "alertmanager_receiver_tokens": {"receiver": TOKEN},
        "alertmanager_heartbeat_files": {},
        "alertmanager_watchdog_interval": INTERVAL,
        **variables,
    }
    config: dict[str, Any] = yaml.safe_load(environment.get_template("alertmanager.yml.j2").render(values))
    for found in config["receivers"]:
        for webhook in found.get("webhook_configs", []):
            if file := webhook.pop("url_file", None):  # which Debian 12's cannot read
                webhook["url"] = values["alertmanager_heartbeat_files"][
                    file.removeprefix("/etc/alertmanager/")
                ]
            if "http_config" in webhook:
                webhook["http_config"] = {"authorization": {"credentials": TOKEN}}
    config["route"] |= {"group_wait": "100ms", "group_interval": "1s"}
    return config


def _beat(am: Alertmanager) -> None:
    """Tell it, as Prometheus does again and again, that the Watchdog fires."""
    am.fire("Watchdog", severity="info")


def _wait_heartbeat(stack: Stack) -> None:
    before = stack.metric("alert_receiver_heartbeats_total")
    wait_until(lambda: stack.metric("alert_receiver_heartbeats_total") > before, what="a heartbeat")


def _wait_told(provider: Provider, *told: tuple[str, str]) -> None:
    wait_until(lambda: provider.known >= set(told), TIMEOUT + 10, f"told: {told}")


def test_alertmanager_dies_and_comes_back(
    start: Start, stack: Stack, provider: Provider, port: int, outside: MailboxServer
) -> None:
    files = {"credentials/heartbeat-url-0": f"{outside.url}/hooks/dead-mans-switch"}
    am = start(port=port, config=_config(stack.url, alertmanager_heartbeat_files=files))
    _beat(am)
    for _ in range(4):  # for longer than the timeout
        _wait_heartbeat(stack)
    wait_until(lambda: len(outside.messages()) >= 3, what="heartbeats outside")
    assert {(each["via"], *each["recipients"]) for each in outside.messages()} == {
        ("webhook", "dead-mans-switch")
    }
    assert stack.incidents() == []
    am.kill()
    died = time.monotonic()
    _wait_told(provider, MISSING)
    assert TIMEOUT - INTERVAL - 1 < time.monotonic() - died < TIMEOUT + 10
    heard = len(outside.messages())
    time.sleep(2)  # several reconciliations; this Alertmanager is the only one
    am.start()
    time.sleep(2)
    assert len(outside.messages()) == heard
    (incident,) = stack.incidents()
    assert (incident.status, incident.severity) == ("firing", "critical")
    _beat(am)
    _wait_told(provider, BACK)
    stack.wait_delivered()
    assert provider.told() == {MISSING: 1, BACK: 1}


def test_the_watchdog_is_told_to_nobody_and_alerts_as_ever(
    start: Start, stack: Stack, provider: Provider, port: int
) -> None:
    am = start(port=port, config=_config(stack.url, alertmanager_watchdog_receiver="null"))
    _beat(am)
    am.fire("A")
    _wait_heartbeat(stack)
    _wait_told(provider, ("A", "firing"))
    am.resolve("Watchdog", severity="info")  # as when Prometheus is silent
    _wait_told(provider, MISSING)
    assert provider.told() == {("A", "firing"): 1, MISSING: 1}
    assert [each.labels["alertname"] for each in stack.incidents()] == ["A", "WatchdogMissing"]


def test_one_that_never_came_up(start: Start, stack: Stack, provider: Provider, port: int) -> None:
    _wait_told(provider, MISSING)
    (incident,) = stack.incidents()
    assert "has never come" in incident.annotations["description"]
    _beat(start(port=port, config=_config(stack.url)))
    _wait_told(provider, BACK)
    assert provider.told() == {MISSING: 1, BACK: 1}


def test_a_silence_that_holds_it_back_is_noticed(
    start: Start, stack: Stack, provider: Provider, port: int
) -> None:
    am = start(port=port, config=_config(stack.url))
    _beat(am)
    _wait_heartbeat(stack)
    silence = am.silence("alertname=~.+")
    _wait_told(provider, MISSING)
    am.amtool("silence", "expire", silence)
    _wait_told(provider, BACK)
    assert provider.told() == {MISSING: 1, BACK: 1}


def test_receiver_and_dispatcher_killed_neither_lose_nor_double_it(
    start: Start, stack: Stack, provider: Provider, port: int
) -> None:
    am = start(port=port, config=_config(stack.url))
    _beat(am)
    _wait_heartbeat(stack)
    am.kill()
    for _ in range(3):
        time.sleep(TIMEOUT / 4)
        stack.dispatcher.kill()
    stack.receiver.kill()
    wait_until(lambda: provider.known >= {MISSING}, 60, "told")
    stack.dispatcher.kill()
    stack.wait_ready()
    am.start()
    _beat(am)
    wait_until(lambda: provider.known >= {BACK}, 60, "told")
    stack.wait_delivered()
    assert len(stack.incidents()) == 1
    # A kill just after the provider took a message may cost a second copy.
    assert provider.duplicates() <= 1
