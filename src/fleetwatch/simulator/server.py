"""The simulator's HTTP port: /healthz, /readyz, /metrics, and the control API.

    GET    /scenarios         what can be played
    GET    /incidents         what runs or waits
    POST   /incidents         {"scenario": "cpu-high", "hosts": ["sim-*"], "duration": 180, "strength": 95}
    DELETE /incidents[/<id>]  end one incident, or all

The control API asks for ``Authorization: Bearer <token>``. Without a token in the settings it answers only
requests from this machine. A POST must be ``application/json``, which a web page cannot send to another site.
"""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from threading import Thread
from typing import Any

from prometheus_client import CollectorRegistry
from pydantic import SecretStr, ValidationError

from fleetwatch.common.health import Ready, answer

from .fleet import Fleet
from .scenarios import Incident, Play, ScenarioError, explain

MAX_BODY = 65536
"""Bytes of the largest request body accepted."""


class _RequestError(Exception):
    """The request gets this status and this text."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Server:
    """Answers from threads until ``close``."""

    def __init__(
        self,
        address: tuple[str, int],
        fleet: Fleet,
        token: SecretStr | None,
        ready: Ready,
        metrics: CollectorRegistry,
    ) -> None:
        """Bind and start to answer; raises OSError when the address or port is not free."""

        class Handler(_Handler):
            pass

        Handler.fleet, Handler.token = fleet, token.get_secret_value().encode() if token else None
        Handler.ready, Handler.metrics = staticmethod(ready), metrics

        class HttpServer(ThreadingHTTPServer):
            daemon_threads = True
            address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET

        self._server = HttpServer(address, Handler)
        self.port = int(self._server.server_address[1])
        self._thread = Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    fleet: Fleet
    token: bytes | None
    ready: Ready
    metrics: CollectorRegistry
    timeout = 10  # seconds a client may take for its request
    server_version = "fleetwatch"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer a GET."""
        path = self.path.partition("?")[0]
        found = answer(path, self.headers.get("Accept", ""), type(self).ready, self.metrics)
        if found is None:
            self._control("GET", path)
        else:
            self._send(*found)

    def do_POST(self) -> None:
        """Answer a POST."""
        self._control("POST", self.path)

    def do_DELETE(self) -> None:
        """Answer a DELETE."""
        self._control("DELETE", self.path)

    def _control(self, method: str, path: str) -> None:
        try:
            self._authorise()
            status, body = self._route(method, path)
        except _RequestError as error:
            status, body = error.status, {"error": str(error)}
        self._send(status, "application/json", json.dumps(body).encode() + b"\n")

    def _authorise(self) -> None:
        if self.token is None:
            peer = ip_address(self.client_address[0].partition("%")[0])
            if not (getattr(peer, "ipv4_mapped", None) or peer).is_loopback:
                raise _RequestError(
                    403, "no control_token is set, so only this machine may control the simulator"
                )
            return
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not compare_digest(given.strip().encode(), self.token):
            raise _RequestError(401, "a bearer token is needed: Authorization: Bearer <control_token>")

    def _route(self, method: str, path: str) -> tuple[int, Any]:
        what, _, incident_id = path.strip("/").partition("/")
        if (method, what, incident_id) == ("GET", "scenarios", ""):
            return 200, {
                name: scenario.model_dump(mode="json") for name, scenario in self.fleet.scenarios.items()
            }
        if what != "incidents" or (incident_id and method != "DELETE"):
            raise _RequestError(
                404, "not found; there are /scenarios, /incidents, /metrics, /healthz, /readyz"
            )
        if method == "GET":
            return 200, [_shown(incident) for incident in self.fleet.incidents()]
        if method == "DELETE":
            ended = self.fleet.end(incident_id or None)
            if incident_id and not ended:
                raise _RequestError(404, f'no incident "{incident_id}" runs or waits')
            return 200, [_shown(incident) for incident in ended]
        try:
            return 201, _shown(self.fleet.play(Play.model_validate_json(self._body())))
        except ValidationError as error:
            raise _RequestError(400, explain(error)) from None
        except ScenarioError as error:
            raise _RequestError(400, str(error)) from None

    def _body(self) -> bytes:
        if self.headers.get_content_type() != "application/json":
            raise _RequestError(415, "send application/json")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise _RequestError(411, "send a Content-Length")
        if int(length) > MAX_BODY:
            raise _RequestError(413, f"send at most {MAX_BODY} bytes")
        return self.rfile.read(int(length))

    def _send(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if status == 401:  # noqa: PLR2004 - HTTP asks for it
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base's
        """Keep requests out of the log; what they change is logged where it happens."""


def _shown(incident: Incident) -> dict[str, Any]:
    """Return an incident as the API shows it: times in ISO 8601, UTC."""
    times = {
        name: datetime.fromtimestamp(getattr(incident, name), UTC).isoformat(timespec="milliseconds")
        for name in ("start", "end")
    }
    return incident.model_dump(mode="json") | times
