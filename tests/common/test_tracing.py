from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from fleetwatch.common import tracing
from tests.common.collector import Collector, run_collector
from tests.common.services import SOURCE, free_port

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
OTHER = "00-11111111111111111111111111111111-2222222222222222-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with run_collector() as collector:
        tracing.setup("example", collector.url)
        yield collector
        tracing.shutdown()


def test_a_span_continues_the_trace_it_belongs_to(collector: Collector) -> None:
    links = [OTHER, None, "nonsense"]
    with tracing.span("deliver", PARENT, links=links, kind="client", channel="mail", attempt=2) as span:
        handed_on = tracing.current_traceparent()
        span.set_attribute("outcome", "sent")
    assert tracing.current_traceparent() is None
    tracing.shutdown()
    (found,) = collector.spans
    assert (found.service, found.name, found.trace) == ("example", "deliver", TRACE)
    assert found.parent == "b7ad6b7169203331"
    assert found.attributes == {"channel": "mail", "attempt": 2, "outcome": "sent"}
    assert found.links == [OTHER.split("-")[1]]
    assert not found.failed
    assert found.kind == "client"
    assert handed_on is not None
    assert handed_on.startswith(f"00-{TRACE}-")
    assert handed_on != PARENT


@pytest.mark.parametrize("parent", [None, "", "nonsense", "00-" + "0" * 32 + "-b7ad6b7169203331-01"])
def test_without_a_parent_a_trace_begins(collector: Collector, parent: str | None) -> None:
    with tracing.span("accept alerts", parent):
        pass
    tracing.shutdown()
    (found,) = collector.spans
    assert found.parent == ""
    assert int(found.trace, 16)


def test_an_exception_marks_the_span_and_is_not_quoted(collector: Collector) -> None:
    with pytest.raises(KeyError), tracing.span("deliver"):
        raise KeyError("secret")
    tracing.shutdown()
    (found,) = collector.spans
    assert found.failed
    assert "secret" not in repr(found)


@pytest.mark.slow
def test_a_collector_that_is_away_or_hangs_harms_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        for port in (free_port(), hangs.getsockname()[1]):
            tracing.setup("example", f"http://127.0.0.1:{port}")
            began = time.monotonic()
            for _ in range(5000):
                with tracing.span("deliver", PARENT):
                    pass
            assert time.monotonic() - began < 20
            began = time.monotonic()
            tracing.shutdown()
            assert time.monotonic() - began < 20


def test_without_an_endpoint_it_costs_nothing() -> None:
    script = (
        "import sys\n"
        "from fleetwatch.common import tracing\n"
        "tracing.setup('example', None)\n"
        f"with tracing.span('deliver', '{PARENT}', channel='mail') as span:\n"
        "    span.set_attribute('outcome', 'sent')\n"
        "    assert tracing.current_traceparent() is None\n"
        "tracing.shutdown()\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": str(SOURCE)})  # noqa: S603
