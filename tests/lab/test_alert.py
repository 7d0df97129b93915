"""The incident follower, against a stand-in for all stations whose pace the test sets."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from lab.alert import LIMITS, Plan, Station, Terminal, Tokens, Urls, follow, main
from lab.console import LabError

TOKEN = "0123456789abcdef"  # noqa: S105 - made up
TOKENS = Tokens(TOKEN, "fedcba9876543210")
HOST = "sim-web-01"
LABELS = {"alertname": "HighCPUUsage", "host": HOST, "severity": "critical"}
NEVER = float("inf")
FAST = Plan(poll=0.01, patience=0.05)
NAMES = [
    "incident started",
    "threshold crossed",
    "pending",
    "firing",
    "Alertmanager has it",
    "receiver committed",
    "message in the mailbox",
    "incident ended",
    "value back",
    "gone from Prometheus",
    "receiver resolved",
    "resolved message in the mailbox",
]


class FakeLab:
    """Answers as all stations; ``pace`` says how long after start and end each takes the next step (s)."""

    def __init__(self) -> None:
        self.pace = {"crossed": 0.02, "pending": 0.04, "firing": 0.06, "alertmanager": 0.08}
        self.pace |= {"committed": 0.1, "mailed": 0.12}
        self.pace_back = {"back": 0.02, "gone": 0.04, "resolved": 0.08, "mailed": 0.1}
        self.played: list[dict[str, Any]] = []
        self.ended: list[str] = []
        self.start = self.end = NEVER
        self.override: dict[str, tuple[int, object]] = {}  # path -> answer
        self.rule_waits = 120.0
        self.old_incidents: list[dict[str, Any]] = []
        self.last_error: str | None = None
        lab = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                lab._serve(self)

            def do_POST(self) -> None:
                lab._serve(self)

            def do_DELETE(self) -> None:
                lab._serve(self)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def urls(self) -> Urls:
        return Urls(self.url, self.url, self.url, self.url, self.url)

    def _is(self, step: str, undone: str) -> bool:
        now = time.monotonic()
        return now >= self.start + self.pace[step] and now < self.end + self.pace_back[undone]

    def _serve(self, request: Any) -> None:
        url = urlsplit(request.path)
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        if url.path in self.override:
            status, answer = self.override[url.path]
        else:
            status, answer = self._answer(request, url.path, parse_qs(url.query), body)
        request.send_response(status)
        plain = isinstance(answer, str)
        request.send_header("Content-Type", "text/plain" if plain else "application/json")
        request.end_headers()
        request.wfile.write(answer.encode() if isinstance(answer, str) else json.dumps(answer).encode())

    def _answer(  # noqa: PLR0911, PLR0912 - one per path
        self, request: Any, path: str, query: dict[str, list[str]], body: bytes
    ) -> tuple[int, object]:
        alert = {"labels": LABELS, "state": "firing" if self._is("firing", "gone") else "pending"}
        shown = request.headers["Authorization"]
        match request.command, path.strip("/").split("/"):
            case "POST" | "DELETE", _ if shown != f"Bearer {TOKENS.simulator}":
                return 401, {"error": "a bearer token is needed"}
            case "GET", ["api", "v1", "incidents"] if shown != f"Bearer {TOKENS.receiver}":
                return 401, {"error": "log in"}
            case "POST", ["incidents"]:
                self.played.append(json.loads(body))
                self.start = time.monotonic()
                return 201, {"id": "abc"}
            case "DELETE", ["incidents", name]:
                self.ended.append(name)
                self.end = time.monotonic()
                return 200, []
            case "GET", ["readyz" | "healthz"]:
                return 200, {"status": "ready"}
            case "GET", ["-", "ready"]:
                return 200, "Prometheus is Ready."
            case "GET", ["api", "v1", "rules"]:
                rule = {"name": "HighCPUUsage", "query": "custom_cpu_usage > 70", "duration": self.rule_waits}
                return 200, {"data": {"groups": [{"rules": [{"name": "Other"}]}, {"rules": [rule]}]}}
            case "GET", ["api", "v1", "query"]:
                high = self._is("crossed", "back")
                samples = [{"metric": {"host": "sim-db-01"}, "value": [0, "99"]}]
                if high or query["query"] == ["custom_cpu_usage"]:
                    samples.append({"metric": {"host": HOST}, "value": [0, "95" if high else "21.5"]})
                return 200, {"data": {"result": samples}}
            case "GET", ["api", "v1", "alerts"]:
                other = {"labels": LABELS | {"host": "sim-db-01"}, "state": "firing"}
                alerts = [other, *[alert] * self._is("pending", "gone")]
                return 200, {"data": {"alerts": alerts}}
            case "GET", ["api", "v2", "alerts"]:
                assert query["filter"] == ['alertname="HighCPUUsage"', f'host="{HOST}"']
                status = {"state": "suppressed", "silencedBy": ["s-1"], "inhibitedBy": []}
                return 200, [{"labels": LABELS, "status": status}] * self._is("alertmanager", "gone")
            case "GET", ["api", "v1", "incidents"]:
                assert query["label"] == ["alertname=HighCPUUsage", f"host={HOST}"]
                return 200, {"incidents": self._incidents() + self.old_incidents}
            case "GET", ["api", "messages"]:
                return 200, {"messages": self._messages()}
        return 404, {"error": "not found"}

    def _incidents(self) -> list[dict[str, Any]]:
        if not self._is("committed", "mailed") and not self.ended:
            return []
        resolved = time.monotonic() >= self.end + self.pace_back["resolved"]
        transitions = ["firing", "resolved"] if resolved else ["firing"]
        return [
            {
                "id": 7,
                "status": transitions[-1],
                "severity": "critical",
                "notifications": [
                    {
                        "transition": transition,
                        "channel": "sendgrid",
                        "state": "queued" if self.last_error else "sent",
                        "last_error": self.last_error,
                        "provider_id": None if self.last_error else f"m-{transition}",
                    }
                    for transition in transitions
                ],
            }
        ]

    def _messages(self) -> list[dict[str, Any]]:
        old = {"id": 1, "message_id": "m-old", "subject": "[CRITICAL] CPU high on sim-web-01"}
        found = [old]
        if time.monotonic() >= self.start + self.pace["mailed"]:
            found.insert(0, {"id": 2, "message_id": "m-firing", "subject": "[CRITICAL] CPU high"})
        if time.monotonic() >= self.end + self.pace_back["mailed"]:
            found.insert(0, {"id": 3, "message_id": "m-resolved", "subject": "[RESOLVED] CPU high"})
        return found


@pytest.fixture
def lab() -> Iterator[FakeLab]:
    lab = FakeLab()
    yield lab
    lab.close()


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    path = tmp_path / "secrets.yml"
    path.write_text(f"metrics_simulator_control_token: {TOKEN}\nlab_password: {TOKENS.receiver}\n")
    return path


def give_up_at(station: str, monkeypatch: pytest.MonkeyPatch, lab: FakeLab) -> None:
    monkeypatch.setitem(LIMITS, station, 0.15 / FAST.patience)
    lab.rule_waits = 0


def arguments(lab: FakeLab, secrets: Path) -> list[str]:
    urls = [part for name in vars(lab.urls) for part in (f"--{name}", lab.url + "/")]
    return ["--secrets", str(secrets), "--poll", "0.01", "--patience", str(FAST.patience), *urls]


def test_the_incident_is_followed_through_every_station_in_order(lab: FakeLab) -> None:
    stations = follow(lab.urls, TOKENS, Plan(poll=0.005))
    assert [station.name for station in stations] == NAMES
    seconds = [station.seconds for station in stations]
    assert seconds == sorted(seconds)
    assert seconds[NAMES.index("message in the mailbox")] >= 0.12
    assert {station.name: (station.detail, station.url) for station in stations if station.url} == {
        "message in the mailbox": ("[CRITICAL] CPU high", f"{lab.url}/messages/2"),
        "resolved message in the mailbox": ("[RESOLVED] CPU high", f"{lab.url}/messages/3"),
    }
    assert lab.ended == ["abc"]
    (request,) = lab.played
    assert (request["scenario"], request["hosts"], request["strength"]) == ("cpu-high", [HOST], 95)
    assert request["duration"] > 600


@pytest.mark.parametrize(
    ("step", "station", "words"),
    [
        ("crossed", "threshold crossed", "21.5, the rule is custom_cpu_usage > 70"),
        ("pending", "pending", "not evaluated"),
        ("firing", "firing", "pending, the rule waits 0 s"),
        ("alertmanager", "Alertmanager has it", "does not have it"),
        ("committed", "receiver committed", "silenced by s-1"),
        ("mailed", "message in the mailbox", "sendgrid sent"),
    ],
)
def test_a_station_that_is_not_reached_is_named_and_the_incident_is_ended(
    lab: FakeLab, monkeypatch: pytest.MonkeyPatch, step: str, station: str, words: str
) -> None:
    give_up_at(station, monkeypatch, lab)
    lab.pace[step] = NEVER
    with pytest.raises(LabError) as caught:
        follow(lab.urls, TOKENS, FAST)
    message = str(caught.value)
    assert message.startswith(f'"{station}" not reached within ')
    assert words in message
    assert "Look at " in message
    assert "\n" not in message
    assert lab.ended == ["abc"]


@pytest.mark.parametrize(
    ("step", "station"),
    [
        ("back", "value back"),
        ("gone", "gone from Prometheus"),
        ("resolved", "receiver resolved"),
        ("mailed", "resolved message in the mailbox"),
    ],
)
def test_a_resolve_that_does_not_arrive_is_named(
    lab: FakeLab, monkeypatch: pytest.MonkeyPatch, step: str, station: str
) -> None:
    give_up_at(station, monkeypatch, lab)
    lab.pace_back[step] = NEVER
    with pytest.raises(LabError, match=f'"{station}" not reached'):
        follow(lab.urls, TOKENS, FAST)


def test_the_reason_of_a_failed_delivery_is_shown(lab: FakeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    give_up_at("message in the mailbox", monkeypatch, lab)
    lab.last_error = "HTTP 429"
    with pytest.raises(LabError, match=r"sendgrid queued \(HTTP 429\).*alert_dispatcher"):
        follow(lab.urls, TOKENS, FAST)


def test_older_incidents_of_the_receiver_do_not_count(lab: FakeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    give_up_at("receiver committed", monkeypatch, lab)
    lab.old_incidents = [{"id": 6, "status": "firing", "severity": "critical", "notifications": []}]
    lab.pace["committed"] = NEVER
    with pytest.raises(LabError, match="receiver committed"):
        follow(lab.urls, TOKENS, FAST)


def test_an_alert_that_fires_already_is_no_start(lab: FakeLab) -> None:
    lab.start = 0
    with pytest.raises(LabError, match=r"already firing for sim-web-01: .* another --host"):
        follow(lab.urls, TOKENS, FAST)
    assert lab.played == []


def test_a_station_that_is_down_before_the_start_is_named(lab: FakeLab) -> None:
    urls = Urls(lab.url, lab.url, lab.url, lab.url, "http://127.0.0.1:1")
    with pytest.raises(LabError, match=r"127.0.0.1:1/healthz does not answer: .*refused.*make lab"):
        follow(urls, TOKENS, FAST)
    lab.override["/readyz"] = (503, {"status": "not ready", "reason": "Connection refused"})
    with pytest.raises(LabError, match=r"/readyz answers 503: Connection refused"):
        follow(lab.urls, TOKENS, FAST)
    assert lab.played == []


def test_a_station_may_be_down_for_a_moment_on_the_way(lab: FakeLab) -> None:
    class Breaks:
        looks = 0

        def waiting(self, name: str, seconds: float, detail: str) -> None:
            if name == "firing":
                self.looks += 1
                lab.override = {"/api/v1/alerts": (502, "bad gateway")} if self.looks == 1 else {}

        def reached(self, station: Station) -> None:
            pass

    lab.pace["firing"] = 2
    report = Breaks()
    assert len(follow(lab.urls, TOKENS, Plan(poll=0.01), report)) == len(NAMES)
    assert report.looks > 1


def test_an_api_of_another_shape_is_a_reason_not_a_traceback(
    lab: FakeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_up_at("Alertmanager has it", monkeypatch, lab)
    lab.override["/api/v2/alerts"] = (200, {"no": "list"})
    with pytest.raises(LabError, match="unexpected answer"):
        follow(lab.urls, TOKENS, FAST)
    lab.override = {"/api/v1/rules": (200, "<html>")}
    with pytest.raises(LabError, match="unexpected answer"):
        follow(lab.urls, TOKENS, FAST)


def test_without_the_rule_it_says_so(lab: FakeLab) -> None:
    lab.override["/api/v1/rules"] = (200, {"data": {"groups": []}})
    with pytest.raises(LabError, match="no rule HighCPUUsage"):
        follow(lab.urls, TOKENS, FAST)


def test_the_wrong_token_is_said_by_the_simulator(lab: FakeLab) -> None:
    with pytest.raises(LabError, match=r"answers 401: a bearer token is needed"):
        follow(lab.urls, Tokens("wrong", TOKENS.receiver), FAST)


def test_the_wrong_password_is_said_by_the_receiver(lab: FakeLab) -> None:
    with pytest.raises(LabError, match=r"incidents.* answers 401: log in"):
        follow(lab.urls, Tokens(TOKEN, "wrong"), FAST)
    assert lab.played == []


def test_the_command_prints_plain_lines_into_a_pipe_and_the_mails_at_the_end(
    lab: FakeLab, secrets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(lab, secrets)) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\r" not in out
    table, mails = out.split("\n\n")
    lines = table.splitlines()
    assert len(lines) == len(NAMES)
    for line, name in zip(lines, NAMES, strict=True):
        assert re.match(rf" *\d+\.\d s +\+\d+\.\d s {re.escape(name)} ", line)
    assert mails.splitlines() == [
        "[CRITICAL] CPU high",
        f"    {lab.url}/messages/2",
        "[RESOLVED] CPU high",
        f"    {lab.url}/messages/3",
    ]


def test_the_command_fails_with_one_line(
    lab: FakeLab, secrets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_up_at("firing", monkeypatch, lab)
    lab.pace["firing"] = NEVER
    assert main(arguments(lab, secrets)) == 1
    err = capsys.readouterr().err
    assert err.startswith('lab-alert: "firing" not reached')
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "text", [None, "a: [", f"other: {TOKEN}", f"- {TOKEN}", f"metrics_simulator_control_token: {TOKEN}"]
)
def test_secrets_that_cannot_be_used_are_one_line_without_the_secret(
    lab: FakeLab, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    path = tmp_path / "secrets.yml"
    if text is not None:
        path.write_text(text)
    assert main(arguments(lab, path)) == 1
    err = capsys.readouterr().err
    assert str(path) in err
    assert err.count("\n") == 1
    assert TOKEN not in err


def test_the_environment_sets_the_urls(
    lab: FakeLab, secrets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in vars(lab.urls):
        monkeypatch.setenv(f"LAB_{name.upper()}_URL", lab.url)
    assert main(["--secrets", str(secrets), "--poll", "0.01"]) == 0


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environ", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_a_terminal_has_a_live_line_and_colours_unless_unwanted(
    environ: dict[str, str], coloured: bool
) -> None:
    out = Tty()
    terminal = Terminal(out, environ)
    terminal.waiting("firing", 1.5, "pending " + "x" * 300)
    terminal.reached(Station("firing", 2.0, "seen"))
    live, table = out.getvalue().split("\r\x1b[K")[1:]
    assert "firing: pending" in live
    assert len(live) < 120
    assert "\n" not in live
    assert table.endswith("seen\n")
    assert bool(re.search(r"\x1b\[\d+m", out.getvalue())) == coloured


def test_without_a_terminal_a_long_wait_is_not_silent() -> None:
    out = io.StringIO()
    terminal = Terminal(out, {})
    for second in range(35):
        terminal.waiting("firing", second, "pending")
    assert out.getvalue().splitlines() == [
        f"{second:7.1f} s           ... firing: pending" for second in (10, 20, 30)
    ]
