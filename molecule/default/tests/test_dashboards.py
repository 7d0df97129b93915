"""Every query of every dashboard, asked of the fleet's Prometheus as Grafana would."""

from __future__ import annotations

import time

import pytest
from support import Fleet, wait_for

from lab import panels

WINDOW_SECONDS = 300
MAX_SECONDS = 2.0


def ask(fleet: Fleet, *, several: bool = False) -> tuple[list[panels.Answer], panels.Prometheus]:
    """Ask everything; with ``several``, with two values chosen where there may be more than one."""
    prometheus = panels.Prometheus(fleet.url("monitor", 9090))
    window = panels.Window(time.time(), WINDOW_SECONDS, prometheus.scrape_interval())
    answers = [
        answer
        for dashboard in panels.dashboards()
        for answer in panels.ask(dashboard, prometheus, window, several=several)
    ]
    assert len({answer.dashboard for answer in answers}) >= 10, "nothing to look at"
    return answers, prometheus


def test_every_panel_has_data(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.post_alert()  # a channel has no metrics before it sent something

    def without_problem() -> list[panels.Answer]:
        fleet.visit_shop()
        # Rates over some minutes need some minutes since the start, or since a reboot of another test.
        answers, prometheus = ask(fleet)
        wrong = panels.problems(answers, prometheus, panels.EMPTY)
        assert not wrong, "\n".join(wrong)
        return answers

    answers = wait_for(without_problem, 400)
    with capsys.disabled():
        print("", *panels.report(answers), sep="\n")  # noqa: T201 - how long each panel took
    assert panels.quantile(answers, 0.95) < MAX_SECONDS


def test_two_values_may_be_chosen(fleet: Fleet) -> None:
    answers, _ = ask(fleet, several=True)
    assert [f"{answer.name}: {answer.error}: {answer.expr}" for answer in answers if answer.error] == []
