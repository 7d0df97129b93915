"""Experiments: what they refuse and do, that it is undone, and what playbooks/chaos.yml says of them."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible_collections.fleetwatch.monitoring.plugins.module_utils.api import ApiError
from ansible_collections.fleetwatch.monitoring.plugins.modules import chaos, firing_alerts

from .conftest import ROOT

PLAYBOOK = ROOT / "playbooks" / "chaos.yml"
TABLE = yaml.safe_load((ROOT / "playbooks/vars/experiments.yml").read_text(encoding="utf-8"))
EXPERIMENTS: dict[str, dict[str, Any]] = TABLE["experiments"]
DEFAULTS = {name: option.get("default") for name, option in chaos.ARGUMENTS.items()}
PEER = "192.0.2.7"


class Host:
    """Answers commands as a host does on which everything runs; ``answers`` are those that differ.

    An answer is for each command that contains its key.
    """

    def __init__(self, answers: Mapping[str, tuple[int, str]] | None = None) -> None:
        self.answers = dict(answers or {})
        self.commands: list[str] = []

    def run(self, command: chaos.Command) -> tuple[int, str]:
        text = " ".join(command)
        self.commands.append(text)
        for part, answer in self.answers.items():
            if part in text:
                return answer
        if "show" in command:
            return 0, "ActiveState=inactive\nDescription=\nResult=success\n"
        return (1, "none\n") if "detect-virt" in text else (0, "")


def plan(experiment: str, host: Host | None = None, **params: Any) -> chaos.Plan:
    given = DEFAULTS | {"experiment": experiment, "seconds": 60} | params
    return chaos.plan_of(given, (host or Host()).run)


@pytest.fixture
def nft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path: f"/usr/sbin/{name}")


# What is refused


@pytest.mark.parametrize(
    ("experiment", "params", "words"),
    [
        ("kill_unit", {}, "unit is not set"),
        ("kill_unit", {"unit": "ssh"}, "unit: ssh is not touched"),
        ("kill_unit", {"unit": "systemd-journald.service"}, "is not touched"),
        ("kill_unit", {"unit": "dbus.socket"}, "is not touched"),
        ("kill_unit", {"unit": "shop.target"}, "is not touched"),
        ("kill_unit", {"unit": "shop*"}, "is not touched"),
        ("kill_unit", {"unit": "shop", "every": 0}, "every is 0; it must be 1 to 600"),
        ("kill_unit", {"unit": "shop", "seconds": 3601}, "seconds is 3601; it must be 1 to 3600"),
        ("errors", {"error_rate": 1.5}, "error_rate is 1.5"),
        ("latency", {"latency": 11}, "latency is 11"),
        ("disk_fill", {"percent": 96}, "percent is 96; it must be 50 to 95"),
        ("disk_fill", {"path": "/proc/none"}, "path: /proc/none is no folder"),
        ("packet_loss", {"loss": 0, "peers": [PEER]}, "loss is 0"),
        (
            "postgresql_stop",
            {"unit": "nginx.service"},
            "unit: nginx.service is no cluster of PostgreSQL; name",
        ),
        ("postgresql_stop", {"unit": "postgresqlish"}, "is no cluster of PostgreSQL"),
        ("clock_skew", {"offset": 1}, "offset is|it must be 5 to 3600"),
        ("clock_skew", {"offset": -4000}, "it must be 5 to 3600"),
    ],
)
def test_what_cannot_be_meant_is_refused(experiment: str, params: dict[str, Any], words: str) -> None:
    with pytest.raises(chaos.RefusedError, match=words):
        plan(experiment, **params)


@pytest.mark.parametrize(
    ("experiment", "params", "answer", "words"),
    [
        ("kill_unit", {"unit": "shop"}, {"is-active": (3, "")}, r"shop.service does not run here"),
        ("errors", {}, {"is-active": (3, "")}, "transactions-api@1.service does not run here"),
        ("postgresql_stop", {}, {"list-units": (0, "")}, "no postgresql@….service runs here"),
        (
            "postgresql_stop",
            {},
            {"list-units": (0, "postgresql@15-a.service x\npostgresql@17-b.service x\n")},
            "postgresql@15-a.service, postgresql@17-b.service run here; name",
        ),
        ("clock_skew", {}, {"detect-virt": (0, "podman\n")}, r"this is a container \(podman\)"),
        (
            "disk_fill",
            {},
            {"detect-virt": (0, "podman\n"), "findmnt": (0, "overlay /\n")},
            "path: the file system of / is that of the container's host",
        ),
        *(
            ("disk_fill", {}, {"detect-virt": (0, "lxc\n"), "findmnt": (0, found)}, "of the container's host")
            for found in (
                "ext4   /var/lib/docker/volumes/a b/_data\n",
                "btrfs  /@containers/shop\n",
                "fuse.fuse-overlayfs /\n",
                "tmpfs  /\next4   /srv\n",
                "",
            )
        ),
    ],
)
def test_what_the_host_cannot_bear_is_refused(
    experiment: str, params: dict[str, Any], answer: dict[str, tuple[int, str]], words: str
) -> None:
    with pytest.raises(chaos.RefusedError, match=words):
        plan(experiment, Host(answer), **params)


def test_a_file_system_of_the_containers_own_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.statvfs", lambda path: SimpleNamespace(f_blocks=9, f_bavail=9, f_frsize=4096))
    podman = {"detect-virt": (0, "podman\n")}
    for found in ("ext4   /\n", "tmpfs  /\n", "ext4 /volume\ntmpfs /\n"):
        plan("disk_fill", Host(podman | {"findmnt": (0, found)}))
    plan("disk_fill", Host({"findmnt": (0, "btrfs  /@rootfs\n")}))


def test_packet_loss_needs_nftables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path: None)
    with pytest.raises(chaos.RefusedError, match="install it with: apt-get install nftables"):
        plan("packet_loss", peers=[PEER])


@pytest.mark.usefixtures("nft")
@pytest.mark.parametrize(
    ("peers", "answer", "words"),
    [
        ([], {}, "peers is empty"),
        (["127.0.0.1"], {}, "is this host itself"),
        (["none.invalid"], {}, "none.invalid has no address here"),
        ([PEER], {"list tables": (1, "Operation not permitted")}, "needs nf_tables in the kernel"),
        ([PEER], {"--check": (1, "Error: no numgen\n")}, "nftables refuses it here: Error: no numgen"),
    ],
)
def test_packet_loss_is_tried_first(peers: list[str], answer: dict[str, tuple[int, str]], words: str) -> None:
    with pytest.raises(chaos.RefusedError, match=words):
        plan("packet_loss", Host(answer), peers=peers)


class Socket:
    """A socket of a host whose own addresses are PEER and 2001:db8::7."""

    def __init__(self, *_: Any) -> None: ...

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None: ...

    def bind(self, address: tuple[str, int]) -> None:
        if address[0] not in {PEER, "2001:db8::7"}:
            raise OSError(99, "Cannot assign requested address")


def test_the_hosts_own_addresses_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: [(0, 0, 0, "", (one, 0)) for one in found])
    monkeypatch.setattr("socket.socket", Socket)
    found[:] = [PEER, "::1", "192.0.2.8", "2001:db8::7", "2001:db8::8"]
    assert chaos.addresses_of("shop") == {"192.0.2.8", "2001:db8::8"}
    found[:] = [PEER, "2001:db8::7"]
    with pytest.raises(chaos.RefusedError, match="peers: shop is this host itself; name another"):
        chaos.addresses_of("shop")


def test_an_address_is_own_if_a_socket_can_be_bound_to_it() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((PEER, 9))
        except OSError:
            pytest.skip("there is no network")
        mine = probe.getsockname()[0]
    assert [chaos.own(mine), chaos.own("::1"), chaos.own("203.0.113.7")] == [True, True, False]


# What is done


def words(commands: Any) -> list[str]:
    return [" ".join(command) for command in commands]


def test_kill_unit_starts_the_unit_again() -> None:
    made = plan("kill_unit", unit="shop", every=7)
    assert made.during[-3:] == ("shop.service", "7", "60")
    assert words(made.end) == [
        "-/usr/bin/systemctl reset-failed shop.service",
        "/usr/bin/systemctl start shop.service",
    ]


def test_postgresql_is_started_again() -> None:
    made = plan("postgresql_stop", Host({"list-units": (0, "postgresql@17-main.service loaded active\n")}))
    assert words(made.begin) == ["/usr/bin/systemctl stop postgresql@17-main.service"]
    assert words(made.end) == ["/usr/bin/systemctl start postgresql@17-main.service"]


@pytest.mark.parametrize(("name", "option"), [("errors", "--error-rate"), ("latency", "--latency")])
def test_behaviour_is_bounded_twice_and_reset(name: str, option: str) -> None:
    made = plan(name)
    assert words(made.begin) == [
        f"/usr/local/bin/fleetwatch-transactions behaviour {option} 0.5 --seconds 60"
    ]
    assert words(made.end) == ["/usr/local/bin/fleetwatch-transactions behaviour --reset"]


@pytest.mark.usefixtures("nft")
def test_packets_are_lost_both_ways_but_not_those_of_ssh() -> None:
    host = Host()
    made = plan("packet_loss", host, peers=[PEER, "2001:db8::7"], loss=30, spared_ports=[22, 2222])
    rules = [command.partition(" rule inet fleetwatch_chaos ")[2] for command in words(made.begin)]
    assert [rule for rule in rules if rule] == [
        "input tcp dport { 22,2222 } accept",
        f"input ip saddr {PEER} numgen random mod 100 < 30 drop",
        "input ip6 saddr 2001:db8::7 numgen random mod 100 < 30 drop",
        "output tcp sport { 22,2222 } accept",
        f"output ip daddr {PEER} numgen random mod 100 < 30 drop",
        "output ip6 daddr 2001:db8::7 numgen random mod 100 < 30 drop",
    ]
    assert words(made.end) == ["/usr/sbin/nft delete table inet fleetwatch_chaos"]
    assert any("--check" in command for command in host.commands)


def test_the_clock_is_set_and_kept_right_again() -> None:
    made = plan("clock_skew", Host({"is-active --quiet chrony": (0, ""), "is-active": (3, "")}), offset=-30)
    assert words(made.begin)[:2] == [
        f"/usr/bin/rm --force {chaos.CLOCK_FILE}",
        "/usr/bin/systemctl stop chrony.service",
    ]
    assert made.begin[2][-3:] == (chaos.SET_CLOCK, chaos.CLOCK_FILE, "-30")
    (mend,) = made.end
    assert mend[3:] == (
        chaos.MEND_CLOCK,
        chaos.CLOCK_FILE,
        *("/usr/bin/systemctl", "start", "chrony.service"),
    )


@pytest.mark.parametrize("service", ["systemd-timesyncd", "chrony", "ntpsec", "ntp", "openntpd"])
def test_what_corrects_the_clock_is_stopped(service: str) -> None:
    made = plan("clock_skew", Host({f"--quiet {service}.service": (0, ""), "is-active": (3, "")}))
    assert words(made.begin)[1] == f"/usr/bin/systemctl stop {service}.service"


class Clock:
    """The clocks of a host: that which can be set, and that which counts since boot."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.real, self.boot, self.works = 1_000_000.0, 500.0, True
        self.file, self.log = tmp_path / "clock", tmp_path / "log"
        self.monkeypatch = monkeypatch
        monkeypatch.setattr("time.time", lambda: self.real)
        monkeypatch.setattr("time.clock_gettime", self.read)
        monkeypatch.setattr("time.clock_settime", self.turn)

    def read(self, clock: int) -> float:
        assert clock == time.CLOCK_BOOTTIME
        return self.boot

    def turn(self, clock: int, value: float) -> None:
        assert clock == time.CLOCK_REALTIME
        if not self.works:
            raise PermissionError(1, "Operation not permitted")
        self.real = value

    def passes(self, seconds: float) -> None:
        self.real, self.boot = self.real + seconds, self.boot + seconds

    def run(self, script: str, *arguments: str) -> int:
        """Run a script as ``python3 -c`` does, and return its exit code."""
        self.monkeypatch.setattr(sys, "argv", ["-c", str(self.file), *arguments])
        try:
            exec(script, {})  # noqa: S102 - the scripts are ours
        except SystemExit as end:
            return int(end.code or 0)
        except Exception:  # noqa: BLE001 - Python itself would end so
            return 1
        return 0

    def mend(self, code: int = 0) -> int:
        return self.run(chaos.MEND_CLOCK, "/bin/sh", "-c", f"echo started > {self.log}; exit {code}")

    @property
    def started(self) -> bool:
        return self.log.exists()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    return Clock(monkeypatch, tmp_path)


