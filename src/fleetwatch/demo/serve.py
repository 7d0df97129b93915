"""The API under gunicorn: requests come over a Unix socket from nginx, metrics are on a TCP port."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fleetwatch.common.wsgi import Basics, Program
from fleetwatch.demo import API

if TYPE_CHECKING:
    from flask import Flask

    from fleetwatch.demo.settings import Settings


def check(argv: Sequence[str]) -> Basics:
    """Check the settings and the places to listen; end the program with one line when they are wrong."""
    from fleetwatch.common.settings import fail  # noqa: PLC0415 - see fleetwatch.common.wsgi

    settings, instance = _read(argv)
    directory = settings.socket_directory
    if not directory.is_dir() or not os.access(directory, os.W_OK):
        fail(API, f'setting "socket_directory": {directory} is not a directory that this user may write to')
    port = settings.api_port + instance
    try:
        with socket.create_server((settings.listen_address, port), family=_family(settings.listen_address)):
            pass
    except OSError as error:
        fail(
            API,
            f'setting "api_port": instance {instance} cannot listen on {settings.listen_address} '
            f"port {port}: {error.strerror}",
        )
    return Basics("", 0, settings.threads, settings.log_level, str(_socket(directory, instance)))


def build(argv: Sequence[str]) -> Flask:
    """Build the application, and serve its metrics and health."""
    from fleetwatch.common import tracing  # noqa: PLC0415 - see fleetwatch.common.wsgi
    from fleetwatch.common.health import HealthServer  # noqa: PLC0415
    from fleetwatch.demo.app import create_app  # noqa: PLC0415

    settings, instance = _read(argv)
    tracing.setup(API, settings.otlp_endpoint)
    app = create_app(settings)
    api = app.extensions["transactions"]
    app.extensions["metrics"] = HealthServer(
        settings.listen_address, settings.api_port + instance, api.ready, api.registry
    )
    return app


def close(app: Flask) -> None:
    """Close the port and all connections."""
    app.extensions["metrics"].close()
    app.extensions["transactions"].close()


def _read(argv: Sequence[str]) -> tuple[Settings, int]:
    from fleetwatch.demo.cli import parse, settings_of  # noqa: PLC0415

    options = parse(argv)
    return settings_of(options, API), options.instance


def _socket(directory: Path, instance: int) -> Path:
    return directory / f"api-{instance}.sock"


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


PROGRAM = Program(API, check, build, close)
