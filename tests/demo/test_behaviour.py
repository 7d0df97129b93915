from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
from pydantic import ValidationError

from fleetwatch.demo import behaviour
from fleetwatch.demo.behaviour import Behaviour, Change, lognormal
from fleetwatch.demo.cli import main
from fleetwatch.demo.settings import Settings


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate({"state_directory": tmp_path, "error_rate": 0.05, "latency": 0.01})


def change(**what: float) -> Change:
    return Change.model_validate(what)


def holds(found: Behaviour) -> tuple[float, float, bool]:
    current = found.current()
    return current.error_rate, current.latency, current.until is not None


def test_without_a_change_the_settings_hold(settings: Settings, clock: Clock) -> None:
    assert holds(Behaviour(settings, clock)) == (0.05, 0.01, False)


def test_a_change_holds_on_all_instances_and_ends_by_itself(settings: Settings, clock: Clock) -> None:
    one, other = Behaviour(settings, clock), Behaviour(settings, clock)
    assert holds(other) == (0.05, 0.01, False)
    one.change(change(error_rate=0.5, seconds=120))
    assert holds(one) == holds(other) == (0.5, 0.01, True)
    one.change(change(latency=0.4, seconds=120))  # instead of the one before
    assert holds(other) == (0.05, 0.4, True)
    clock.now += 119
    assert holds(other) == (0.05, 0.4, True)
    clock.now += 1
    assert holds(one) == holds(other) == (0.05, 0.01, False)


def test_zero_is_a_change_too(settings: Settings, clock: Clock) -> None:
    Behaviour(settings, clock).change(change(error_rate=0, latency=0, seconds=60))
    assert holds(Behaviour(settings, clock)) == (0, 0, True)


def test_a_reset_ends_it(settings: Settings, clock: Clock) -> None:
    one, other = Behaviour(settings, clock), Behaviour(settings, clock)
    one.change(change(error_rate=1, seconds=3600))
    assert holds(other)[0] == 1
    one.reset()
    assert holds(other) == (0.05, 0.01, False)
    one.reset()  # nothing to reset is no error


def test_a_clock_that_is_set_back_does_not_prolong_it(settings: Settings, clock: Clock) -> None:
    found = Behaviour(settings, clock)
    found.change(change(error_rate=1, seconds=60))
    clock.now -= 3
    assert holds(found)[0] == 1
    clock.now -= 3600
    assert holds(found)[0] == 0.05


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"error_rate": 2, "latency": null, "written_at": 1, "until": 9999999999}',
        '{"error_rate": 1}',
        "\x00\xff",
    ],
)
def test_a_file_that_makes_no_sense_is_ignored(
    text: str, settings: Settings, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    (settings.state_directory / behaviour.FILE).write_bytes(text.encode("latin-1"))
    found = Behaviour(settings, clock)
    assert holds(found) == holds(found) == (0.05, 0.01, False)
    assert [record.message for record in caplog.records] == ["behaviour ignored"]  # once


def test_a_file_cannot_make_it_last_for_ever(settings: Settings, clock: Clock) -> None:
    written = {"error_rate": 1, "latency": None, "written_at": clock.now, "until": clock.now * 2}
    (settings.state_directory / behaviour.FILE).write_text(json.dumps(written))
    found = Behaviour(settings, clock)
    assert holds(found)[0] == 1
    clock.now += 3600
    assert holds(found)[0] == 0.05


def test_nothing_is_left_beside_the_file_and_the_service_can_read_what_root_wrote(
    settings: Settings, clock: Clock
) -> None:
    Behaviour(settings, clock).change(change(error_rate=1, seconds=60))
    (file,) = settings.state_directory.iterdir()
    assert file.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "what",
    [
        {"seconds": 60},
        {"error_rate": 1.01, "seconds": 60},
        {"error_rate": -0.01, "seconds": 60},
        {"latency": 10.1, "seconds": 60},
        {"latency": float("inf"), "seconds": 60},
        {"error_rate": 1, "seconds": 0.5},
        {"error_rate": 1, "seconds": 3601},
        {"error_rate": 1},
        {"error_rate": 1, "seconds": 60, "more": 1},
    ],
)
def test_what_is_out_of_bounds_is_refused(what: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        change(**what)


def test_the_command_changes_shows_and_resets(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSACTIONS_STATE_DIRECTORY", str(settings.state_directory))

    def run(*arguments: str) -> dict[str, object]:
        assert main(["behaviour", *arguments]) == 0
        told: dict[str, object] = json.loads(capsys.readouterr().out)
        return told

    assert run() == {"error_rate": 0.05, "latency": 0.01, "until": None}
    assert run("--error-rate", "0.5", "--latency", "0.3", "--seconds", "60")["error_rate"] == 0.5
    assert holds(Behaviour(settings)) == (0.5, 0.3, True)
    assert run()["until"] is not None
    assert run("--reset") == {"error_rate": 0.05, "latency": 0.01, "until": None}


def test_the_command_refuses_what_is_out_of_bounds_before_anything_is_changed(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSACTIONS_STATE_DIRECTORY", str(settings.state_directory))
    assert main(["behaviour", "--error-rate", "2"]) == 2
    assert "error_rate" in capsys.readouterr().err
    assert list(settings.state_directory.iterdir()) == []
    monkeypatch.setenv("TRANSACTIONS_STATE_DIRECTORY", str(settings.state_directory / "missing"))
    assert main(["behaviour", "--error-rate", "1"]) == 1
    assert "missing" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--error-rate", "--latency"])
def test_a_reset_with_a_change_is_refused_and_nothing_is_changed(
    option: str, settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSACTIONS_STATE_DIRECTORY", str(settings.state_directory))
    assert main(["behaviour", "--error-rate", "1"]) == 0
    with pytest.raises(SystemExit) as caught:
        main(["behaviour", "--reset", option, "0"])
    assert caught.value.code == 2
    assert "--reset goes alone" in capsys.readouterr().err
    assert Behaviour(settings).current().error_rate == 1


def test_latency_is_around_its_median_and_bounded() -> None:
    drawn = [lognormal(0.2, 0.5) for _ in range(5000)]
    assert statistics.median(drawn) == pytest.approx(0.2, rel=0.15)
    assert 0 < min(drawn) < 0.1
    assert 0.4 < max(drawn) <= behaviour.LONGEST_LATENCY
    assert lognormal(0, 0.5) == 0
    assert lognormal(0.2, 0) == pytest.approx(0.2)
    assert max(lognormal(10, 3) for _ in range(1000)) == behaviour.LONGEST_LATENCY