def test_the_clock_is_right_again_even_if_something_else_corrected_it(clock: Clock) -> None:
    for correction in (0, -30, 7):
        right = clock.real
        assert clock.run(chaos.SET_CLOCK, "30") == 0
        assert clock.real == pytest.approx(right + 30)
        clock.passes(60)
        clock.real += correction
        assert clock.mend() == 0
        assert clock.real == pytest.approx(right + 60)
        assert not clock.file.exists()


def test_a_clock_that_was_not_set_is_not_turned_back(clock: Clock) -> None:
    right = clock.real
    assert clock.mend() == 0
    assert (clock.real, clock.started) == (right, True)
    clock.works = False
    assert clock.run(chaos.SET_CLOCK, "30") == 1
    clock.works = True
    assert clock.mend() == 0
    assert clock.real == pytest.approx(right)


def test_what_corrects_the_clock_is_started_even_if_mending_fails(clock: Clock) -> None:
    assert clock.run(chaos.SET_CLOCK, "30") == 0
    clock.works = False
    assert clock.mend() == 1, "a failure of the unit"
    assert clock.started
    assert clock.file.exists(), "it can be mended later"
    clock.works = True
    assert clock.mend(code=3) == 3, "a service that does not start is a failure too"
    assert not clock.file.exists()
    assert clock.run(chaos.MEND_CLOCK) == 0


