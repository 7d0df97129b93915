"""A VM has a clock of its own: one that goes wrong is told of, and alerts come all the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from testinfra.host import Host

from tests.vagrant.support import PATIENCE, AlertPath, Clock, new_name, wait_for

HOUR = 3600
ALERTS = ("NodeClockSkewDetected", "NodeClockNotSynchronising")


@pytest.fixture
def clock(receiver: Host, path: AlertPath) -> Iterator[Clock]:
    """Return the clock of the receiver's VM, which is right and known to be, before and after the test."""
    clock = Clock(receiver)
    # Where it reaches a server, it would set the clock right.
    receiver.check_output("systemctl stop systemd-timesyncd")
    try:
        clock.vouch()
        wait_for(
            lambda: not any(path.incidents(alert, "firing", host="receiver") for alert in ALERTS), PATIENCE
        )
        yield clock
    finally:
        clock.set(0)
        clock.vouch()
        receiver.check_output("systemctl start systemd-timesyncd")


@pytest.mark.parametrize("offset", [-2 * HOUR, 2 * HOUR], ids=["behind", "ahead"])
def test_a_wrong_clock_is_told_of_and_holds_nothing_back(clock: Clock, path: AlertPath, offset: int) -> None:
    """The messages go out by the very host whose clock is wrong."""
    before = {alert: path.newest(alert, host="receiver") for alert in ALERTS}
    heartbeats_missed = path.newest("WatchdogMissing")
    name = new_name()
    clock.set(offset)
    incidents = [path.wait_fired(alert, "receiver", before[alert]) for alert in ALERTS]
    with path.firing(name):
        wait_for(lambda: path.mails(name), PATIENCE)
        clock.set(0)
        clock.vouch()
        for incident in incidents:
            path.wait_resolved(incident)
    wait_for(lambda: path.ends(name), PATIENCE)
    assert (len(path.mails(name)), len(path.ends(name)), len(path.incidents(name))) == (1, 1, 1)
    assert path.newest("WatchdogMissing") == heartbeats_missed, "a clock that jumps is no missing heartbeat"
