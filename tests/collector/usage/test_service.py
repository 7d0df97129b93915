"""The usage API when Prometheus or the receiver is away, slow or wrong; and as a process of its own."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from flask import Flask

from fleetwatch.collector.usage import prometheus as client
from tests.collector.usage.conftest import GROUPS, StandIn, run
from tests.common.services import Service, call, free_port, wait_until

ASKED = {"resource": "cpu", "start": "2026-01-02T00:00:00Z", "end": "2026-01-02T01:00:00Z", "step": "60"}
AWAY = "http://127.0.0.1:1"
ENDPOINTS = ["/avg_usage", "/metrics_usage", "/"]
ALERT = {"alerts": [{"labels": {"alertname": "A"}}]}


def get(app: Flask, path: str = "/avg_usage", **more: str) -> tuple[int, str]:
    answer = app.test_client().get(path, query_string={**ASKED, **more} if path != "/" else {"range": "1"})
    text = answer.text
    answer.close()  # as a server does: the request is counted then
    return answer.status_code, text


def value(app: Flask, name: str, **labels: str) -> float | None:
    found: float | None = app.extensions["usage"].registry.get_sample_value(name, labels)
    return found


@pytest.mark.parametrize("path", ENDPOINTS)
def test_prometheus_away_is_502(path: str) -> None:
    with run(AWAY) as app:
        status, text = get(app, path)
        assert (status, "Prometheus does not answer: no connection" in text) == (502, True)
        ready = app.test_client().get("/readyz")
        assert (ready.status_code, ready.get_json()["reason"]) == (503, "no Prometheus answers")
        assert app.test_client().get("/healthz").status_code == 200
        endpoint = path.strip("/") or "page"
        assert value(app, "metrics_api_requests_total", endpoint=endpoint, outcome="failed") == 1
        assert value(app, "metrics_api_prometheus_up", prometheus=AWAY) == 0
        assert value(app, "metrics_api_requests_total", endpoint="other", outcome="failed") == 0, "not health"


@pytest.mark.parametrize("path", ENDPOINTS)
def test_prometheus_that_hangs_is_504(stand_in: StandIn, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_GRACE", 0.1)
    done = Event()
    stand_in.answer = lambda path: (200, {"status": str(path == "/-/ready" or done.wait(60))})
    with run(stand_in.url, prometheus_timeout=0.2) as app:
        status, text = get(app, path)
    done.set()
    assert (status, "Prometheus does not answer: no answer within" in text) == (504, True)


@pytest.mark.parametrize(("status", "told", "expected", "reason"), [
    (503, {"status": "error", "errorType": "timeout", "error": "timed out"}, 504, "took longer than 20 s"),
    (400, {"status": "error", "errorType": "bad_data", "error": "parse error"}, 502, '"expressions"'),
    (422, {"status": "error", "errorType": "execution", "error": "many-to-many"}, 502, '"expressions"'),
    (422, {"status": "error", "errorType": "execution", "error": "too many samples"}, 502, "so many samples"),
    (503, {"status": "error", "errorType": "unavailable", "error": "starting"}, 502, "unavailable: starting"),
    (200, b"<html>a login page</html>", 502, "answer 200, which is not that of Prometheus"),
    (404, b"", 502, "answer 404"),
    (302, b"", 502, "answer 302"),
    (200, {"status": "success"}, 502, "which is not that of Prometheus"),
    (200, b"[]", 502, "which is not that of Prometheus"),
])  # fmt: skip
def test_what_prometheus_may_say_instead(
    stand_in: StandIn, status: int, told: object, expected: int, reason: str
) -> None:
    stand_in.answer = lambda _path: (status, told)
    with run(stand_in.url) as app:
        for path in ENDPOINTS:
            found, text = get(app, path)
            assert (found, reason in text.replace("&#34;", '"').replace('\\"', '"')) == (expected, True), text


def test_a_query_that_is_too_much_is_asked_in_parts(stand_in: StandIn) -> None:
    asked: list[int] = []

    def answer(path: str) -> tuple[int, object]:
        if not path.endswith("query"):
            return 200, {"status": "success", "data": []}
        body = stand_in.seen[-1][2].decode()
        steps = int(body.partition("%5B")[2].partition("s%3A60s")[0]) // 60
        asked.append(steps)
        if steps > 10:
            return 422, {"status": "error", "errorType": "execution", "error": "query too many samples"}
        series = [
            {"metric": {"host": "a", "fleetwatch_source": "0", "fleetwatch_of": of}, "value": [0, text]}
            for of, text in (("sum", str(5 * steps)), ("count", str(steps)))
        ]
        return 200, {"status": "success", "data": {"result": series}}

    stand_in.answer = answer
    with run(stand_in.url) as app:
        status, text = get(app)
    assert status == 200
    assert json.loads(text)["hosts"] == [
        {"host": "a", "average": 5.0, "points": 60, "sources": ["metrics_collector"]}
    ]
    assert asked[:3] == [60, 30, 15]
    assert sum(steps for steps in asked if steps <= 10) == 60


def test_an_answer_that_is_too_large_is_asked_in_parts(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MAX_BYTES", 500)
    grids = []

    def answer(path: str) -> tuple[int, object]:
        if not path.endswith("query_range"):
            return 200, b""
        body = dict(pair.split("=") for pair in stand_in.seen[-1][2].decode().split("&"))
        start, end, step = (int(body[name]) for name in ("start", "end", "step"))
        grids.append((end - start) // step + 1)
        values = [[at, "1"] for at in range(start, end + 1, step)]
        return 200, {"status": "success", "data": {"result": [{"metric": {"host": "a"}, "values": values}]}}

    stand_in.answer = answer
    with run(stand_in.url) as app:
        status, text = get(app, "/metrics_usage", host="a")
    assert status == 200
    assert len({point["time"] for point in json.loads(text)["cpu_usage"]}) == 60
    assert grids[0] == 60
    assert len(grids) > 3


@pytest.mark.slow
def test_of_a_pair_the_other_is_asked_while_one_is_away(prometheus: str) -> None:
    with run(AWAY, prometheus) as app:
        for path in ("/avg_usage", "/metrics_usage"):
            assert get(app, path)[0] == 200
        assert app.test_client().get("/readyz").status_code == 200
        # The one that is away is not tried each time; not at all if the watch was there first.
        assert value(app, "metrics_api_prometheus_requests_total", prometheus=AWAY, outcome="away") in (0, 1)
        assert value(app, "metrics_api_prometheus_up", prometheus=AWAY) == 0
        assert value(app, "metrics_api_prometheus_up", prometheus=prometheus) == 1


def test_the_watch_sees_a_prometheus_go_and_come(stand_in: StandIn) -> None:
    with run(stand_in.url, probe_interval=0.05) as app:

        def up() -> float | None:
            return value(app, "metrics_api_prometheus_up", prometheus=stand_in.url)

        wait_until(lambda: up() == 1, 30)
        stand_in.answer = lambda _path: (503, b"")
        wait_until(lambda: up() == 0, 30)
        stand_in.answer = lambda _path: (200, b"")
        wait_until(lambda: up() == 1, 30)


# Alerts


def post(app: Flask, body: Any = ALERT, **headers: str) -> Any:
    sent = {"Authorization": "Bearer t", **{name.replace("_", "-"): text for name, text in headers.items()}}
    return app.test_client().post("/alert", json=body, headers={k: v for k, v in sent.items() if v})


def test_an_alert_is_passed_on_as_it_is_with_who_sent_it(stand_in: StandIn) -> None:
    stand_in.answer = lambda _path: (200, {"accepted": 1})
    with run(AWAY, receiver_urls=[stand_in.url]) as app:
        answer = post(app, X_Request_ID="abc", traceparent="00-1-2-01", Cookie="secret=1")
    assert (answer.status_code, answer.get_json()) == (200, {"accepted": 1})
    [(path, headers, body)] = stand_in.seen
    assert (path, json.loads(body)) == ("/alerts", ALERT)
    assert headers["Authorization"] == "Bearer t"
    assert (headers["X-Request-ID"], headers["traceparent"]) == ("abc", "00-1-2-01")
    assert "Cookie" not in headers


@pytest.mark.parametrize("status", [400, 401, 403, 413, 500, 503])
def test_the_receivers_refusal_comes_back(stand_in: StandIn, status: int) -> None:
    stand_in.answer = lambda _path: (status, {"error": "as the receiver says"})
    stand_in.headers = {"Retry-After": "5", "WWW-Authenticate": "Bearer", "Set-Cookie": "a=b"}
    with run(AWAY, receiver_urls=[stand_in.url]) as app:
        answer = post(app)
    assert (answer.status_code, answer.get_json()) == (status, {"error": "as the receiver says"})
    assert (answer.headers["Retry-After"], answer.headers["WWW-Authenticate"]) == ("5", "Bearer")
    assert "Set-Cookie" not in answer.headers


def test_without_credentials_no_receiver_is_asked(stand_in: StandIn) -> None:
    with run(AWAY, receiver_urls=[stand_in.url], max_body_bytes=1024) as app:
        assert post(app, Authorization="").status_code == 401
        assert post(app, Sec_Fetch_Site="cross-site").status_code == 403
        assert post(app, Origin="https://other.example").status_code == 403
        assert post(app, Content_Type="text/plain").status_code == 415
        large = post(app, {"alerts": ["x" * 1024]})
        assert (large.status_code, "limit of 1024 bytes" in large.get_json()["error"]) == (413, True)
    assert stand_in.seen == []
    with run(AWAY) as app:
        assert post(app).status_code == 404


def test_a_receiver_that_is_away_slow_or_elsewhere(stand_in: StandIn) -> None:
    with run(AWAY, receiver_urls=[AWAY]) as app:
        answer = post(app)
        assert (answer.status_code, "does not answer: no connection" in answer.text) == (502, True)
    done = Event()
    stand_in.answer = lambda _path: (200, {"waited": done.wait(60)})
    with run(AWAY, receiver_urls=[stand_in.url], receiver_timeout=0.2) as app:
        assert post(app).status_code == 504
    done.set()
    stand_in.answer = lambda _path: (302, {})
    stand_in.headers = {"Location": "http://elsewhere.example/alerts"}
    with run(AWAY, receiver_urls=[stand_in.url]) as app:
        answer = post(app)
        assert (answer.status_code, "receiver_urls" in answer.text) == (502, True)


def test_the_next_receiver_takes_it(stand_in: StandIn) -> None:
    with run(AWAY, receiver_urls=[AWAY, stand_in.url]) as app:
        assert post(app).status_code == 200
    assert len(stand_in.seen) == 1


# Who may read


def test_with_a_token_only_who_shows_it_reads() -> None:
    with run(AWAY, read_token="s-röad") as app:  # noqa: S106 - of this test only
        client = app.test_client()
        token = "s-röad".encode().decode("latin-1")
        for path in ("/", "/avg_usage", "/metrics_usage", "/openapi.json"):
            refused = client.get(path)
            assert refused.status_code == 401
            assert "Basic" in refused.headers["WWW-Authenticate"]
            assert client.get(path, headers={"Authorization": "Bearer s-road"}).status_code == 401
            assert client.get(path, headers={"Authorization": f"Bearer {token}"}).status_code != 401
            assert client.get(path, auth=("anybody", "s-röad")).status_code != 401
            assert client.get(path, auth=("anybody", "")).status_code == 401
        assert client.get("/healthz").status_code == client.get("/metrics").status_code == 200


def test_every_answer_has_the_security_headers() -> None:
    with run(AWAY) as app:
        for path in ("/", "/avg_usage", "/nowhere", "/healthz", "/static/style.css"):
            answer = app.test_client().get(path)
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"], path
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert app.test_client().post("/avg_usage").get_json()["error"]


# As it runs in production


@pytest.fixture
def service(tmp_path: Path, prometheus: str) -> Iterator[Service]:
    config = {
        "port": free_port(),
        "listen_address": "127.0.0.1",
        "prometheus_urls": [prometheus],
        "groups": GROUPS,
    }
    service = Service("collector.usage", config, tmp_path)
    yield service
    service.kill()


def url(service: Service) -> str:
    return f"http://127.0.0.1:{service.config['port']}"


@pytest.mark.slow
def test_it_serves_under_gunicorn_and_ends_well(service: Service) -> None:
    service.start(url(service) + "/readyz")
    query = "resource=cpu&start=2026-01-02T00:00:00Z&end=2026-01-02T01:00:00Z"
    answer = call("GET", f"{url(service)}/metrics_usage?{query}&format=csv")
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.text.splitlines()[0] == "time,host,cpu_usage"
    assert call("GET", f"{url(service)}/avg_usage?{query}").json["average_cpu_usage"] == 26.5
    assert 'outcome="ok"} 1.0' in call("GET", f"{url(service)}/metrics").text
    assert service.terminate() == 0
    assert all({"time", "level", "service", "event"} <= set(event) for event in service.events())


@pytest.mark.slow
@pytest.mark.parametrize(("wrong", "expected"), [
    ({"prot": 1}, 'unknown setting "prot": did you mean "port"?'),
    ({"prometheus_urls": []}, 'setting "prometheus_urls"'),
    ({"expressions": {"cpu": [{"name": "x", "expression": "up"}]}}, "$hosts is missing"),
])  # fmt: skip
def test_wrong_settings_end_it_with_one_line(service: Service, wrong: dict[str, Any], expected: str) -> None:
    service.config |= wrong
    ended = service.run()
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert ended.stderr.startswith("metrics_api: ")
    assert expected in ended.stderr


@pytest.mark.slow
def test_an_answer_that_breaks_off_is_not_taken_for_whole(service: Service, stand_in: StandIn) -> None:
    """Prometheus goes away in the middle: the connection ends without the last chunk, and no traceback."""

    def answer(_path: str) -> tuple[int, object]:
        asked = [body for path, _, body in stand_in.seen if path.endswith("query_range")]
        if len(asked) > 1:
            return 500, b""
        start = int(asked[0].decode().partition("start=")[2].partition("&")[0]) if asked else 0
        return 200, {
            "status": "success",
            "data": {"result": [{"metric": {"host": "a"}, "values": [[start, "1"]]}]},
        }

    stand_in.answer = answer
    service.config |= {"prometheus_urls": [stand_in.url], "query_points": 100}
    service.start(url(service) + "/healthz")
    with socket.create_connection(("127.0.0.1", service.config["port"]), 30) as connection:
        query = "resource=cpu&start=2026-01-01T00:00:00Z&end=2026-01-02T00:00:00Z&step=60&host=a"
        connection.sendall(f"GET /metrics_usage?{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        told = b""
        while part := connection.recv(65536):
            told += part
    assert told.startswith(b"HTTP/1.1 200 ")
    assert b'"cpu_usage": [{"time"' in told
    assert not told.endswith(b"0\r\n\r\n")
    failed = 'metrics_api_requests_total{endpoint="metrics_usage",outcome="failed"} 1.0'
    wait_until(lambda: failed in call("GET", f"{url(service)}/metrics").text, 30)
    log = service.log.read_text()
    assert "answer broken off" in log
    assert "Traceback" not in log


@pytest.mark.slow
def test_a_caller_who_stalls_frees_the_thread(service: Service, stand_in: StandIn) -> None:
    def answer(_path: str) -> tuple[int, object]:
        values = [[at, "12.3456"] for at in range(10_000)]
        return 200, {"status": "success", "data": {"result": [{"metric": {"host": "a"}, "values": values}]}}

    stand_in.answer = answer
    service.config |= {"prometheus_urls": [stand_in.url], "threads": 2}
    service.variables = {"METRICS_API_STALL_TIMEOUT": "1"}
    service.start(url(service) + "/healthz")
    query = "resource=cpu&start=2026-01-01T00:00:00Z&end=2026-01-09T00:00:00Z&step=10&host=a"
    stalled = []
    for _ in range(2):
        connection = socket.create_connection(("127.0.0.1", service.config["port"]), 30)
        connection.sendall(f"GET /metrics_usage?{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(100)
        stalled.append(connection)
    begun = time.monotonic()
    assert wait_until(lambda: call("GET", f"{url(service)}/healthz").status == 200, 60)
    assert time.monotonic() - begun < 60
    for connection in stalled:
        connection.close()
