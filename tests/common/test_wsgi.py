"""gunicorn with a Unix socket: nobody can connect before the worker is there."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SERVICE = """
import sys, time
from pathlib import Path
from flask import Flask
from fleetwatch.common.wsgi import Basics, Program

def load(argv):
    while not Path(argv[1]).exists():
        time.sleep(0.05)
    return Flask("slow")

Program("slow", lambda argv: Basics("", 0, 1, "INFO", argv[0]), load, lambda app: None).run()
"""


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_socket_is_open_once_the_worker_is_there(tmp_path: Path) -> None:
    socket, go = tmp_path / "s.sock", tmp_path / "go"
    service = subprocess.Popen([sys.executable, "-c", SERVICE, str(socket), str(go)])  # noqa: S603 - ours
    try:
        wait(socket.exists)
        assert socket.stat().st_mode & 0o777 == 0
        go.touch()
        wait(lambda: socket.stat().st_mode & 0o777 == 0o777)
    finally:
        service.terminate()
        service.wait(90)
    assert not socket.exists()
