"""The endpoints each service has: ``/healthz`` (alive), ``/readyz`` (can do its work), ``/metrics``.

``answer`` is the one place that knows what they say. A Flask service adds ``blueprint``; a service
without a web application of its own runs a ``HealthServer``.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from flask import Blueprint, Response

Ready = Callable[[], str | None]
"""Returns ``None`` when the service can do its work, else the reason why not, in a few words."""


def registry() -> CollectorRegistry:
    """Return a registry with the usual metrics of the process and the interpreter."""
    # Otherwise there is a second series for each counter, which nobody asks for.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    new = CollectorRegistry()
    ProcessCollector(registry=new)
    PlatformCollector(registry=new)
    GCCollector(registry=new)
    return new


def answer(path: str, accept: str, ready: Ready, metrics: CollectorRegistry) -> tuple[int, str, bytes] | None:
    """Return status, content type and body for one of the three paths, ``None`` for any other.

    /livez is another name for /healthz.

    accept: the request's Accept header, which chooses the format of /metrics.
    """
    if path in ("/healthz", "/livez"):
        return _json(200, {"status": "alive"})
    if path == "/readyz":
        reason = ready()
        if reason is None:
            return _json(200, {"status": "ready"})
        return _json(503, {"status": "not ready", "reason": reason})
    if path == "/metrics":
        encode, content_type = choose_encoder(accept)
        return 200, content_type, encode(metrics)
    return None


def _json(status: int, body: dict[str, str]) -> tuple[int, str, bytes]:
    return status, "application/json", json.dumps(body).encode() + b"\n"


def blueprint(ready: Ready, metrics: CollectorRegistry) -> Blueprint:
    """Return the three endpoints for a Flask application."""
    # Imported here so that a service without Flask pages does not pay for Flask.
    from flask import Blueprint, Response, request  # noqa: PLC0415

    pages = Blueprint("health", __name__)

    def view() -> Response:
        found = answer(request.path, request.headers.get("Accept", ""), ready, metrics)
        assert found is not None  # noqa: S101 - only the three paths lead here
        status, content_type, body = found
        return Response(body, status, content_type=content_type)

    for path in ("/healthz", "/readyz", "/metrics"):
        pages.add_url_rule(path, endpoint=path[1:], view_func=view)
    return pages


class HealthServer:
    """Serves the three endpoints from a thread, until ``close``."""

    def __init__(self, address: str, port: int, ready: Ready, metrics: CollectorRegistry) -> None:
        """Bind and start to answer; raises OSError when the address or port is not free."""

        class Handler(BaseHTTPRequestHandler):
            timeout = 10  # seconds a client may take for its request
            server_version = "fleetwatch"
            sys_version = ""

            def do_GET(self) -> None:
                found = answer(
                    self.path.partition("?")[0], self.headers.get("Accept", ""), ready, metrics
                ) or _json(404, {"error": "not found"})
                status, content_type, body = found
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base's
                """Keep scrapes out of the log."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

        self._server = Server((address, port), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
