"""Commands that take long are visible, logged, and explain their failure."""

from pathlib import Path

import pytest

from lab import console, up
from lab.console import Console, LabError


def test_the_log_has_everything(tmp_path: Path) -> None:
    Console(tmp_path).run(["sh", "-c", "echo one; echo two >&2"], log="x")
    assert (tmp_path / "x.log").read_text().splitlines()[1:] == ["one", "two"]


def test_a_failure_shows_the_last_lines_and_the_log(tmp_path: Path) -> None:
    with pytest.raises(LabError) as caught:
        Console(tmp_path).run(["sh", "-c", "seq 100; exit 3"], log="x")
    text = str(caught.value)
    assert "exit code 3" in text
    assert "100" in text
    assert "\n    75\n" not in text
    assert str(tmp_path / "x.log") in text


def test_no_silent_minute(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(console, "HEARTBEAT", 0.2)
    Console().run(["sh", "-c", "echo downloading; sleep 0.7"], log="x")
    assert capfd.readouterr().err.count("downloading") >= 2


def test_a_noisy_command_has_one_too(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "HEARTBEAT", 0.2)
    Console().run(["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.1; done"], log="x")
    assert capfd.readouterr().err.count("...") >= 2


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(LabError, match="no-such-program is not installed"):
        console.output(["no-such-program"])


def test_a_failed_command_says_its_own_words() -> None:
    with pytest.raises(LabError, match="it is broken"):
        console.output(["sh", "-c", "echo it is broken >&2; exit 1"])


def test_the_playbook_is_followed() -> None:
    playbook = up.Playbook()
    shown = [
        playbook.show(line)
        for line in (
            "PLAY [Host metrics] ******",
            "TASK [node_exporter : Install] ***",
            "changed: [node1]",
            "node1   : ok=16   changed=2    unreachable=0    failed=0    skipped=1",
            "node2   : ok=16   changed=1    unreachable=0    failed=0    skipped=1",
        )
    ]
    assert shown == ["Host metrics", None, None, None, None]
    assert playbook.state("TASK [node_exporter : Install] ***") == "node_exporter : Install"
    assert playbook.changed == 3


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["sudo", "-n", "env", "A=b", "podman", "run", "--detach"], "podman run"),
        (["/usr/bin/ssh-keygen", "-q"], "ssh-keygen"),
        ([".venv/bin/python", "-m", "pip", "install", "x"], "pip install"),
        (["true"], "true"),
        (["timeout", "--signal=INT", "900", "vagrant", "up", "--provision"], "vagrant up"),
    ],
)
def test_titles(command: list[str], words: str) -> None:
    assert console.title(command) == words
