"""gunicorn, as the web services run under it in production.

One worker process with threads keeps the memory small. For the same reason the master, which only watches
the worker, loads nothing of the service: a child that ends at once checks the settings and tells the master
the few values it needs. So a service's ``__main__`` imports its own modules inside of its functions.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]

from fleetwatch.common import logs
from fleetwatch.common.child import in_child

if TYPE_CHECKING:
    from flask import Flask

_NOBODY = 0o777  # as the umask of a socket: none may connect
_EVERYBODY = 0o777  # as its mode


@dataclass(frozen=True)
class Basics:
    """What the master must know."""

    address: str
    """Address to listen on."""
    port: int
    threads: int
    """Requests worked on at the same time."""
    log_level: str
    unix_socket: str | None = None
    """Path of a socket to listen on instead, for a proxy on the same host. Its directory says who may
    connect, as soon as the worker is there."""

    @property
    def bind(self) -> str:
        """Return where to listen, as gunicorn takes it."""
        if self.unix_socket is not None:
            return f"unix:{self.unix_socket}"
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


@dataclass(frozen=True)
class Program:
    """A web service."""

    name: str
    check: Callable[[Sequence[str]], Basics]
    """Checks the command line and all it leads to; ends the process with one line when something is wrong."""
    load: Callable[[Sequence[str]], Flask]
    """Builds the application, in the worker."""
    close: Callable[[Flask], None]
    """Ends it, in the worker."""

    def run(self, argv: Sequence[str] | None = None) -> None:
        """Serve until SIGTERM. ``argv`` are the arguments, by default those of this process."""
        argv = list(sys.argv[1:] if argv is None else argv)
        basics = Basics(**in_child(lambda: asdict(self.check(argv))))
        logs.setup(self.name, basics.log_level)
        _Server(self, argv, basics).run()


class _Logger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Let gunicorn's events take the way of all others; requests are counted, not logged."""

    def setup(self, cfg: Any) -> None:  # noqa: ARG002 - the signature is gunicorn's
        """Leave the handlers to the root logger."""
        self.error_log.propagate = True

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Log nothing."""


class _Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, program: Program, argv: Sequence[str], basics: Basics) -> None:
        self._program = program
        self._argv = argv
        self._basics = basics
        super().__init__(prog=program.name)

    def load_config(self) -> None:
        """Configure gunicorn from the settings; nothing is read from its own files or environment."""
        options = {
            "bind": self._basics.bind,
            "workers": 1,
            "worker_class": "gthread",
            "threads": self._basics.threads,
            "graceful_timeout": 15,
            "keepalive": 65,  # longer than Alertmanager's idle connections between two flushes of a group
            "logger_class": _Logger,
            "control_socket_disable": True,  # it would be a file in $HOME
            "umask": _NOBODY if self._basics.unix_socket else 0,
            "post_worker_init": self._worker_started,
            "worker_exit": self._worker_exits,
        }
        for name, value in options.items():
            if name in self.cfg.settings:  # older versions do not know control_socket_disable
                self.cfg.set(name, value)

    def load(self) -> Flask:
        """Build the application in the worker."""
        return self._program.load(self._argv)

    def _worker_started(self, _worker: Any) -> None:
        if self._basics.unix_socket:  # before, a proxy would wait here while another instance could answer
            Path(self._basics.unix_socket).chmod(_EVERYBODY)
        # What never goes away is left out of the garbage collector's rounds.
        gc.collect()
        gc.freeze()

    def _worker_exits(self, _server: Any, worker: Any) -> None:
        app = getattr(worker, "wsgi", None)
        if app is not None:
            self._program.close(app)
