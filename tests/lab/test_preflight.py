"""Every obstacle is one line that says what to do."""

import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lab import engine, preflight, prepare
from lab.console import LabError


def told(problem: str | None) -> str:
    assert problem is not None
    assert "\n" not in problem
    return problem


def test_no_debian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.preflight.shutil.which", lambda _: None)
    assert "no Debian-like system" in told(preflight.platform_problem())


def test_no_root_and_no_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.preflight.os.geteuid", lambda: 1000)
    monkeypatch.setattr("lab.preflight.shutil.which", lambda _: None)
    assert "not root and there is no sudo" in told(preflight.root_problem())


@pytest.mark.parametrize(("code", "words"), [(1, "asks for a password"), (0, None)])
def test_sudo(monkeypatch: pytest.MonkeyPatch, code: int, words: Any) -> None:
    monkeypatch.setattr("lab.preflight.os.geteuid", lambda: 1000)
    monkeypatch.setattr("lab.preflight.shutil.which", lambda _: "/usr/bin/sudo")
    monkeypatch.setattr(
        "lab.preflight.subprocess.run", lambda *_, **__: subprocess.CompletedProcess([], code)
    )
    problem = preflight.root_problem()
    assert (words in told(problem)) if words else problem is None


@pytest.mark.parametrize(
    ("mask", "fine"),
    [("000001ffffffffff", True), ("00000000a80425fb", False), ("00000000a80435fb", False)],
)
def test_a_container_without_rights(tmp_path: Path, mask: str, fine: bool) -> None:
    status = tmp_path / "status"
    status.write_text(f"Name:\tpython3\nCapBnd:\t{mask}\n")
    problem = preflight.capability_problem(status)
    assert problem is None if fine else "CAP_SYS_ADMIN" in told(problem)


def test_a_taken_port_names_port_and_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert f"port {port} is taken" in told(preflight.port_problem(port))
    assert preflight.port_problem(port) is None


def test_a_broken_podman_does_not_hide_that_a_port_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: str) -> None:
        raise LabError("podman does not work")

    monkeypatch.setattr(engine, "podman_json", broken)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert "is taken" in told(preflight.port_problem(server.getsockname()[1]))


def test_a_port_taken_on_every_address() -> None:
    with socket.create_server(("", 0)) as server:
        assert "is taken" in told(preflight.port_problem(server.getsockname()[1]))


def test_too_little_disk_adds_up_what_shares_a_file_system(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    half = {tmp_path / "a" / "b": int(free * 0.6), tmp_path / "c": int(free * 0.6)}
    (problem,) = preflight.disk_problems(half)
    assert str(tmp_path / "c") in problem
    assert "make room" in problem
    assert preflight.disk_problems({tmp_path / "a": 1, tmp_path / "c": 1}) == []


def test_disk_is_needed_only_for_what_is_missing() -> None:
    assert preflight.disk_needed(packages=False, environment=False, images=0, hosts=0) == {}
    assert set(preflight.disk_needed(packages=False, environment=False, images=0, hosts=1)) == {
        Path("/var/lib/containers")
    }


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.preflight.apt.reachable", lambda *_: False)
    assert told(preflight.mirror_problem()).startswith("no network: apt cannot reach http")


def test_no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.preflight._pip", lambda: ["sh", "-c", "echo 'ERROR: no route' >&2; exit 1"])
    problem = told(preflight.index_problem())
    assert "pip cannot reach its package index" in problem
    assert "no route" in problem
    assert "\n" not in problem


def test_no_podman_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.preflight.apt.unknown", lambda _: ["podman"])
    monkeypatch.setattr("lab.preflight.apt.update", lambda _: None)
    assert "apt offers no podman" in told(preflight.package_problem(["podman", "runc"]))


def test_a_broken_podman(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise LabError("podman info: database is corrupt")

    monkeypatch.setattr("lab.preflight.shutil.which", lambda _: "/usr/bin/podman")
    monkeypatch.setattr("lab.preflight.output", broken)
    assert "database is corrupt" in told(preflight.podman_problem())


def test_every_problem_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.prepare.packages", list)
    monkeypatch.setattr("lab.prepare.venv.current", lambda: True)
    monkeypatch.setattr("lab.prepare.tools.complete", lambda: True)
    monkeypatch.setattr("lab.preflight.port_problem", lambda port: f"port {port} is taken")
    with pytest.raises(prepare.ProblemsError) as caught:
        prepare.check(ports=[9090, 9093])
    assert str(caught.value) == "port 9090 is taken\nport 9093 is taken"


def test_nothing_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.prepare.packages", list)
    monkeypatch.setattr("lab.prepare.venv.current", lambda: True)
    monkeypatch.setattr("lab.prepare.tools.complete", lambda: True)
    monkeypatch.setattr("lab.prepare.preflight.mirror_problem", lambda: pytest.fail("needs no network"))
    monkeypatch.setattr("lab.prepare.preflight.index_problem", lambda: pytest.fail("needs no network"))
    assert prepare.check() == []
