"""What make test-vagrant tells of a run, without any machine."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab import emulation, vagrant
from lab.console import Console, LabError

RECAP = """\
PLAY RECAP *********************************************************************
monitor                    : ok=80   changed={changed}   unreachable=0    failed=0    skipped=9
receiver                   : ok=60   changed=0    unreachable={unreachable}    failed=0    skipped=9
"""


def converge(monkeypatch: pytest.MonkeyPatch, said: str, *, changes: bool) -> None:
    def run(*_: str, watcher: vagrant.Progress, **__: Any) -> None:
        for line in said.splitlines():
            watcher.show(line)

    monkeypatch.setattr(vagrant, "run", run)
    emulation.converge(Console(), ["monitor", "receiver"], "up", changes=changes)


def test_a_run_that_went_well(monkeypatch: pytest.MonkeyPatch) -> None:
    converge(monkeypatch, RECAP.format(changed=40, unreachable=0), changes=True)
    converge(monkeypatch, RECAP.format(changed=0, unreachable=0), changes=False)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("", "Ansible ran on no host, not on monitor, receiver"),
        (RECAP.format(changed=0, unreachable=0).replace("receiver ", "other "), "ran on monitor, other"),
        (RECAP.format(changed=2, unreachable=0), "monitor: failed=0, unreachable=0, changed=2"),
        (RECAP.format(changed=0, unreachable=1), "receiver: failed=0, unreachable=1, changed=0"),
    ],
)
def test_a_run_that_did_not(said: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LabError, match=words):
        converge(monkeypatch, said, changes=False)


def test_progress_shows_machines_and_plays() -> None:
    progress = vagrant.Progress()
    assert progress.show("==> monitor: Starting domain.") == "monitor: Starting domain"
    assert progress.show("PLAY [Prometheus] ****") == "Prometheus"
    assert progress.show("==> monitor:  -- Memory:            1024M") is None
    assert progress.state("==> monitor:  -- Memory:            1024M") is None
    assert progress.state("TASK [fleetwatch.monitoring.prometheus : Start] **") == "prometheus : Start"


def test_the_stand_in_for_qemu_changes_one_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation, "WORK", tmp_path)
    qemu = tmp_path / "qemu-system-x86_64"
    qemu.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    qemu.chmod(0o755)
    words = ["-name", "tcg", "-accel", "tcg", "-append", "two words", "-accel", "kvm", ""]
    said = subprocess.run(  # noqa: S603 (our own program)
        [emulation.emulator(), *words],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert said.split("\n")[:-1] == [*words[:3], "tcg,tb-size=192", *words[4:]]


def test_only_daemons_of_our_own_are_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation, "WORK", tmp_path)
    monkeypatch.setattr(emulation, "NETWORK", tmp_path / "none")
    asleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    with subprocess.Popen([*asleep, "libvirtd"]) as ours, subprocess.Popen(asleep) as other:  # noqa: S603
        try:
            while not emulation._is(ours.pid, "libvirtd"):
                assert ours.poll() is None
            (tmp_path / "pids.json").write_text(f'{{"virtlogd": {other.pid}, "libvirtd": {ours.pid}}}')
            emulation.Daemons(Console()).end()
            assert ours.wait(timeout=60) != 0
            assert other.poll() is None
            assert not (tmp_path / "pids.json").exists()
        finally:
            ours.kill()
            other.kill()