@pytest.mark.parametrize(
    ("blocks", "available", "percent", "expected"),
    [(1000, 900, 95, 850), (1000, 51, 95, 1), (1000, 50, 95, 0), (1000, 10, 95, -40), (1001, 900, 95, 849)],
)
def test_a_disk_is_never_filled_beyond(blocks: int, available: int, percent: int, expected: int) -> None:
    found = SimpleNamespace(f_blocks=blocks, f_bavail=available, f_frsize=4096)
    assert chaos.missing_bytes(found, percent) == expected * 4096


def test_a_disk_that_is_full_already_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    full = SimpleNamespace(f_blocks=1000, f_bavail=50, f_frsize=4096)
    monkeypatch.setattr("os.statvfs", lambda path: full)
    with pytest.raises(chaos.RefusedError, match="is filled to 95 % already"):
        plan("disk_fill", path=str(tmp_path))


def test_memory_is_not_filled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty = SimpleNamespace(f_blocks=1000, f_bavail=1000, f_frsize=4096)
    monkeypatch.setattr("os.statvfs", lambda path: empty)
    memory = Host({"findmnt": (0, "tmpfs  /\n")})
    assert chaos.available_memory() > 1 << 20
    monkeypatch.setattr(chaos, "available_memory", lambda: 2 * 950 * 4096)
    assert plan("disk_fill", memory, path=str(tmp_path)).during[5] == str(950 * 4096)
    monkeypatch.setattr(chaos, "available_memory", lambda: 2 * 950 * 4096 - 2)
    with pytest.raises(chaos.RefusedError, match="is in memory, of which not enough is available"):
        plan("disk_fill", memory, path=str(tmp_path))
    plan("disk_fill", path=str(tmp_path))


