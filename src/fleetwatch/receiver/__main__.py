"""``python3 -m fleetwatch.receiver --config FILE``: the receiver under gunicorn, in production.

One worker process with threads: all commits go through one thread anyway, and one process keeps the memory
small. For the same reason the master, which only watches the worker, loads neither settings models nor
database: a child that ends at once checks both and tells the master the few values it needs.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]

from fleetwatch.common import logs

if TYPE_CHECKING:
    from flask import Flask

SERVICE = "alert_receiver"


class _Logger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Let gunicorn's events take the way of all others; requests are counted, not logged."""

    def setup(self, cfg: Any) -> None:  # noqa: ARG002 - the signature is gunicorn's
        """Leave the handlers to the root logger."""
        self.error_log.propagate = True

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Log nothing."""


class _Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, argv: Sequence[str], basics: dict[str, Any]) -> None:
        self._argv = argv
        self._basics = basics
        super().__init__(prog=SERVICE)

    def load_config(self) -> None:
        """Configure gunicorn from the settings; nothing is read from its own files or environment."""
        options = {
            "bind": self._basics["bind"],
            "workers": 1,
            "worker_class": "gthread",
            "threads": self._basics["threads"],
            "graceful_timeout": 15,
            "keepalive": 65,  # longer than Alertmanager's idle connections between two flushes of a group
            "logger_class": _Logger,
            "control_socket_disable": True,  # it would be a file in $HOME
            "post_worker_init": _worker_started,
            "worker_exit": _worker_exits,
        }
        for name, value in options.items():
            if name in self.cfg.settings:  # older versions do not know control_socket_disable
                self.cfg.set(name, value)

    def load(self) -> Flask:
        """Build the application in the worker."""
        from fleetwatch.common import tracing  # noqa: PLC0415 - see the module's description
        from fleetwatch.common.settings import load  # noqa: PLC0415
        from fleetwatch.receiver.app import create_app  # noqa: PLC0415
        from fleetwatch.receiver.settings import ReceiverSettings  # noqa: PLC0415

        settings = load(ReceiverSettings, SERVICE, self._argv)
        tracing.setup(SERVICE, settings.otlp_endpoint)
        return create_app(settings)


def _worker_started(_worker: Any) -> None:
    """Leave what never goes away out of the garbage collector's rounds."""
    gc.collect()
    gc.freeze()


def _worker_exits(_server: Any, worker: Any) -> None:
    """Commit what is under way, and close the store."""
    app = getattr(worker, "wsgi", None)
    if app is not None:
        app.extensions["receiver"].close()


def check(argv: Sequence[str] | None) -> dict[str, Any]:
    """Check settings and store; end the program with one line when they are wrong.

    Returns what the master needs.
    """
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - see the module's description

    from fleetwatch.common.settings import fail, load  # noqa: PLC0415
    from fleetwatch.receiver.settings import ReceiverSettings  # noqa: PLC0415
    from fleetwatch.store import SchemaError, Store  # noqa: PLC0415

    settings = load(ReceiverSettings, SERVICE, argv)
    try:
        Store(settings.database_url, settings.database_password).close()
    except SchemaError as error:
        fail(SERVICE, str(error))
    except SQLAlchemyError as error:
        reason = getattr(error, "orig", None) or error
        fail(SERVICE, f'setting "database_url": cannot open {settings.database_url}: {reason}')
    address = settings.listen_address
    host = f"[{address}]" if ":" in address else address
    return {
        "bind": f"{host}:{settings.port}",
        "threads": settings.threads,
        "log_level": settings.log_level,
    }


def _in_child(argv: Sequence[str] | None) -> dict[str, Any]:
    """Run ``check`` in a child; end as it does unless it finds all well."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(read)
            os.write(write, json.dumps(check(argv)).encode())
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code or not told:  # --check and --help end well and tell nothing
        sys.exit(code)
    basics: dict[str, Any] = json.loads(told)
    return basics


def main(argv: Sequence[str] | None = None) -> None:
    """Run the receiver until SIGTERM."""
    argv = list(sys.argv[1:] if argv is None else argv)
    basics = _in_child(argv)
    logs.setup(SERVICE, basics["log_level"])
    _Server(argv, basics).run()


if __name__ == "__main__":
    main(sys.argv[1:])
