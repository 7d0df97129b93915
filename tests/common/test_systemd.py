"""What systemd hears of a service that has a watchdog."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetwatch.common.systemd import ServiceWatchdog


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.setblocking(False)
        yield heard


def heard(systemd: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(systemd.recv(100))
        except BlockingIOError:
            return found


def environment(systemd: socket.socket, seconds: float, pid: int = 0) -> dict[str, str]:
    return {
        "NOTIFY_SOCKET": systemd.getsockname(),
        "WATCHDOG_USEC": str(int(seconds * 1e6)),
        "WATCHDOG_PID": str(pid or os.getpid()),
    }


def test_it_is_told_a_few_times_in_each_period(systemd: socket.socket) -> None:
    watchdog = ServiceWatchdog(environment(systemd, 0.4))
    watchdog.alive()
    watchdog.alive()
    assert heard(systemd) == [b"WATCHDOG=1"]
    time.sleep(0.11)
    watchdog.alive()
    assert heard(systemd) == [b"WATCHDOG=1"]


def test_nothing_is_said_where_nobody_asks(systemd: socket.socket) -> None:
    ServiceWatchdog({}).alive()
    ServiceWatchdog({"NOTIFY_SOCKET": systemd.getsockname()}).alive()
    ServiceWatchdog(environment(systemd, 0.4, pid=1)).alive()
    assert heard(systemd) == []


def test_a_systemd_that_does_not_listen_is_no_fault(tmp_path: Path) -> None:
    ServiceWatchdog({"NOTIFY_SOCKET": str(tmp_path / "none"), "WATCHDOG_USEC": "1000"}).alive()
