from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import Counter

from fleetwatch.common import health
from tests.common.services import call, free_port

reason: list[str | None] = [None]


@pytest.fixture
def url() -> Iterator[str]:
    registry = health.registry()
    Counter("things", "Things seen", registry=registry).inc()
    server = health.HealthServer("127.0.0.1", free_port(), lambda: reason[0], registry)
    yield f"http://127.0.0.1:{server.port}"
    server.close()


def test_the_three_endpoints(url: str) -> None:
    reason[0] = None
    assert call("GET", f"{url}/healthz").json == {"status": "alive"}
    assert call("GET", f"{url}/readyz?verbose=1").json == {"status": "ready"}
    metrics = call("GET", f"{url}/metrics").text
    assert "things_total 1.0" in metrics
    assert "process_resident_memory_bytes" in metrics
    assert call("GET", f"{url}/other").status == 404


def test_not_ready_is_503_with_the_reason_while_still_alive(url: str) -> None:
    reason[0] = "no disk"
    answer = call("GET", f"{url}/readyz")
    assert (answer.status, answer.json["reason"]) == (503, "no disk")
    assert call("GET", f"{url}/healthz").status == 200


def test_a_taken_port_is_an_error(url: str) -> None:
    with pytest.raises(OSError, match="in use"):
        health.HealthServer("127.0.0.1", int(url.rpartition(":")[2]), lambda: None, health.registry())
