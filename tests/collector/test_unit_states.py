"""The states of services: what systemctl says, when it is asked, and when it fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fleetwatch.collector.collectors import unit_states
from fleetwatch.collector.collectors.unit_states import (
    GIVE_UP,
    SETTLED,
    UNSETTLED,
    State,
    UnitStates,
    states,
)
from tests.collector.conftest import Host
from tests.collector.test_collectors import Clock, Values, clock, settings, values
from tests.common.services import wait_until

__all__ = ["clock"]


def collect(**changes: object) -> Callable[[], Values]:
    collector = UnitStates(settings(**changes))
    return lambda: values(collector())


def told(found: Values) -> dict[str, str]:
    return {key[2]: key[1] for key in found if key[0] == "host_unit_state"}


def test_states_restarts_and_starts(host: Host) -> None:
    host.says(("web.service", "active", 3), ("db.service", "failed", 0), ("run-u1.service", "active", 0))
    found = collect()()
    assert told(found) == {"web.service": "active", "db.service": "failed"}
    assert found["host_unit_state", "active", "web.service"] == 1
    assert found["host_unit_restarts_total", "web.service"] == 3
    assert found["host_unit_restarts_total", "db.service"] == 0
    assert found["host_unit_start_time_seconds", "web.service"] == 1795294284
    assert ("host_unit_start_time_seconds", "db.service") not in found, "it does not run"


def test_systemd_is_asked_once_for_all_services(host: Host) -> None:
    host.says(("web.service", "active", 0))
    collect()()
    assert host.asked.read_text() == (
        "show --property=Id,ActiveState,NRestarts,ActiveEnterTimestamp --timestamp=unix "
        "--state=active,reloading,activating,deactivating,maintenance,failed *.service\n"
    )


def test_systemd_is_not_asked_again_until_something_begins_or_ends(host: Host, clock: Clock) -> None:
    collector = collect()
    host.says(("web.service", "active", 0))
    for _ in range(3):
        assert told(collector()) == {"web.service": "active"}
    assert host.times_asked == 1
    host.says(("web.service", "failed", 0))
    host.something_began()
    assert told(collector()) == {"web.service": "failed"}
    assert host.times_asked == 2


@pytest.mark.parametrize(("state", "seconds"), [("active", SETTLED), ("failed", UNSETTLED)])
def test_systemd_is_asked_again_after_a_while(host: Host, clock: Clock, state: str, seconds: float) -> None:
    collector = collect()
    host.says(("web.service", state, 0))
    collector()
    clock.now += seconds - 1
    collector()
    assert host.times_asked == 1
    host.says()
    clock.now += 1
    assert told(collector()) == {}
    assert host.times_asked == 2


def test_systemd_is_asked_each_time_where_nothing_tells_of_changes(host: Host) -> None:
    host.invocations.rmdir()
    collector = collect()
    for _ in range(3):
        collector()
    assert host.times_asked == 3


def test_an_error_is_in_systemds_words_and_what_was_known_is_not_told_as_new(host: Host) -> None:
    collector = collect()
    host.says(("web.service", "active", 0))
    works = host.systemctl.read_text()
    collector()
    host.systemctl.write_text("#!/bin/sh\necho 'Failed to connect to bus:\nNo such file' >&2\nexit 1\n")
    host.something_began()
    for _ in range(2):
        with pytest.raises(OSError, match=r"^systemctl show: Failed to connect to bus: No such file$"):
            collector()
    host.systemctl.write_text(works)
    assert told(collector()) == {"web.service": "active"}


def test_no_systemctl_at_all(host: Host) -> None:
    host.systemctl.unlink()
    with pytest.raises(FileNotFoundError):
        collect()()


def patiently(collector: Callable[[], Values]) -> Callable[[], dict[str, str]]:
    def look() -> dict[str, str]:
        try:
            return told(collector())
        except TimeoutError:
            return {}

    return look


def test_an_answer_that_comes_late_is_taken_by_a_later_round(host: Host) -> None:
    host.says(("web.service", "active", 0))
    ready = host.systemctl.with_name("ready")
    script = host.systemctl.read_text().replace("exec", f"until [ -e {ready} ]; do sleep 0.05; done\nexec")
    host.systemctl.write_text(script)
    collector = collect(collector_timeouts={"unit_states": 0.2})
    for _ in range(3):
        with pytest.raises(TimeoutError, match=r"^systemctl has not returned for \d+ s$"):
            collector()
    host.something_began()
    ready.touch()
    look = patiently(collector)
    assert wait_until(look) == {"web.service": "active"}
    assert host.times_asked == 1
    wait_until(lambda: look() and host.times_asked == 2, what="the answer was from before the change")


def test_what_was_known_holds_while_an_answer_is_late_but_not_for_long(host: Host, clock: Clock) -> None:
    collector = collect(collector_timeouts={"unit_states": 0.2})
    late = host.booted / "late"
    script = host.systemctl.read_text().replace("exec", f"[ -e {late} ] && exec sleep 600\nexec")
    host.systemctl.write_text(script)
    host.says(("web.service", "active", 0))
    clock.now += 1
    look = patiently(collector)
    assert any(look() for _ in range(300)), "a machine may be slow, and the clock stands still"
    assert look() == {"web.service": "active"}
    late.touch()
    host.something_began()
    for _ in range(2):
        assert told(collector()) == {"web.service": "active"}
    clock.now += GIVE_UP
    for _ in range(2):
        with pytest.raises(TimeoutError):
            collector()


def test_one_that_hangs_is_ended_and_tried_anew(host: Host) -> None:
    host.says(("web.service", "active", 0))
    works = host.systemctl.read_text()
    host.systemctl.write_text(works.replace("exec cat", "exec sleep 600 #"))
    look = patiently(collect(collector_timeouts={"unit_states": 0.2}))
    wait_until(lambda: look() == {} and host.times_asked == 1, what="it hangs")
    host.systemctl.write_text(works)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unit_states, "GIVE_UP", 0.3)
        wait_until(lambda: look() or host.times_asked > 1, what="it is tried anew")
    assert wait_until(look) == {"web.service": "active"}


def test_without_systemd_nobody_is_asked(host: Host) -> None:
    host.booted.rmdir()
    assert collect()() == {}
    assert host.times_asked == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("\n\n\n", []),
        ("NRestarts=1\nActiveState=active\n", []),
        ("Id=a.socket\nActiveState=active\n", []),
        ("Id=a.service\nActiveState=inactive\n", []),
        ("Id=a.service\nActiveState=active\n", [State("a.service", "active", 0, None)]),
        (
            "Id=a.service\nActiveState=active\nNRestarts=\nActiveEnterTimestamp=\n",
            [State("a.service", "active", 0, None)],
        ),
        (
            "Id=a.service\nActiveState=reloading\nActiveEnterTimestamp=@5\n\nId=a.service\nActiveState=failed\n",
            [State("a.service", "failed", 0, None)],
        ),
        ("Id=a=b.service\nActiveState=failed\nnoise\n", [State("a=b.service", "failed", 0, None)]),
    ],
)
def test_what_systemctl_writes(text: str, expected: list[State]) -> None:
    assert states(text) == expected
