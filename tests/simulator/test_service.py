"""The service as it is started: settings, signals, and the command that controls it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from fleetwatch.simulator.__main__ import main

from .conftest import Gateway

pytestmark = pytest.mark.slow

SOURCE = str(Path(__file__).parents[2] / "src")
TOKEN = "0123456789abcdef"  # noqa: S105 - made up


def write(tmp_path: Path, **settings: object) -> str:
    path = tmp_path / "simulator.yml"
    path.write_text(json.dumps(settings))  # JSON is YAML
    return str(path)


def check(tmp_path: Path, capsys: pytest.CaptureFixture[str], **settings: object) -> tuple[object, str]:
    code: object
    try:
        code = main(["--check", "--config", write(tmp_path, **settings)])
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr().err


def test_good_settings_pass_the_check_and_touch_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("STATE_DIRECTORY", str(home))
    settings: dict[str, Any] = {
        "host_count": 4,
        "incidents": [{"scenario": "cpu-high", "hosts": ["sim-web-02"]}],
    }
    assert check(tmp_path, capsys, **settings) == (0, "")
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mode": "pull"}, ['"mode"', "'push' or 'serve'"]),
        ({"interval": 0}, ['"interval"']),
        ({"hosts": ["a b"]}, ['"hosts"', "a b"]),
        ({"hosts": ["a", "a"]}, ['"hosts"', "twice"]),
        ({"pushgateway_url": "pushgateway:9091"}, ['"pushgateway_url"', "http://host:9091"]),
        ({"pushgateway_url": "http://u:p@h:9091"}, ['"pushgateway_url"']),
        ({"control_token": TOKEN}, ["control_token", "$CREDENTIALS_DIRECTORY"]),
        ({"incidents": [{"scenario": "cpu-hihg"}]}, ['"incidents.0"', "cpu-hihg", "cpu-high"]),
        ({"incidents": [{"scenario": "cpu-high", "hosts": ["x"]}]}, ['"incidents.0"', '"x"']),
        ({"incidents": [{"scenario": "cpu-high", "lenght": 5}]}, ['"incidents.0.lenght"']),
        ({"scenario_directories": ["/nowhere"]}, ["/nowhere"]),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, object], words: list[str]
) -> None:
    code, err = check(tmp_path, capsys, **settings)
    assert code == 2
    assert err.startswith("metrics_simulator: ")
    assert err.count("\n") == 1
    assert [word for word in words if word not in err] == []


def test_a_short_token_is_refused_without_showing_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "control_token").write_text("hunter2\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    code, err = check(tmp_path, capsys)
    assert code == 2
    assert '"control_token"' in err
    assert "at least 16" in err
    assert "hunter2" not in err


class Service:
    """The simulator as a process of its own."""

    def __init__(self, tmp_path: Path, **settings: object) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.home = tmp_path / "home"
        self.home.mkdir(exist_ok=True)
        (tmp_path / "control_token").write_text(TOKEN + "\n")
        config = write(tmp_path, listen_address="127.0.0.1", port=self.port, interval=0.2, **settings)
        self.process = subprocess.Popen(  # noqa: S603 - this Python
            [sys.executable, "-m", "fleetwatch.simulator", "--config", config],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": SOURCE,
                "STATE_DIRECTORY": str(self.home),
                "CREDENTIALS_DIRECTORY": str(tmp_path),
            },
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until_ready(self) -> None:
        for _ in range(200):
            try:
                with urlopen(f"{self.url}/readyz", timeout=5):  # noqa: S310 - loopback
                    return
            except URLError:
                time.sleep(0.05)
        raise AssertionError("not ready within 10 s")

    def metrics(self) -> str:
        with urlopen(f"{self.url}/metrics", timeout=5) as response:  # noqa: S310 - loopback
            return str(response.read().decode())

    def stop(self) -> tuple[int, list[dict[str, Any]]]:
        """Return the exit code and the log events."""
        self.process.send_signal(signal.SIGTERM)
        _, err = self.process.communicate(timeout=10)
        return self.process.returncode, [json.loads(line) for line in err.splitlines()]


@pytest.fixture
def services() -> Iterator[list[Service]]:
    started: list[Service] = []
    yield started
    for service in started:
        if service.process.poll() is None:
            service.process.kill()
            service.process.communicate()


def test_push_mode_from_start_to_stop(
    tmp_path: Path,
    gateway: Gateway,
    services: list[Service],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = Service(tmp_path, pushgateway_url=gateway.url, host_count=2)
    services.append(service)
    service.wait_until_ready()
    assert gateway.hosts() == {"sim-web-01", "sim-db-01"}
    assert "metrics_simulator_hosts 2.0" in service.metrics()
    assert "custom_cpu_usage" not in service.metrics()

    control = ["incident", "--url", service.url, "--token-file", str(tmp_path / "control_token")]
    assert main([*control, "play", "host-silent", "--host", "sim-web-*", "--duration", "60"]) == 0
    played = json.loads(capsys.readouterr().out)
    assert played["hosts"] == ["sim-web-01"]
    for _ in range(100):
        if gateway.hosts() == {"sim-db-01"}:
            break
        time.sleep(0.02)
    assert gateway.hosts() == {"sim-db-01"}
    assert main([*control, "end", played["id"]]) == 0
    assert main([*control, "list"]) == 0
    assert json.loads(capsys.readouterr().out.split("]\n")[-2] + "]") == []
    assert main([*control, "play", "nonsense"]) == 1
    assert "nonsense" in capsys.readouterr().err
    assert main(["incident", "--url", service.url, "list"]) == 1
    assert "token" in capsys.readouterr().err

    code, events = service.stop()
    assert code == 0
    assert gateway.groups == {}
    assert [event["event"] for event in events] == [
        "started",
        "pushing",
        "incident played",
        "incident ended",
        "groups deleted",
        "stopped",
    ]
    assert TOKEN not in json.dumps(events)
    assert json.loads((service.home / "state.json").read_text())["groups"] == []


def test_serve_mode_survives_kill_with_its_counters(tmp_path: Path, services: list[Service]) -> None:
    def received(service: Service) -> float:
        services.append(service)
        service.wait_until_ready()
        (line,) = [
            line
            for line in service.metrics().splitlines()
            if line.startswith("node_network_receive_bytes_total") and 'host="sim-web-01"' in line
        ]
        return float(line.split()[-1])

    flood = [{"scenario": "network-flood", "hosts": ["sim-web-01"], "strength": 1e12, "duration": 600}]
    service = Service(tmp_path, mode="serve", incidents=flood)
    before = received(service)
    time.sleep(0.1)
    service.process.kill()
    service.process.communicate()
    assert received(Service(tmp_path, mode="serve")) > before
    assert services[-1].stop()[0] == 0


def test_a_port_in_use_is_one_line(tmp_path: Path, services: list[Service]) -> None:
    service = Service(tmp_path, mode="serve")
    services.append(service)
    service.wait_until_ready()
    second = subprocess.run(  # noqa: S603 - this Python
        [sys.executable, "-m", "fleetwatch.simulator", "--config", tmp_path / "simulator.yml"],
        check=False,
        env={"PYTHONPATH": SOURCE},
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert f"port {service.port}" in second.stderr
