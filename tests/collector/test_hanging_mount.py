"""A file system that really hangs in the kernel, and the collector beside it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.common.services import SOURCE, answers, call, free_port, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount; test_service does without"),
    pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="this kernel has no FUSE"),
]
RUNNER = Path(__file__).with_name("hanging_mount.py")
# Namespaces of its own: nothing else on this machine meets the mount, and all in them dies with the first.
APART = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"]


class Collector:
    """The collector, with a mount that never answers."""

    def __init__(self, directory: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.mount = directory / "mount"
        self.mount.mkdir()
        self.log = directory / "log"
        config = directory / "collector.yml"
        config.write_text(yaml.safe_dump({"port": port, "listen_address": "127.0.0.1"}))
        service = [sys.executable, "-m", "fleetwatch.collector", "--config", str(config)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                [*APART, sys.executable, str(RUNNER), str(self.mount), *service],
                env=os.environ | {"PYTHONPATH": str(SOURCE)},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )

    def page(self) -> str:
        return call("GET", f"{self.url}/metrics").text

    def error(self) -> str:
        """Return what the page says of the mount."""
        found = re.search(rf'host_filesystem_error\{{.*mountpoint="{self.mount}"\}} (\S+)', self.page())
        return found[1] if found else ""

    @property
    def first(self) -> int:
        """Process 1 of the namespaces, as this machine counts."""
        return _child(self.process.pid)

    @property
    def threads(self) -> int:
        return len(list(Path(f"/proc/{_child(self.first)}/task").iterdir()))

    def started(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return answers(f"{self.url}/readyz")


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()[0])


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    started = Collector(tmp_path)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait(30)


def test_all_else_is_told_and_the_service_ends_when_it_should(collector: Collector) -> None:
    wait_until(collector.started)
    for _ in range(20):
        assert collector.error() == "1.0"
    assert collector.threads <= 8, "main, server, a request or two, a round, and the one that hangs"
    page = collector.page()
    assert 'gauge_disk_usage{type="Disk"}' in page
    assert 'metrics_collector_success{collector="filesystem"} 1.0' in page
    ask = ["nsenter", f"--target={collector.first}", "--mount", "stat", "--file-system", str(collector.mount)]
    hanging = subprocess.run(["timeout", "0.5", *ask], capture_output=True, check=False)  # noqa: S603, S607
    assert hanging.returncode == 124, "it does not hang at all"

    os.kill(collector.first, signal.SIGTERM)
    wait_until(lambda: '"stopped"' in collector.log.read_text(), what="it stops, hang or no hang")
    assert collector.process.stdin is not None
    collector.process.stdin.close()
    assert collector.process.wait(60) == 0
