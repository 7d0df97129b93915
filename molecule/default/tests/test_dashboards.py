"""Every query of every dashboard, asked of the fleet's Prometheus as Grafana would."""

from __future__ import annotations

import time

import pytest
from support import Fleet, wait_for

from lab import panels

WINDOW_SECONDS = 300
MAX_SECONDS = 2.0


@pytest.mark.parametrize("several", [False, True], ids=["all values", "two values"])
def test_every_panel_has_data(fleet: Fleet, capsys: pytest.CaptureFixture[str], *, several: bool) -> None:
    prometheus = panels.Prometheus(fleet.url("monitor", 9090))
    dashboards = panels.dashboards()
    assert len(dashboards) >= 10, "nothing to look at"
    answers: list[panels.Answer] = []
    fleet.post_alert()  # a channel has no metrics before it sent something

    def nothing_wrong() -> bool:
        # Rates over some minutes need some minutes since the start, or since a reboot of another test.
        window = panels.Window(time.time(), WINDOW_SECONDS, prometheus.scrape_interval())
        answers[:] = [
            answer
            for dashboard in dashboards
            for answer in panels.ask(dashboard, prometheus, window, several=several)
        ]
        wrong = panels.problems(answers, prometheus, panels.EMPTY)
        assert not wrong, "\n".join(wrong)
        return True

    wait_for(nothing_wrong, 180)
    with capsys.disabled():
        print("", *panels.report(answers), sep="\n")  # noqa: T201 - how long each panel took
    assert panels.quantile(answers, 0.95) < MAX_SECONDS
