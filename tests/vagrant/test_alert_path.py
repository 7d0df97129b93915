"""The alert path on VMs: to the mailbox and back, through a reboot, and through a power cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from lab.alert import ApiError, Plan, call, follow
from tests.vagrant.conftest import Vm
from tests.vagrant.support import (
    FAILED_TRIES,
    PATIENCE,
    UNITS,
    AlertPath,
    boot_id,
    new_name,
    posted,
    properties,
    wait_for,
    write,
)


def is_away(path: AlertPath) -> bool:
    """Return whether the receiver gives no answer at all."""
    try:
        call("GET", f"{path.urls.receiver}/healthz")
    except ApiError as error:
        return "does not answer" in str(error)
    return False


def test_an_incident_reaches_the_mailbox_and_so_does_its_end(path: AlertPath) -> None:
    stations = follow(path.urls, path.tokens, Plan(host="sim-web-01", patience=4))
    names = [station.name for station in stations]
    assert names.index("receiver committed") < names.index("message in the mailbox")
    assert names[-1] == "resolved message in the mailbox"


def test_an_alert_that_fires_while_the_receiver_reboots_arrives_once(
    vm: Callable[[str], Vm], path: AlertPath
) -> None:
    machine = vm("receiver")
    name = new_name()
    wait_for(path.all_up, PATIENCE)
    tries = path.now(FAILED_TRIES)
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        reboot = pool.submit(machine.reboot)
        try:
            wait_for(lambda: is_away(path), PATIENCE)
            stack.enter_context(path.firing(name))
            # It does try, and it fails.
            wait_for(lambda: path.value(FAILED_TRIES) > tries, PATIENCE)
        finally:
            reboot.result()
        wait_for(lambda: path.mails(name), PATIENCE)
        (incident,) = path.incidents(name)
        assert incident["status"] == "firing"
    # What comes after it has come: there is no second one on its way.
    wait_for(lambda: path.ends(name), PATIENCE)
    assert (len(path.mails(name)), len(path.ends(name)), len(path.incidents(name))) == (1, 1, 1)


def test_what_was_accepted_survives_a_power_cut(vm: Callable[[str], Vm], path: AlertPath) -> None:
    """The kernel is reset by the program that gets the receiver's 2xx, without a word to anybody."""
    machine = vm("receiver")
    name = new_name()
    before = boot_id(machine.host)
    write(machine.host, "/run/fleetwatch-alert.json", json.dumps(posted(name)))
    write(
        machine.host,
        "/run/fleetwatch-header",
        f"Authorization: Bearer {path.secrets['alert_receiver_webhook_token']}",
    )
    # It is not to be mailed before the cut; the mailbox forgets this with it.
    call("PUT", f"{path.urls.mailbox}/api/failure", {"mode": "refuse"})
    post = (
        "curl --silent --fail --header @/run/fleetwatch-header --json @/run/fleetwatch-alert.json "
        "http://127.0.0.1:5001/alerts && echo b > /proc/sysrq-trigger"
    )
    machine.host.check_output(f"systemd-run --collect --on-active=1 /bin/sh -c '{post}'")
    machine.wait_for_boot(before)

    assert machine.ssh("systemctl is-system-running --wait").stdout.strip() == "running"
    for unit in UNITS["receiver"]:
        assert properties(machine.host, unit, "ActiveState", "NRestarts") == {
            "ActiveState": "active",
            "NRestarts": "0",
        }
    (incident,) = wait_for(lambda: path.incidents(name), PATIENCE)
    path.wait_mailed(incident, "firing")
    # At least once: the dispatcher may have been told of a refusal, but never of a success.
    assert len(path.mails(name)) <= 2
