"""Experiments that containers refuse, since their host would feel them: ``playbooks/chaos.yml`` on a VM."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import run_playbook
from testinfra.host import Host

from tests.vagrant.support import ROOT, Clock, properties

EXPERIMENT_SECONDS = 2400
"""The playbook waits for the alert and for its end, each for minutes."""
OFFSET = 600


def chaos(experiment: str, **settings: object) -> None:
    """Run an experiment on the receiver until its alert came and went."""
    chosen = {"experiment": experiment, "seconds": 900, **settings}
    run = run_playbook(
        "playbooks/chaos.yml",
        [ROOT / "tests/vagrant/inventory"],
        *("--limit", "receiver"),
        *(word for name, value in chosen.items() for word in ("-e", f"{name}={value}")),
        environment={"LAB_DRIVER": "vagrant"},
        seconds=EXPERIMENT_SECONDS,
    )
    assert run.code == 0, run.output


@pytest.fixture(autouse=True)
def mended(receiver: Host) -> Iterator[None]:
    """See that no experiment runs, and none is left behind."""
    ended = {"ActiveState": "inactive", "LoadState": "not-found"}
    assert properties(receiver, "fleetwatch-chaos", *ended) == ended
    yield
    assert properties(receiver, "fleetwatch-chaos", *ended) == ended


def free(host: Host) -> int:
    """Return the free part of the root file system in percent."""
    return 100 - int(host.check_output("df --output=pcent / | tail -n 1").strip(" %"))


def test_a_disk_is_filled_and_given_back(receiver: Host) -> None:
    before = free(receiver)
    chaos("disk_fill")
    assert free(receiver) == pytest.approx(before, abs=1)


def test_a_clock_is_set_wrong_and_right_again(receiver: Host) -> None:
    clock = Clock(receiver)
    assert receiver.service("systemd-timesyncd").is_running
    chaos("clock_skew", chaos_offset=OFFSET)
    assert clock.offset == pytest.approx(0, abs=2)
    assert receiver.service("systemd-timesyncd").is_running
