"""Scenario files, and what an incident does to a reading."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetwatch.simulator.model import Reading
from fleetwatch.simulator.scenarios import Effect, Incident, Play, ScenarioError, load, plan

FLEET = ["sim-web-01", "sim-db-01", "sim-web-02"]
SCENARIOS = load()


def incident(*effects: Effect, start: float = 100, end: float = 200) -> Incident:
    return Incident(id="x", scenario="x", hosts=FLEET, start=start, end=end, effects=list(effects))


def reading() -> Reading:
    return Reading(cpu=20, memory=30, disk=40, load=0.5, received=1000)


def test_these_scenarios_come_with_the_package() -> None:
    assert set(SCENARIOS) == {
        "cpu-high",
        "memory-high",
        "disk-filling",
        "load-high",
        "network-flood",
        "host-silent",
    }
    assert SCENARIOS["cpu-high"].effects[0].strength == 95


@pytest.mark.parametrize(
    ("time", "cpu"), [(99.9, 20), (100, 20), (105, 57.5), (110, 95), (199.9, 95), (200, 20)]
)
def test_a_level_is_reached_over_the_ramp_and_left_at_the_end(time: float, cpu: float) -> None:
    shown = reading()
    incident(Effect(metric="cpu", strength=95, ramp=10)).drive(shown, time)
    assert shown.cpu == pytest.approx(cpu)
    assert (shown.memory, shown.disk, shown.load, shown.received) == (30, 40, 0.5, 1000)


def test_effects_of_one_incident_can_start_one_after_the_other() -> None:
    both = incident(Effect(metric="memory", strength=90), Effect(metric="load", strength=8, after=50))
    early, late = reading(), reading()
    both.drive(early, 149)
    both.drive(late, 150)
    assert (early.memory, early.load) == (90, 0.5)
    assert (late.memory, late.load) == (90, 8)


def test_network_adds_the_integral_of_its_rate() -> None:
    flood = incident(Effect(metric="network", strength=50, ramp=20, after=10))
    step = 0.01
    effect = flood.effects[0]
    for time in (90, 105, 115, 130, 150, 199, 500):
        elapsed = min(time, 200) - 100
        summed = sum(50 * effect.weight((n + 0.5) * step) * step for n in range(max(0, int(elapsed / step))))
        assert flood.received(time) == pytest.approx(summed, rel=1e-3)
    assert flood.received(500) == 50 * 10 + 50 * 70


def test_silence_lasts_as_long_as_the_incident() -> None:
    silent = incident(Effect(metric="silent", after=5))
    assert [silent.silences(time) for time in (99, 100, 104, 105, 199, 200)] == [
        False,
        False,
        False,
        True,
        True,
        False,
    ]


def test_a_request_overrides_the_scenario() -> None:
    plain = plan(Play(scenario="cpu-high"), "a", SCENARIOS, FLEET, 50)
    assert (plain.hosts, plain.start, plain.end) == (["sim-web-01"], 50, 350)
    special = plan(
        Play(scenario="cpu-high", hosts=["*-web-*"], after=5, duration=60, strength=80),
        "b",
        SCENARIOS,
        FLEET,
        50,
    )
    assert (special.hosts, special.start, special.end) == (["sim-web-01", "sim-web-02"], 55, 115)
    assert special.effects[0].strength == 80
    assert special.effects[0].ramp == plain.effects[0].ramp


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"scenario": "cpu-hihg"}, ["cpu-hihg", "cpu-high"]),
        ({"scenario": "cpu-high", "hosts": ["web9"]}, ["web9", "sim-web-01"]),
        ({"scenario": "cpu-high", "strength": 101}, ["cpu", "at most 100"]),
        ({"scenario": "host-silent", "strength": 5}, ["no strength"]),
    ],
)
def test_a_request_without_sense_is_refused_in_one_line(
    request_: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(ScenarioError) as caught:
        plan(Play.model_validate(request_), "x", SCENARIOS, FLEET, 0)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("description: x\nduration: 5\neffects: [{metric: cpu}]", "effects.0: cpu needs a strength"),
        (
            "description: x\nduration: 5\neffects: [{metric: cpu, strength: 101}]",
            "effects.0: strength of cpu",
        ),
        ("description: x\nduration: 5\neffects: [{metric: silent, ramp: 1}]", "effects.0: silent takes"),
        ("description: x\nduration: 5\neffects: [{metric: fan, strength: 1}]", "effects.0.metric"),
        ("description: x\nduration: 5\neffects: []", "effects"),
        ("description: x\nduration: .inf\neffects: [{metric: silent}]", "duration"),
        ("description: x\nduration: 5\ndurration: 5\neffects: [{metric: silent}]", "durration"),
        ("description: x\neffects: [{metric: silent}]", "duration: Field required"),
        ("- a list", "valid dictionary"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_bad_file_is_refused_with_one_line_that_names_file_and_key(
    tmp_path: Path, text: str, key: str
) -> None:
    (tmp_path / "broken.yml").write_text(text)
    with pytest.raises(ScenarioError) as caught:
        load([str(tmp_path)])
    message = str(caught.value)
    assert str(tmp_path / "broken.yml") in message
    assert key in message
    assert "\n" not in message


def test_own_scenarios_join_and_override_the_shipped_ones(tmp_path: Path) -> None:
    text = "description: mine\nduration: 5\neffects: [{metric: disk, strength: 99}]"
    (tmp_path / "cpu-high.yml").write_text(text)
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "notes.txt").write_text("not a scenario")
    found = load([str(tmp_path)])
    assert set(found) == {*SCENARIOS, "mine"}
    assert found["cpu-high"].description == "mine"


def test_a_directory_that_is_missing_is_named() -> None:
    with pytest.raises(ScenarioError, match="/nowhere/at/all"):
        load(["/nowhere/at/all"])
