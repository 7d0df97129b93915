"""What alertmanager_silence makes of a person's words, of the inventory, and of Alertmanagers that fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible_collections.fleetwatch.monitoring.plugins.modules import alertmanager_silence as module
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils import silences
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.silences import SilenceError

from .conftest import ROOT, MakeFleet, write

NOBODY = "http://127.0.0.1:1"
GROUPS = {
    "all": ["web1", "web2", "db.1", "monitor"],
    "ungrouped": [],
    "webservers": ["web1", "web2"],
    "empty": [],
    "alertmanager": ["monitor"],
}

# Words


@pytest.mark.parametrize(
    ("text", "value"), [("2h", 7200), ("30m", 1800), ("1d", 86400), ("1w2d3h4m5s", 788_645), ("1500ms", 1.5)]
)
def test_durations_are_those_of_prometheus(text: str, value: float) -> None:
    assert silences.seconds(text) == value


@pytest.mark.parametrize("text", ["", "2", "0h", "2 h", "1m2h", "-1h", "1.5h", "forever"])
def test_a_bad_duration_is_refused(text: str) -> None:
    with pytest.raises(SilenceError, match=r"^duration: .* write it as 30m, 2h or 1d$"):
        silences.seconds(text)


def test_a_start_needs_its_time_zone() -> None:
    assert silences.start("2030-01-31T22:00+01:00") == "2030-01-31T22:00:00+01:00"
    for text in ("2030-01-31T22:00", "tonight", "22:00", "9999-12-31T00:00Z"):
        with pytest.raises(SilenceError, match=r"^starts: .* time zone; write it as 2030"):
            silences.start(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("job=node", ("job", "node", False, True)),
        ('job = "node exporter"', ("job", "node exporter", False, True)),
        (r'path="C:\\x \"y\""', ("path", r'C:\x "y"', False, True)),
        ("channel=~mail|sms", ("channel", "mail|sms", True, True)),
        ("env!=test", ("env", "test", False, False)),
        ("env!~t.+", ("env", "t.+", True, False)),
        ("rule_group=~.+;shop", ("rule_group", ".+;shop", True, True)),
    ],
)
def test_matchers_are_those_of_alertmanager(text: str, expected: tuple[Any, ...]) -> None:
    assert module.matcher_of(silences.matcher(text)) == expected


@pytest.mark.parametrize("text", ["job", "=x", "job=", "a-b=c", ""])
def test_a_bad_matcher_is_refused(text: str) -> None:
    with pytest.raises(SilenceError, match=r"^matchers: .* write it as job=node_exporter$"):
        silences.matcher(text)


# Inventory


def hosts(pattern: Any) -> list[str]:
    return silences.hosts_of(pattern, GROUPS, DataLoader())


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("web1", ["web1"]),
        ("webservers", ["web1", "web2"]),
        ("webservers:!web1", ["web2"]),
        ("all:&webservers", ["web1", "web2"]),
        ("db.1,monitor", ["db.1", "monitor"]),
        ("web*", ["web1", "web2"]),
        ("~web[12]", ["web1", "web2"]),
        (["web2", "web1", "web2"], ["web1", "web2"]),
        ("all", ["db.1", "monitor", "web1", "web2"]),
    ],
)
def test_hosts_are_an_ansible_pattern(pattern: Any, expected: list[str]) -> None:
    assert hosts(pattern) == expected


def test_a_host_that_is_not_there_is_refused_with_the_one_that_was_meant() -> None:
    for pattern in ("wbe1", "webservers:wbe1", "webservers:!wbe1"):
        with pytest.raises(SilenceError, match=r"no host or group 'wbe1'; did you mean web\d\?"):
            hosts(pattern)
    with pytest.raises(SilenceError, match="no host is left of 'empty'"):
        hosts("empty")


def matchers(hosts: list[str], alerts: list[str], extra: list[str]) -> set[str]:
    found = silences.matchers_of(hosts, alerts, extra)
    return {module.matcher_text(module.matcher_of(matcher)) for matcher in found}


AUDIBLE = 'alertname!~"^(AlertReceiverNotificationsParked|Watchdog)$"'


def test_names_are_matched_whole_and_literally() -> None:
    assert matchers(["db.1"], [], []) == {'host="db.1"', AUDIBLE}
    assert matchers(["web1", "db.1", "a+b"], [], []) == {r'host=~"^(a\\+b|db\\.1|web1)$"', AUDIBLE}
    assert matchers([], ["NodeDown"], ["env=test"]) == {'alertname="NodeDown"', 'env="test"'}
    assert matchers(["web1"], ["B", "A"], []) == {'host="web1"', 'alertname=~"^(A|B)$"'}


@pytest.mark.parametrize("extra", [[], ["env!=test"], ["env=~.*"], ["env!~test"], ["a=~b?", "c!=d"]])
def test_nobody_silences_everything_by_mistake(extra: list[str]) -> None:
    with pytest.raises(SilenceError, match="everything would be; give hosts, alerts or matchers"):
        silences.matchers_of([], [], extra)


def test_what_must_stay_audible_is_refused() -> None:
    for name in ("Watchdog", "AlertReceiverNotificationsParked"):
        with pytest.raises(SilenceError, match=f"alerts: {name} is never silenced"):
            silences.check_alerts(["NodeDown", name], set())
        with pytest.raises(SilenceError, match=f"matchers: {name} is never silenced"):
            silences.matchers_of([], [], [f"alertname={name}"])
        assert (
            (ROOT / f"docs/runbooks/{name}.md").read_text().partition("## Silence\n\n")[2].startswith("Never")
        )


def test_an_alert_that_does_not_exist_is_refused() -> None:
    known = silences.alert_names([{"groups": [{"rules": [{"alert": "NodeDown"}, {"record": "r"}]}]}, None])
    assert known == {"NodeDown"}
    silences.check_alerts(["NodeDown"], known)
    silences.check_alerts(["Anything"], set())  # when nobody can tell which there are
    with pytest.raises(SilenceError, match="no alert 'NodeDwn'; did you mean NodeDown"):
        silences.check_alerts(["NodeDwn"], known)
    with pytest.raises(SilenceError, match="'Mine'; for one of your own, use the matcher alertname=Mine"):
        silences.check_alerts(["Mine"], known)


def test_a_host_asks_its_own_alertmanager_first(make_fleet: MakeFleet, roles: Any) -> None:
    write(roles, {"alertmanager/defaults/main.yml": "alertmanager_port: 9093\n"})
    fleet = make_fleet(
        "alertmanager: {hosts: {m1: {ansible_host: 10.0.0.1}, m2: {alertmanager_scheme: https}}}\n"
        "node_exporter: {hosts: {web1: {}}}\n"
    )
    assert silences.endpoints(fleet, "m2") == ["https://127.0.0.1:9093", "http://10.0.0.1:9093"]
    assert silences.endpoints(fleet, "web1") == ["http://10.0.0.1:9093", "https://m2:9093"]


# Alertmanagers


@dataclass
class FakeAlertmanager:
    """Keeps silences as Alertmanager does; ``peers`` is what it says of its cluster."""

    peers: int = 0
    gossip: list[FakeAlertmanager] = field(default_factory=list)
    """Who hears of its changes, a little later."""
    failure: tuple[int, object] | None = None
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        if self.failure:
            return self.failure
        if path == "/api/v2/status":
            return 200, {"cluster": {"status": "ready", "peers": [{}] * self.peers}}
        if method == "GET":
            return 200, list(self.kept.values())
        self.changes.append(method)
        if method == "DELETE":
            self._tell({**self.kept[path.rpartition("/")[2]], "status": {"state": "expired"}})
            return 200, {}
        silence = json.loads(body)
        silence.setdefault("id", f"{id(self)}-{len(self.changes)}")
        self._tell({**silence, "status": {"state": "active"}})
        return 200, {"silenceID": silence["id"]}

    def _tell(self, silence: dict[str, Any]) -> None:
        self.kept[silence["id"]] = silence
        for other in self.gossip:
            threading.Timer(0.3, other.kept.__setitem__, (silence["id"], silence)).start()


@contextmanager
def serve(*alertmanagers: FakeAlertmanager) -> Iterator[list[str]]:
    """Serve them, and yield their URLs."""
    with ExitStack() as stack:
        for alertmanager in alertmanagers:
            alertmanager.url = stack.enter_context(_serve(alertmanager.answer))
        yield [alertmanager.url for alertmanager in alertmanagers]


@contextmanager
def _serve(answer: Callable[[str, str, bytes], tuple[int, object]]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, content = answer(self.command, self.path, body)
            self.send_response(code)
            self.end_headers()
            self.wfile.write(content if isinstance(content, bytes) else json.dumps(content).encode())

        do_POST = do_DELETE = do_GET  # noqa: N815 - the base class's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def wanted(state: str = "present", host: str = "web1", **other: Any) -> module.Wanted:
    asked = {
        "state": state,
        "matchers": silences.matchers_of([host], [], []),
        "seconds": 3600.0,
        "starts": None,
        "comment": "new disk" if state == "present" else "",
        "created_by": "maria",
        "id": "",
    }
    return module.Wanted.of(asked | other)


def run(urls: list[str], what: module.Wanted, *, change: bool = True) -> dict[str, Any]:
    return module.run(urls, what, change=change)


@pytest.mark.slow
def test_a_second_run_changes_nothing_and_a_longer_one_prolongs() -> None:
    with serve(FakeAlertmanager(peers=1)) as urls:
        first = run(urls, wanted())
        assert (first["changed"], first["touched"][0]["created_by"]) == (True, "maria (ansible)")
        assert first["msg"].startswith("Silenced until 2")
        again = run(urls, wanted(created_by="otto"))
        assert (again["changed"], again["msg"][:22]) == (False, "Already silenced until")
        assert run(urls, wanted(seconds=60.0))["changed"] is False, "a shorter one leaves it as it is"
        longer = run(urls, wanted(seconds=7200.0))
        assert longer["changed"] is True
        assert [silence["id"] for silence in longer["silences"]] == [first["touched"][0]["id"]]
        assert run(urls, wanted(comment="another reason"))["changed"] is True
        assert len(run(urls, wanted("list"))["silences"]) == 2
        ended = run(urls, wanted("absent"))
        assert (ended["changed"], ended["silences"]) == (True, [])
        assert run(urls, wanted("absent"))["changed"] is False


@pytest.mark.slow
def test_silences_made_by_hand_are_left_alone_unless_their_id_is_given() -> None:
    alertmanager = FakeAlertmanager()
    with serve(alertmanager) as urls:
        (mine,) = run(urls, wanted())["touched"]
        (other,) = run(urls, wanted(host="web2"))["touched"]
        by_hand = {**alertmanager.kept[mine["id"]], "id": "by-hand", "createdBy": "otto"}
        alertmanager.kept["by-hand"] = by_hand
        assert [silence["id"] for silence in run(urls, wanted("absent"))["touched"]] == [mine["id"]]
        assert {silence["id"] for silence in run(urls, wanted("list"))["silences"]} == {
            "by-hand",
            other["id"],
        }
        assert run(urls, wanted("absent", id="by-hand"))["msg"] == "Ended the silence by-hand."
        assert "No silence has the id by-hand" in run(urls, wanted("absent", id="by-hand"))["msg"]


@pytest.mark.slow
def test_a_comment_limits_what_ends() -> None:
    with serve(FakeAlertmanager()) as urls:
        run(urls, wanted())
        assert run(urls, wanted("absent", comment="upgrade"))["changed"] is False
        assert run(urls, wanted("absent", comment="new disk"))["changed"] is True


@pytest.mark.slow
def test_planned_maintenance_is_one_silence_with_exactly_these_times() -> None:
    begin = datetime.now(UTC) + timedelta(days=1)
    with serve(FakeAlertmanager()) as urls:
        planned = run(urls, wanted(starts=begin.isoformat()))
        assert planned["touched"][0]["starts"] == module.clock(begin)
        assert run(urls, wanted(starts=begin.isoformat()))["changed"] is False
        shorter = run(urls, wanted(starts=begin.isoformat(), seconds=600.0))
        assert (shorter["changed"], len(shorter["silences"])) == (True, 1)
        assert run(urls, wanted(starts=(begin + timedelta(days=7)).isoformat()))["changed"] is True
        assert len(run(urls, wanted("list"))["lines"]) == 2
        with pytest.raises(module.RefusedError, match="would have ended"):
            run(urls, wanted(starts="2020-01-01T00:00Z"))


@pytest.mark.slow
def test_check_mode_tells_and_changes_nothing() -> None:
    alertmanager = FakeAlertmanager()
    with serve(alertmanager) as urls:
        would = run(urls, wanted(), change=False)
        assert (would["changed"], alertmanager.changes) == (True, [])
        assert 'host="web1"' in would["diff"]["after"]
        run(urls, wanted())
        assert run(urls, wanted("absent"), change=False)["changed"] is True
        assert alertmanager.changes == ["POST"]


def test_the_next_one_is_asked_when_the_first_is_down() -> None:
    broken = FakeAlertmanager(failure=(503, "starting"))
    good = FakeAlertmanager(peers=1)
    with serve(broken, good) as urls:
        result = run([NOBODY, *urls], wanted())
        assert (result["answered"], len(good.kept)) == (True, 1)
        assert len(result["warnings"]) == 2
        assert "answers 503" in result["warnings"][1]


def test_a_whole_cluster_is_told_once() -> None:
    second = FakeAlertmanager(peers=2)
    first = FakeAlertmanager(peers=2, gossip=[second])
    with serve(first, second) as urls:
        run(urls, wanted())
        assert (first.changes, second.changes) == (["POST"], [])


@pytest.mark.slow
def test_both_sides_of_a_split_cluster_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GOSSIP_SECONDS", 0.1)
    pair = FakeAlertmanager(peers=1), FakeAlertmanager(peers=1)
    with serve(*pair) as urls:
        assert len(run(urls, wanted())["touched"]) == 2
        assert [one.changes for one in pair] == [["POST"], ["POST"]]
        assert run(urls, wanted())["changed"] is False
        run(urls, wanted("absent"))
        assert [one.changes for one in pair] == [["POST", "DELETE"]] * 2


@pytest.mark.slow
def test_what_gossip_brings_is_not_made_a_second_time() -> None:
    second = FakeAlertmanager(peers=2)
    first = FakeAlertmanager(peers=2, gossip=[second])
    with serve(first, second) as urls:
        result = run([*urls, NOBODY], wanted())  # the third is down, so each of the others is asked
        assert (first.changes, second.changes, len(result["touched"])) == (["POST"], [], 1)
        assert run([*urls, NOBODY], wanted("absent"))["msg"].count(result["touched"][0]["id"]) == 1
        assert second.changes == []


def test_no_answer_at_all_is_told() -> None:
    result = run([NOBODY], wanted())
    assert (result["answered"], result["changed"]) == (False, False)
    assert "No Alertmanager answers. http://127.0.0.1:1/api/v2/status does not answer" in result["msg"]


def test_another_program_on_the_port_is_no_alertmanager() -> None:
    with serve(FakeAlertmanager(failure=(200, b"<html>"))) as urls:
        assert "is another program on this port?" in run(urls, wanted())["msg"]
    with serve(FakeAlertmanager(failure=(404, "who?"))) as urls:
        assert "answers 404" in run(urls, wanted())["msg"]


def test_what_alertmanager_refuses_is_not_tried_elsewhere() -> None:
    class Refusing(FakeAlertmanager):
        def answer(self, method: str, path: str, body: bytes) -> tuple[int, object]:
            return (400, "bad regular expression") if method == "POST" else super().answer(method, path, body)

    second = FakeAlertmanager()
    with serve(Refusing(), second) as urls:
        with pytest.raises(module.RefusedError, match=r"answers 400: .*bad regular expression"):
            run(urls, wanted())
        assert second.changes == []


def test_a_long_list_of_hosts_is_cut_in_the_line() -> None:
    names = [f"host{number}" for number in range(500)]
    with serve(FakeAlertmanager()) as urls:
        (line,) = run(urls, wanted(matchers=silences.matchers_of(names, [], [])))["lines"]
    assert len(line) < 250
    assert "new disk" in line