@pytest.mark.slow
def test_what_fills_a_disk_is_gone_even_if_it_is_killed(tmp_path: Path) -> None:
    process = subprocess.Popen(  # noqa: S603 - all arguments are ours
        [sys.executable, "-I", "-c", chaos.FILL, str(tmp_path), "1048576", "300"]
    )

    def size() -> int:
        """Return how much it holds; of the process alone, as others use the file system too."""
        links = Path(f"/proc/{process.pid}/fd").iterdir()
        return max(link.stat().st_size for link in links if str(tmp_path) in str(link.readlink()))

    try:
        wait_for(lambda: size() == 1 << 20)
        assert list(tmp_path.iterdir()) == [], "the file has no name"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert list(tmp_path.iterdir()) == []


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not _true(condition):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def _true(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except (OSError, ValueError):
        return False


@pytest.mark.slow
def test_a_unit_is_killed_again_and_again_and_then_no_more(tmp_path: Path) -> None:
    log = tmp_path / "log"
    fake = tmp_path / "systemctl"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {shlex.quote(str(log))}\n')
    fake.chmod(0o755)
    subprocess.run(  # noqa: S603 - all arguments are ours
        [sys.executable, "-I", "-c", chaos.KILL, "shop.service", "0.2", "1"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=True,
        timeout=120,
    )
    lines = log.read_text().splitlines()
    assert set(lines) == {"kill --signal=KILL shop.service"}
    assert 1 <= len(lines) <= 6


# The unit


def test_the_way_back_is_armed_with_the_way_there() -> None:
    made = chaos.Plan(("/usr/bin/sleep", "60"), [("/bin/break", "a b")], [("-/bin/mend", 'say "so"', "")])
    command = chaos.systemd_run(made, "Experiment", 60)
    assert '--property=ExecStartPre=/bin/break "a b"' in command
    assert '--property=ExecStopPost=-/bin/mend "say \\"so\\"" ""' in command
    assert "--property=RuntimeMaxSec=120" in command
    assert command[-3:] == ["--", "/usr/bin/sleep", "60"]


def test_only_one_experiment_at_a_time() -> None:
    running = Host({"show": (0, "ActiveState=active\nDescription=Experiment errors of maria\n")})
    with pytest.raises(chaos.RefusedError, match=r"already: Experiment errors of maria\. Wait for"):
        chaos.started(DEFAULTS | {"experiment": "errors"}, running.run, change=True)
    assert not any("systemd-run" in command for command in running.commands)
    failed = Host({"show": (0, "ActiveState=failed\nDescription=x\n")})
    with pytest.raises(chaos.RefusedError, match="perhaps not all was mended"):
        chaos.started(DEFAULTS | {"experiment": "errors"}, failed.run, change=True)


def test_check_mode_breaks_nothing() -> None:
    host = Host()
    answer = chaos.started(DEFAULTS | {"experiment": "errors"}, host.run, change=False)
    assert (answer["changed"], answer["msg"]) == (True, "errors would begin.")
    assert not any("systemd-run" in command for command in host.commands)
    running = Host({"show": (0, "ActiveState=active\nDescription=x\n")})
    assert chaos.stopped(running.run, change=False)["changed"] is True
    assert not any("stop" in command.split() for command in running.commands)


class Ending(Host):
    """A host on which an experiment runs; once it is stopped, systemd says ``after`` of it."""

    def __init__(self, after: str, commands: str = "") -> None:
        super().__init__()
        self.state, self.after, self.mending = "active", after, commands

    def run(self, command: chaos.Command) -> tuple[int, str]:
        super().run(command)
        if command[1] == "stop":
            self.state = self.after
        if "--property=ExecStopPost" in command:
            return 0, self.mending
        return 0, f"ActiveState={self.state}\n" if "show" in command else ""


def stop_post(status: str) -> str:
    return f"ExecStopPost={{ path=/bin/mend ; argv[]=/bin/mend ; ignore_errors=no ; {status} }}\n"


def test_an_experiment_is_ended() -> None:
    host = Ending("inactive")
    assert chaos.stopped(host.run, change=True) == {"changed": True, "msg": "The experiment was ended."}
    assert chaos.stopped(host.run, change=True) == {"changed": False, "msg": "No experiment runs."}


@pytest.mark.parametrize("state", ["activating", "active", "deactivating"])
def test_what_could_not_be_ended_is_not_said_to_be(state: str) -> None:
    with pytest.raises(
        chaos.RefusedError, match=r"could not be ended; it ends by itself\. See: systemctl st"
    ):
        chaos.stopped(Ending(state).run, change=True)


def test_what_could_not_be_mended_is_a_failure_and_not_forgotten() -> None:
    for status in ("pid=7 ; code=exited ; status=1", "pid=0 ; code=(null) ; status=0/0"):
        host = Ending("failed", stop_post(status))
        with pytest.raises(chaos.RefusedError, match="Not everything could be mended: see journalctl"):
            chaos.stopped(host.run, change=True)
        assert not any("reset-failed" in command for command in host.commands)


def test_an_experiment_that_failed_and_was_mended_is_forgotten() -> None:
    ignored = stop_post("code=exited ; status=1").replace("=no", "=yes")
    host = Ending("failed", ignored + stop_post("pid=7 ; code=exited ; status=0"))
    assert chaos.stopped(host.run, change=True)["msg"].startswith("The experiment failed. All was mended.")
    assert host.commands[-1] == f"/usr/bin/systemctl reset-failed {chaos.UNIT}"


class Beginning(Host):
    """A host on which nothing runs, but nothing can begin either; systemd says ``after`` of it then."""

    def __init__(self, after: str) -> None:
        super().__init__({"systemd-run": (1, "\nJob failed.\n"), "journalctl": (0, "no such command\n")})
        self.after = after

    def run(self, command: chaos.Command) -> tuple[int, str]:
        code, output = super().run(command)
        if "systemd-run" in command[0]:
            self.answers["--property=ActiveState"] = 0, f"ActiveState={self.after}\n"
        return code, output


def begin(host: Host) -> None:
    chaos.started(DEFAULTS | {"experiment": "errors"}, host.run, change=True)


def test_what_cannot_begin_is_told_with_the_reason() -> None:
    with pytest.raises(chaos.RefusedError, match=r"could not begin: Job failed\. All was mended\..*no such"):
        begin(Beginning("failed"))
    with pytest.raises(chaos.RefusedError, match=r"^errors could not begin: Job failed\.$"):
        begin(Beginning("inactive"))


@pytest.mark.parametrize("state", ["activating", "active", "deactivating"])
def test_an_experiment_that_began_meanwhile_is_not_judged(state: str) -> None:
    host = Beginning(state)
    host.answers["--property=ExecStopPost"] = 0, stop_post("pid=0 ; code=(null) ; status=0/0")
    with pytest.raises(chaos.RefusedError, match="another experiment has just begun on this host"):
        begin(host)
    assert not any("reset-failed" in command for command in host.commands)


# Alerts


class Prometheus:
    """Answers with rules for the two alerts, and with what fires."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        self.questions = 0
        self.changes: dict[int, list[dict[str, Any]]] = {}
        """What fires from a question on."""

    def answer(self, path: str) -> Any:
        if path.startswith("/api/v1/rules"):
            return {"groups": [{"rules": [{"name": "HighErrorRate"}, {"name": "NodeDown"}]}]}
        self.questions += 1
        self.alerts = self.changes.get(self.questions, self.alerts)
        return {"alerts": self.alerts}


@contextmanager
def serve(prometheus: Prometheus) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"data": prometheus.answer(self.path)}).encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def alert(name: str, host: str = "shop", state: str = "firing", severity: str = "critical") -> dict[str, Any]:
    return {"state": state, "labels": {"alertname": name, "host": host, "severity": severity}}


NOBODY = "http://127.0.0.1:1"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firing_alerts, "INTERVAL", 0.01)
    monkeypatch.setattr(firing_alerts, "AWAY", 0.1)


def test_only_what_fires_on_the_host_counts() -> None:
    prometheus = Prometheus()
    prometheus.alerts = [
        alert("NodeDown", state="pending"),
        alert("NodeDown", host="web1"),
        alert("HighLatency", severity="warning"),
        {"state": "firing", "labels": {"alertname": "TargetDown"}},
    ]
    with serve(prometheus) as url:
        found = firing_alerts.firing([NOBODY, url], "shop")
    assert [(one["alert"], one["severity"]) for one in found] == [("HighLatency", "warning")]


@pytest.mark.usefixtures("quick")
def test_an_alert_is_waited_for_until_it_comes_and_until_it_goes() -> None:
    prometheus = Prometheus()
    prometheus.changes = {3: [alert("HighErrorRate")], 6: []}
    with serve(prometheus) as url:

        def look() -> list[firing_alerts.Alert]:
            return firing_alerts.firing([url], "shop")

        found, _ = firing_alerts.wait(look, "HighErrorRate", "firing", 60)
        assert ([one["alert"] for one in found], prometheus.questions) == (["HighErrorRate"], 3)
        found, _ = firing_alerts.wait(look, "HighErrorRate", "gone", 60)
        assert (found, prometheus.questions) == ([], 6)


@pytest.mark.usefixtures("quick")
def test_what_does_not_happen_is_a_failure_that_says_what_does() -> None:
    others = [{"alert": "NodeDown", "severity": "critical", "labels": {}}]
    with pytest.raises(
        firing_alerts.NotMetError, match=r"^HighErrorRate did not fire within 0.1 s. Firing: Node"
    ):
        firing_alerts.wait(lambda: others, "HighErrorRate", "firing", 0.1)
    with pytest.raises(firing_alerts.NotMetError, match=r"No alert of the host fires\."):
        firing_alerts.wait(list, "HighErrorRate", "firing", 0.1)
    with pytest.raises(firing_alerts.NotMetError, match=r"^NodeDown still fires after 0.1 s\."):
        firing_alerts.wait(lambda: others, "NodeDown", "gone", 0.1)


@pytest.mark.usefixtures("quick")
def test_prometheus_may_be_away_for_a_moment() -> None:
    answers = iter([ApiError("away"), [], ApiError("away"), [{"alert": "A"}]])

    def look() -> Any:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert firing_alerts.wait(look, "A", "firing", 60)[0] == [{"alert": "A"}]
    with pytest.raises(ApiError, match="No Prometheus answers"):
        firing_alerts.wait(lambda: firing_alerts.firing([NOBODY], "shop"), "A", "firing", 60)


def test_an_alert_that_no_rule_makes_is_not_waited_for() -> None:
    with serve(Prometheus()) as url:
        firing_alerts.check_rule([url], "NodeDown")
        with pytest.raises(firing_alerts.NotMetError, match="no rule for NodeDwn, so it cannot fire"):
            firing_alerts.check_rule([url], "NodeDwn")


# The playbook


def test_the_table_has_every_experiment_and_nothing_else() -> None:
    assert list(EXPERIMENTS) == list(chaos.EXPERIMENTS)
    for name, one in EXPERIMENTS.items():
        assert one.keys() == {"does", "alert", "seconds", "resolves"}, name
        assert 0 < one["seconds"] <= chaos.MAX_SECONDS, name
        for setting in re.findall(r"chaos_(\w+)", one["does"]):
            assert setting in TABLE["chaos_settings"], name


def test_the_alerts_of_the_table_exist() -> None:
    rules = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("roles/*/monitoring/rules.yml"))
    known = set(re.findall(r"- alert: (\w+)", rules))
    assert {one["alert"] for one in EXPERIMENTS.values()} <= known


def test_the_settings_are_those_of_the_module() -> None:
    own = {"alert", "peer"} | set(DEFAULTS) - {"state", "experiment", "seconds", "by", "peers"}
    assert set(TABLE["chaos_settings"]) == own


def test_the_how_to_tells_all() -> None:
    page = (ROOT / "docs/how-to/chaos.md").read_text(encoding="utf-8")
    for name, one in EXPERIMENTS.items():
        assert f"| `{name}` |" in page, name
        assert one["alert"] in page, name
    for setting in TABLE["chaos_settings"]:
        assert f"`chaos_{setting}`" in page, setting


def play(tmp_path: Path, inventory: str, *arguments: str) -> tuple[int, str]:
    """Run the playbook; the hosts of the inventory cannot be reached, so what touches one is seen."""
    path = tmp_path / "hosts.yml"
    path.write_text(inventory)
    done = subprocess.run(  # noqa: S603 - all arguments are ours
        [Path(sys.executable).with_name("ansible-playbook"), "-i", path, PLAYBOOK, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_NOCOLOR": "1"},
    )
    return done.returncode, done.stdout + done.stderr


FLEET = """
prometheus: {hosts: {monitor: {ansible_host: 127.0.0.1, ansible_port: 1}}}
web: {hosts: {web1: {ansible_host: 127.0.0.1, ansible_port: 1}, web2: {}}}
chaos: {hosts: {web1: }}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-e", "experiment=errors"], "monitor, web2: not in the group chaos, so nothing is broken there"),
        (["-e", "experiment=errors", "--limit", "web2"], "web2: not in the group chaos"),
        (["-e", "experiment=eror", "--limit", "web1"], "experiment: there is no eror; there are kill_unit"),
        (
            ["-e", "experiment=errors", "-e", "chaos_rate=1", "--limit", "web1"],
            "chaos_rate: no such setting. There are chaos_alert",
        ),
    ],
)
def test_the_playbook_refuses_before_it_touches_a_host(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    code, output = play(tmp_path, FLEET, *arguments)
    assert code != 0
    assert words in output
    assert "UNREACHABLE" not in output


@pytest.mark.slow
def test_the_playbook_lists_and_asks_before_it_breaks(tmp_path: Path) -> None:
    code, output = play(tmp_path, FLEET, "-e", "experiment=list")
    assert code == 0
    for name in EXPERIMENTS:
        assert f"{name}: " in output
    code, output = play(tmp_path, FLEET, "-e", "experiment=errors", "--limit", "web1")
    assert code != 0
    assert "UNREACHABLE" in output
    assert "Ask Prometheus what fires on the host" in output
    assert "Break it" not in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("firing", "words"),
    [
        (
            [alert("NodeDown", "web1")],
            "NodeDown: critical on web1 now. A host in trouble is not broken further",
        ),
        (
            [alert("HighErrorRate", "web1", severity="warning")],
            "HighErrorRate fires on web1 already, so the experiment would show nothing",
        ),
        # All is quiet there, so it goes on, to where the module finds that there is nothing to break.
        (
            [alert("NodeDown", "web2"), alert("A", "web1", severity="warning")],
            "transactions-api@1.service does not run here, so there is nothing to break",
        ),
    ],
)
def test_the_playbook_looks_at_what_fires(tmp_path: Path, firing: list[dict[str, Any]], words: str) -> None:
    prometheus = Prometheus()
    prometheus.alerts = firing
    with serve(prometheus) as url:
        here = "ansible_connection: local, ansible_become: false, ansible_host: 127.0.0.1, "
        here += f"ansible_python_interpreter: {sys.executable}"
        inventory = (
            f"prometheus: {{hosts: {{monitor: {{{here}, prometheus_port: {url.rpartition(':')[2]}}}}}}}\n"
            f"chaos: {{hosts: {{web1: {{{here}}}}}}}\n"
        )
        code, output = play(tmp_path, inventory, "-e", "experiment=errors", "--limit", "web1")
    assert code != 0
    assert words in output


@pytest.mark.slow
def test_nothing_is_broken_that_nobody_watches(tmp_path: Path) -> None:
    code, output = play(tmp_path, "chaos: {hosts: {web1: }}", "-e", "experiment=errors")
    assert code != 0
    assert "The group prometheus has no host" in output
