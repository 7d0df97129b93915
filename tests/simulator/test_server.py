"""The HTTP port: the three endpoints and the control API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from socketserver import BaseServer, StreamRequestHandler
from typing import Any
from unittest.mock import patch

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from fleetwatch.simulator.fleet import Fleet
from fleetwatch.simulator.server import MAX_BODY, Server

from .conftest import NOON, MakeFleet

TOKEN = "0123456789abcdef"  # noqa: S105 - made up
Call = Callable[..., tuple[int, Any]]
Serve = Callable[..., Call]


@pytest.fixture
def fleet(make_fleet: MakeFleet) -> Fleet:
    return make_fleet()


@pytest.fixture
def serve(fleet: Fleet) -> Iterator[Serve]:
    servers = []

    def start(token: str | None = None, ready: str | None = None) -> Call:
        server = Server(
            ("127.0.0.1", 0),
            fleet,
            SecretStr(token) if token else None,
            lambda: ready,
            CollectorRegistry(),
        )
        servers.append(server)

        def call(
            method: str, path: str, body: object = None, raw: bytes | None = None, **headers: str
        ) -> tuple[int, Any]:
            connection = HTTPConnection("127.0.0.1", server.port, timeout=5)
            data = raw if raw is not None else None if body is None else json.dumps(body).encode()
            headers = {"Content-Type": "application/json"} | {
                name.replace("_", "-"): value for name, value in headers.items()
            }
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            text = response.read().decode()
            connection.close()
            return response.status, json.loads(
                text
            ) if response.headers.get_content_subtype() == "json" else text

        return call

    with patch("fleetwatch.simulator.server.ThreadingHTTPServer.serve_forever", _serve_quickly):
        yield start
    for server in servers:
        server.close()


def _serve_quickly(server: Any) -> None:
    """Notice ``shutdown`` at once, so that the tests do not wait for it."""
    BaseServer.serve_forever(server, 0.01)


def test_endpoints(serve: Serve) -> None:
    call = serve()
    assert call("GET", "/healthz")[0] == 200
    assert call("GET", "/readyz?x=1")[0] == 200
    assert call("GET", "/metrics") == (200, "")
    assert serve(ready="no gateway")("GET", "/readyz") == (
        503,
        {"status": "not ready", "reason": "no gateway"},
    )
    assert call("GET", "/nothing")[0] == 404


def test_an_incident_is_played_listed_and_ended(serve: Serve) -> None:
    call = serve()
    status, played = call(
        "POST",
        "/incidents",
        {"scenario": "cpu-high", "hosts": ["sim-web-01"], "duration": 180, "strength": 90},
    )
    assert status == 201
    assert played["hosts"] == ["sim-web-01"]
    assert (played["start"], played["end"]) == (
        "2025-06-15T15:06:40.000+00:00",
        "2025-06-15T15:09:40.000+00:00",
    )
    assert played["effects"][0]["strength"] == 90
    assert NOON == 1_750_000_000
    assert call("GET", "/incidents") == (200, [played])
    assert call("DELETE", "/incidents/other")[0] == 404
    assert call("DELETE", f"/incidents/{played['id']}") == (200, [played])
    assert call("GET", "/incidents") == (200, [])
    assert call("DELETE", "/incidents") == (200, [])


def test_scenarios_are_listed(serve: Serve) -> None:
    status, scenarios = serve()("GET", "/scenarios")
    assert status == 200
    assert scenarios["cpu-high"]["effects"][0]["metric"] == "cpu"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"scenario": "nope"}, "nope"),
        ({"scenario": "cpu-high", "duration": -1}, "duration"),
        ({"scenario": "cpu-high", "durration": 1}, "durration"),
        ({"scenario": "cpu-high", "hosts": []}, "hosts"),
        ({}, "scenario: Field required"),
        ([], "object"),
    ],
)
def test_a_bad_request_gets_a_reason(serve: Serve, fleet: Fleet, body: object, words: str) -> None:
    status, answer = serve()("POST", "/incidents", body)
    assert status == 400
    assert words in answer["error"]
    assert fleet.incidents() == []


def test_malformed_requests(serve: Serve) -> None:
    call = serve()
    good = {"scenario": "cpu-high"}
    assert call("POST", "/incidents", raw=b"{")[0] == 400
    assert call("POST", "/incidents", good, Content_Type="text/plain")[0] == 415
    assert call("POST", "/incidents", good, Content_Length="-1")[0] == 411
    assert call("POST", "/incidents", good, Content_Length=str(MAX_BODY + 1))[0] == 413
    assert call("POST", "/incidents/x", good)[0] == 404
    assert call("POST", "/scenarios", good)[0] == 404


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    "header",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer \u00ff"},
    ],
)
def test_with_a_token_nobody_controls_it_without(
    serve: Serve, fleet: Fleet, method: str, header: dict[str, str]
) -> None:
    status, answer = serve(TOKEN)(method, "/incidents", {"scenario": "cpu-high"}, **header)
    assert status == 401
    assert TOKEN not in str(answer)
    assert fleet.incidents() == []


def test_with_the_token_it_obeys_and_metrics_stay_open(serve: Serve) -> None:
    call = serve(TOKEN)
    assert call("POST", "/incidents", {"scenario": "cpu-high"}, Authorization=f"Bearer {TOKEN}")[0] == 201
    assert call("GET", "/metrics")[0] == 200


@pytest.mark.parametrize(
    ("peer", "status"),
    [
        ("127.0.0.1", 200),
        ("127.1.2.3", 200),
        ("::1", 200),
        ("::ffff:127.0.0.1", 200),
        ("10.0.0.9", 403),
        ("::ffff:10.0.0.9", 403),
        ("fe80::1%eth0", 403),
    ],
)
def test_without_a_token_only_this_machine_controls_it(serve: Serve, peer: str, status: int) -> None:
    call = serve()
    # The peer's address is the only part that one machine alone cannot show.
    with patch("fleetwatch.simulator.server._Handler.setup", _setup_as(peer)):
        assert call("GET", "/incidents")[0] == status
        assert call("GET", "/metrics")[0] == 200


def _setup_as(peer: str) -> Callable[[Any], None]:
    def setup(handler: Any) -> None:
        StreamRequestHandler.setup(handler)
        handler.client_address = (peer, 1)

    return setup
