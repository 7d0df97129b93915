"""What counts as alive."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from lab import components, up
from lab.components import NotYetError
from lab.hosts import Host, Spec


class Server(ThreadingHTTPServer):
    """Serves what is put into ``answers``: path -> (status, body)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, tuple[int, str]] = {}
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        status, body = self.server.answers.get(self.path.partition("?")[0], (404, ""))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def target(host: str, health: str = "up", job: str = "node_exporter") -> dict[str, Any]:
    return {"labels": {"job": job, "host": host}, "health": health}


@pytest.mark.parametrize(
    ("active", "words"),
    [
        ([], "not yet a target: a, b"),
        ([target("a"), target("b"), target("c")], "still a target: c"),
        ([target("a"), target("b", "unknown")], "targets not up: node_exporter of b"),
        ([target("a"), target("b"), target("a", "down", "prometheus")], "prometheus of a"),
        ([target("a"), target("b"), target("a", job="prometheus")], None),
    ],
)
def test_targets(server: Server, active: list[Any], words: Any) -> None:
    server.answers["/api/v1/targets"] = (200, json.dumps({"data": {"activeTargets": active}}))
    if words is None:
        assert components.targets(server.url, {"a", "b"}) == "all 3 are up"
    else:
        with pytest.raises(NotYetError, match=words):
            components.targets(server.url, {"a", "b"})


def test_simulated_metrics(server: Server) -> None:
    server.answers["/api/v1/query"] = (200, '{"data": {"result": []}}')
    with pytest.raises(NotYetError, match="no simulated metrics"):
        components.simulated(server.url)
    server.answers["/api/v1/query"] = (200, '{"data": {"result": [{"value": [0, "3"]}]}}')
    assert components.simulated(server.url) == "3 simulated hosts"


def test_not_ready_says_why(server: Server) -> None:
    server.answers["/readyz"] = (503, '{"reason": "no database"}')
    with pytest.raises(NotYetError, match=r"answers 503.*no database"):
        components.fetch(server.url + "/readyz")
    with pytest.raises(NotYetError, match="does not answer"):
        components.fetch("http://127.0.0.1:1/readyz")


def test_the_table_has_a_row_for_each_endpoint_and_knows_stopped_hosts(server: Server) -> None:
    port = int(server.url.rpartition(":")[2])
    wanted = {
        "_meta": {"hostvars": {"m": {"alertmanager_port": port}}},
        "all": {"children": ["alertmanager"]},
        "alertmanager": {"hosts": ["m"]},
    }
    hosts = {"m": Host(Spec("m"), "c", "10.89.0.2", running=False)}
    server.answers["/-/ready"] = (200, "OK")
    alertmanager, machines = up.look(wanted, hosts)
    assert (alertmanager.where, alertmanager.state, alertmanager.fine) == (server.url, "ready", True)
    assert (machines.state, machines.fine) == ("stopped: m", False)
