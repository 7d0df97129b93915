"""``python3 -m fleetwatch.receiver --config FILE``: the receiver under gunicorn, in production.

One worker process with threads: SQLite has one writer anyway, and one process keeps the memory small.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]
from sqlalchemy.exc import SQLAlchemyError

from fleetwatch.common import logs
from fleetwatch.common.settings import fail, load
from fleetwatch.receiver.app import create_app
from fleetwatch.receiver.settings import AlertReceiverSettings
from fleetwatch.store import SchemaTooNewError, Store

SERVICE = "alert_receiver"


class _Logger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Let gunicorn's events take the way of all others; requests are counted, not logged."""

    def setup(self, cfg: Any) -> None:  # noqa: ARG002 - the signature is gunicorn's
        """Leave the handlers to the root logger."""
        self.error_log.propagate = True

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Log nothing."""


class _Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, settings: AlertReceiverSettings) -> None:
        self._settings = settings
        super().__init__(prog=SERVICE)

    def load_config(self) -> None:
        """Configure gunicorn from the settings; nothing is read from its own files or environment."""
        address = self._settings.listen_address
        host = f"[{address}]" if ":" in address else address
        options = {
            "bind": f"{host}:{self._settings.port}",
            "workers": 1,
            "worker_class": "gthread",
            "threads": self._settings.threads,
            "graceful_timeout": 15,
            "keepalive": 65,  # longer than Alertmanager's idle connections between two flushes of a group
            "logger_class": _Logger,
            "control_socket_disable": True,  # it would be a file in $HOME
        }
        for name, value in options.items():
            if name in self.cfg.settings:  # older versions do not know control_socket_disable
                self.cfg.set(name, value)

    def load(self) -> Flask:
        """Build the application in the worker: an open SQLite connection must not cross a fork."""
        return create_app(self._settings)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the receiver until SIGTERM."""
    settings = load(AlertReceiverSettings, SERVICE, argv)
    logs.setup(SERVICE, settings.log_level)
    try:
        Store(settings.database_url).close()
    except SchemaTooNewError as error:
        fail(SERVICE, str(error))
    except SQLAlchemyError as error:
        reason = getattr(error, "orig", None) or error
        fail(SERVICE, f'setting "database_url": cannot open {settings.database_url}: {reason}')
    _Server(settings).run()


if __name__ == "__main__":
    main(sys.argv[1:])
