"""The collector as a process: what Prometheus gets, wrong settings, SIGTERM."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fleetwatch.collector.plan import COLLECTORS, Plan
from fleetwatch.collector.settings import Settings
from fleetwatch.common.settings import SettingsError, read
from tests.common.services import Service, call, free_port, wait_until


def settings_of(**values: object) -> Plan:
    return Settings.model_validate(values).plan()


MakeService = Callable[..., Service]


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[MakeService]:
    started: list[Service] = []

    def make(**settings: Any) -> Service:
        values = {"port": free_port(), "listen_address": "127.0.0.1", **settings}
        started.append(Service("collector", values, tmp_path))
        return started[-1]

    yield make
    for service in started:
        service.kill()


def url(service: Service, path: str = "/metrics") -> str:
    return f"http://127.0.0.1:{service.config['port']}{path}"


def page_with_use(service: Service) -> str:
    text = call("GET", url(service)).text
    return text if "\ngauge_cpu_usage{" in text else ""


def test_the_page_is_well_formed_and_complete(collector: MakeService, promtool: str) -> None:
    service = collector()
    service.start(url(service, "/readyz"))
    assert call("GET", url(service, "/healthz")).status == 200
    page = wait_until(lambda: page_with_use(service), what="use is known from a second round on")
    checked = subprocess.run(  # noqa: S603 - all arguments are ours
        [promtool, "check", "metrics"], input=page, capture_output=True, text=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    families = {family.name: family for family in text_string_to_metric_families(page)}
    for name, kind in (("cpu", "CPU"), ("mem", "Memory"), ("disk", "Disk")):
        (sample,) = families[f"gauge_{name}_usage"].samples
        assert sample.labels == {"type": kind}
        assert 0 <= sample.value <= 100
    success = {
        sample.labels["collector"]: sample.value for sample in families["metrics_collector_success"].samples
    }
    assert success == dict.fromkeys(COLLECTORS, 1)
    assert service.terminate() == 0
    assert [event["event"] for event in service.events()] == ["started", "stopped"]


@pytest.mark.slow
def test_on_an_interval(collector: MakeService) -> None:
    service = collector(interval=0.1, collectors="load,memory")
    service.start(url(service, "/readyz"))

    def rounds() -> set[str]:
        text = call("GET", url(service)).text
        return {line for line in text.splitlines() if "_last_success_timestamp_seconds{" in line}

    first = rounds()
    assert len(first) == 2
    wait_until(lambda: not rounds() & first, what="another round")
    assert "host_cpu" not in call("GET", url(service)).text
    assert service.terminate() == 0


HANGING = """
import os, threading
real = os.statvfs

def statvfs(path):
    if path == "/" and os.path.exists(os.environ["SERVER_IS_AWAY"]):
        threading.Event().wait()
    return real(path)

os.statvfs = statvfs
"""
"""What a file system does whose server is away; the interpreter imports it at its start."""


@pytest.mark.slow
def test_a_file_system_that_hangs_costs_neither_scrapes_nor_threads_nor_the_stop(
    collector: MakeService, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HANGING)
    away = tmp_path / "away"
    service = collector(collector_timeout=0.5)
    path = f"{tmp_path}:{service.environment['PYTHONPATH']}"
    service.variables = {"PYTHONPATH": path, "SERVER_IS_AWAY": str(away)}
    service.start(url(service, "/readyz"))
    assert 'gauge_disk_usage{type="Disk"}' in call("GET", url(service)).text
    away.touch()
    wait_until(lambda: "gauge_disk_usage{" not in call("GET", url(service)).text, what="it hangs")
    assert service.process is not None
    tasks = Path(f"/proc/{service.process.pid}/task")
    most = 0
    for _ in range(30):
        page = call("GET", url(service)).text
        most = max(most, len(list(tasks.iterdir())))
        assert re.search(r'host_filesystem_error\{.*mountpoint="/"\} 1', page)
        assert 'metrics_collector_success{collector="filesystem"} 1' in page
        assert "host_load1 " in page
    assert most <= 8, "main, server, a request or two, a round, and the one that hangs"
    assert service.terminate() == 0


@pytest.mark.slow
def test_no_request_brings_a_traceback(collector: MakeService) -> None:
    service = collector(collectors="load")
    service.start(url(service, "/readyz"))
    for method, path in (
        ("GET", "/"),
        ("GET", "/metrics/../etc/passwd"),
        ("GET", "/metrics?a=%00"),
        ("POST", "/metrics"),
        ("DELETE", "/metrics"),
        ("GET", "/" + 3000 * "x"),
    ):
        answer = call(method, url(service, path), headers={"Accept": "application/openmetrics-text;q=x"})
        assert "Traceback" not in answer.text
    assert call("GET", url(service)).status == 200
    assert service.terminate() == 0
    assert "Traceback" not in service.log.read_text()


@pytest.mark.slow
def test_a_port_in_use_is_one_line(collector: MakeService) -> None:
    first = collector(collectors="load")
    first.start(url(first, "/readyz"))
    second = collector(port=first.config["port"])
    done = second.run()
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f'metrics_collector: setting "port": cannot listen on 127.0.0.1 port {first.config["port"]}: '
        "Address already in use"
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("collectors: [cpu, memry]", 'setting "collectors": "memry" is no collector; there are cpu, memory'),
        ("collectors: []", 'setting "collectors"'),
        ("collector_timeouts: {nfs: 3}", 'setting "collector_timeouts": "nfs" is no collector'),
        ("mount_points_exclude: '(/mnt'", 'setting "mount_points_exclude": is not a regular expression'),
        ("disk_usage_mount_point: home", 'setting "disk_usage_mount_point"'),
        ("interval: -1", 'setting "interval"'),
        ("interval: .inf", 'setting "interval"'),
        ("colector_timeout: 1", 'unknown setting "colector_timeout": did you mean "collector_timeout"?'),
        ("{collector_timeout: 9, round_timeout: 5}", 'setting "round_timeout": 5 is less than the 9'),
        ("collector_timeouts: {filesystem: 30}", 'setting "round_timeout": 3 is less than the 30'),
    ],
)
def test_wrong_settings_are_one_line(tmp_path: Path, settings: str, message: str) -> None:
    file = tmp_path / "collector.yml"
    file.write_text(settings)
    with pytest.raises(SettingsError) as caught:
        read(Settings, file)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_collectors_run_in_their_order_whatever_the_settings_say() -> None:
    assert settings_of(collectors=["load", "cpu", "load"]).collectors == ["cpu", "load"]
    assert settings_of(collector_timeouts={"filesystem": 3}).timeout("filesystem") == 3
    assert settings_of().timeout("filesystem") == 2
