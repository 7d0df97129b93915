"""Fleet, state and clock: incidents in time, and a counter that never goes backwards."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path

import pytest

from fleetwatch.simulator.fleet import Fleet
from fleetwatch.simulator.scenarios import Play, ScenarioError

from .conftest import NOON, MakeFleet, Time


def received(fleet: Fleet, host: str = "sim-web-01") -> int:
    reading = fleet.snapshot()[host]
    assert reading is not None
    return int(reading.received)


def cpu(fleet: Fleet, host: str = "sim-web-01") -> float:
    reading = fleet.snapshot()[host]
    assert reading is not None
    return reading.cpu


def test_an_incident_drives_its_hosts_and_only_them_until_its_end(make_fleet: MakeFleet, time: Time) -> None:
    fleet = make_fleet()
    fleet.play(Play(scenario="cpu-high", hosts=["sim-web-01"], duration=180, strength=95))
    time.pass_(30)
    assert cpu(fleet) == pytest.approx(95)
    assert cpu(fleet, "sim-db-01") < 65
    time.pass_(150)
    assert cpu(fleet) < 65
    assert fleet.incidents() == []


def test_a_flood_shows_in_the_rate_while_it_lasts(make_fleet: MakeFleet, time: Time) -> None:
    fleet = make_fleet()
    fleet.play(Play(scenario="network-flood", hosts=["sim-web-01"], strength=100e6, duration=60))
    seen = [received(fleet)]
    for _ in range(4):
        time.pass_(30)
        seen.append(received(fleet))
    rates = [(after - before) / 30e6 for before, after in pairwise(seen)]
    assert 70 < rates[0] < 90  # a ramp of 15 s
    assert 100 < rates[1] < 110
    assert max(rates[2:]) < 10


def test_an_incident_can_be_ended_early_and_only_it(make_fleet: MakeFleet, time: Time) -> None:
    fleet = make_fleet()
    one = fleet.play(Play(scenario="cpu-high", hosts=["sim-web-01"]))
    other = fleet.play(Play(scenario="cpu-high", hosts=["sim-db-01"]))
    time.pass_(30)
    assert fleet.end(one.id) == [one]
    assert cpu(fleet) < 65
    assert cpu(fleet, "sim-db-01") == pytest.approx(95)
    assert fleet.end("unknown") == []
    assert fleet.end() == [other]
    assert cpu(fleet, "sim-db-01") < 65


def test_where_incidents_overlap_the_last_one_played_wins(make_fleet: MakeFleet, time: Time) -> None:
    fleet = make_fleet()
    for strength in (95, 80):
        fleet.play(Play(scenario="cpu-high", hosts=["sim-web-01"], strength=strength))
    time.pass_(30)
    assert cpu(fleet) == pytest.approx(80)


def test_a_silent_host_has_no_reading(make_fleet: MakeFleet, time: Time) -> None:
    fleet = make_fleet()
    fleet.play(Play(scenario="host-silent", hosts=["sim-db-01"], duration=10))
    assert [host for host, reading in fleet.snapshot().items() if reading is None] == ["sim-db-01"]
    time.pass_(10)
    assert None not in fleet.snapshot().values()


def test_a_request_that_fails_changes_nothing(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    with pytest.raises(ScenarioError):
        fleet.play(Play(scenario="none"))
    assert fleet.incidents() == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_counter_survives_restarts_floods_and_clock_jumps(
    make_fleet: MakeFleet, time: Time, tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)  # noqa: S311 - the same dice in each run
    state = tmp_path / "state.json"
    fleet = make_fleet(state)
    last = received(fleet)
    for _ in range(400):
        match dice.randrange(7):
            case 0:
                fleet = make_fleet(state)  # as after SIGKILL: nothing was told to the old one
                time.monotonic = dice.uniform(0, 1e6)
                fleet = make_fleet(state)
            case 1:
                time.wall += dice.choice([-1, -3600, -5 * 86400, 60])
            case 2:
                duration, after = dice.uniform(1, 60), dice.uniform(0, 30)
                fleet.play(
                    Play(scenario="network-flood", hosts=["sim-web-01"], duration=duration, after=after)
                )
            case 3:
                fleet.end()
            case _:
                time.pass_(dice.uniform(0, 30))
        value = received(fleet)
        assert value >= last
        last = value


def test_a_restart_leaves_no_trace_in_the_rate(make_fleet: MakeFleet, time: Time, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    fleet = make_fleet(state)
    fleet.play(Play(scenario="network-flood", hosts=["sim-web-01"], duration=60))
    time.pass_(90)
    before = received(fleet)
    time.pass_(15)
    rate = (received(make_fleet(state)) - before) / 15
    assert 0.5e6 < rate < 10e6


def test_when_the_clock_is_set_back_time_and_incidents_go_on(make_fleet: MakeFleet, time: Time) -> None:
    fleet = make_fleet()
    fleet.play(Play(scenario="cpu-high", hosts=["sim-web-01"], duration=100))
    time.wall -= 7200
    before = received(fleet)
    time.pass_(60)
    assert received(fleet) > before
    assert len(fleet.incidents()) == 1
    time.pass_(40)
    assert fleet.incidents() == []


def test_the_clock_follows_when_it_is_set_forward(time: Time) -> None:
    clock = time.clock(0)
    time.wall += 86400
    assert clock.now() == NOON + 86400
    assert time.clock(NOON + 1e6).now() == NOON + 1e6


def test_another_seed_starts_its_counters_at_zero(make_fleet: MakeFleet, time: Time, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    make_fleet(state)
    time.pass_(1000)
    assert received(make_fleet(state)) > 0
    assert received(make_fleet(state, seed=2)) == 0


def test_hosts_that_come_and_go_do_not_change_the_others(
    make_fleet: MakeFleet, time: Time, tmp_path: Path
) -> None:
    state = tmp_path / "state.json"
    first = make_fleet(state)
    time.pass_(100)
    expected = first.snapshot()["sim-db-01"]
    assert make_fleet(state, ["sim-new-01", "sim-db-01"]).snapshot()["sim-db-01"] == expected


def test_incidents_go_on_after_a_restart(make_fleet: MakeFleet, time: Time, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    played = make_fleet(state).play(Play(scenario="cpu-high", hosts=["sim-web-01"]))
    time.pass_(30)
    fleet = make_fleet(state)
    assert fleet.incidents() == [played]
    assert cpu(fleet) == pytest.approx(95)


def test_incidents_of_the_settings_are_played_at_each_start_but_not_twice_at_a_time(
    make_fleet: MakeFleet, time: Time, tmp_path: Path
) -> None:
    state = tmp_path / "state.json"
    requests = [Play(scenario="cpu-high", duration=60)]
    for expected_starts in ([NOON], [NOON]):
        fleet = make_fleet(state)
        fleet.play_at_start(requests)
        assert [incident.start for incident in fleet.incidents()] == expected_starts
    time.pass_(100)
    fleet = make_fleet(state)
    fleet.play_at_start(requests)
    assert [incident.start for incident in fleet.incidents()] == [NOON + 100]


@pytest.mark.parametrize("text", ["", "{", '{"fleet": 1}', "\udcff"])
def test_a_broken_state_file_is_a_reset_not_a_crash(
    make_fleet: MakeFleet, time: Time, tmp_path: Path, text: str
) -> None:
    state = tmp_path / "state.json"
    state.write_bytes(text.encode(errors="surrogateescape"))
    fleet = make_fleet(state)
    assert received(fleet) == 0
    assert json.loads(state.read_text())["since"] == NOON


def test_a_state_that_cannot_be_saved_stops_the_start_but_not_a_running_fleet(
    make_fleet: MakeFleet, time: Time, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(FileNotFoundError):
        make_fleet(tmp_path / "missing" / "state.json")
    home = tmp_path / "home"
    home.mkdir()
    fleet = make_fleet(home / "state.json")
    (home / "state.json").unlink()
    home.rmdir()
    for _ in range(3):
        time.pass_(5)
        assert len(fleet.snapshot()) == 3
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "state not saved, a restart would reset counters and incidents"
    ]
