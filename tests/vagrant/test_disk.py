"""The root file system of the receiver's VM runs full, for real."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from testinfra.host import Host

from tests.vagrant.support import (
    COMMITS_FAILED,
    FAILED_TRIES,
    PATIENCE,
    AlertPath,
    new_name,
    posted,
    wait_for,
    write,
)

BALLAST = "/var/lib/fleetwatch-test-ballast"
DISK = "/var/lib/alert_receiver"
MAX_POSTS = 400
DUMP = "0123456789abcdef" * 4096
"""64 KiB."""

# Run on the host itself. Posts until one is not accepted; prints the answers.
FLOOD = f"""
import json, pathlib, urllib.error, urllib.request
token = pathlib.Path("/run/fleetwatch-token").read_text()
headers = {{"Content-Type": "application/json", "Authorization": f"Bearer {{token}}"}}
message = json.loads(pathlib.Path("/run/fleetwatch-message.json").read_text())
answers = []
for number in range({MAX_POSTS}):
    message["alerts"][0]["labels"]["number"] = str(number)
    body = json.dumps(message).encode()
    request = urllib.request.Request("http://127.0.0.1:5001/alerts", body, headers)
    try:
        answers.append(urllib.request.urlopen(request, timeout=60).status)
    except urllib.error.HTTPError as error:
        answers.append(error.code)
        break
print(json.dumps(answers))
"""


class Disk:
    """The file system that holds the receiver's store."""

    def __init__(self, host: Host) -> None:
        self._host = host
        assert host.check_output(f"stat -f -c %T {DISK}") == "ext2/ext3"

    def fill(self, leave: float) -> None:
        """Take what is free but for this part of the whole; what only root may use stays."""
        self.clear()
        block, free, size = map(int, self._host.check_output(f"stat -f -c '%S %a %b' {DISK}").split())
        self._host.check_output(f"fallocate --length {int(free - leave * size) * block} {BALLAST}")

    def clear(self) -> None:
        """Give it back."""
        self._host.check_output(f"rm -f {BALLAST} && sync --file-system {DISK}")


@pytest.fixture
def disk(receiver: Host) -> Iterator[Disk]:
    """Return the disk, which is as before after the test."""
    disk = Disk(receiver)
    try:
        yield disk
    finally:
        disk.clear()


def test_a_disk_almost_full_is_told_of_once(disk: Disk, path: AlertPath) -> None:
    """By the severest of the alerts about it, which mutes the others."""
    before = path.newest("MonitoringDiskAlmostFull", host="receiver")
    low = path.newest("LowDiskSpace", host="receiver")
    disk.fill(0.05)
    incident = path.wait_fired("MonitoringDiskAlmostFull", "receiver", before)
    wait_for(lambda: path.fires("LowDiskSpace", "receiver"), PATIENCE)
    wait_for(lambda: path.muted("LowDiskSpace", "receiver"), PATIENCE)
    assert path.newest("LowDiskSpace", host="receiver") == low
    disk.clear()
    path.wait_resolved(incident)


def test_a_full_disk_is_503_and_nothing_by_halves(receiver: Host, disk: Disk, path: AlertPath) -> None:
    flood, name = new_name(), new_name()
    failures = path.now(COMMITS_FAILED)
    write(receiver, "/run/fleetwatch-token", path.secrets["alert_receiver_webhook_token"])
    # What comes as fleetwatch-verify is stored, and nobody is told.
    message = {**posted(flood, DUMP), "receiver": "fleetwatch-verify"}
    write(receiver, "/run/fleetwatch-message.json", json.dumps(message))
    write(receiver, "/run/fleetwatch-flood.py", FLOOD)
    try:
        disk.fill(0)
        answers = json.loads(receiver.check_output("python3 /run/fleetwatch-flood.py"))
    finally:
        receiver.check_output("rm -f /run/fleetwatch-*")
    assert (answers[-1], set(answers[:-1])) in [(503, {200}), (503, set())]
    assert receiver.check_output("curl --silent --fail http://127.0.0.1:5001/healthz")

    tries = path.now(FAILED_TRIES)
    with path.firing(name, 2 * DUMP):  # larger than what did not fit
        wait_for(lambda: path.value(FAILED_TRIES) > tries, PATIENCE)
        wait_for(lambda: path.value(COMMITS_FAILED) > failures, PATIENCE)
        assert path.incidents(name) == []
        assert path.mails(name) == []
        # Each that was accepted is there, and none that was refused.
        for number, answer in enumerate(answers):
            assert len(path.incidents(flood, number=str(number))) == (answer == 200)

        disk.clear()
        wait_for(lambda: path.mails(name), PATIENCE)
    wait_for(lambda: path.ends(name), PATIENCE)
    assert (len(path.mails(name)), len(path.ends(name)), len(path.incidents(name))) == (1, 1, 1)
    assert receiver.check_output("systemctl --failed --no-legend") == ""
