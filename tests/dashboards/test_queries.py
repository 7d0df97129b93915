"""What runs the queries of dashboards (``lab.panels``), without a Prometheus."""

from __future__ import annotations

from typing import Any

from lab import panels
from lab.panels import Answer, Empty, When, Window


class Known:
    """Stands for a Prometheus that knows one metric."""

    def get(self, path: str, **_: Any) -> Any:
        assert path == "label/__name__/values"
        return ["up"]

    def exists(self, selector: str) -> bool:
        return selector == "up"


def answer(**changes: Any) -> Answer:
    return Answer(**({"dashboard": "d", "panel": "P", "ref": "A", "expr": "up", "step": None} | changes))


def wrong(one: Answer, *empty: Empty) -> list[str]:
    return panels.problems([one], Known(), list(empty))  # type: ignore[arg-type] # it is asked no more


def test_no_data_is_a_problem_unless_listed() -> None:
    assert wrong(answer(series=1)) == []
    assert "no data" in wrong(answer())[0]
    assert wrong(answer(), Empty("d", "P", "reason")) == []
    assert wrong(answer(), Empty("d", "P", "reason", expr="up")) == []


def test_an_error_is_a_problem_even_if_listed() -> None:
    assert "parse error" in wrong(answer(error="parse error"), Empty("d", "P", "reason", When.AT_TIMES))[0]


def test_an_entry_that_is_not_needed_is_a_problem() -> None:
    assert "has data" in wrong(answer(series=1), Empty("d", "P", "reason"))[0]
    assert "there is no such query" in wrong(answer(series=1), Empty("d", "Q", "reason"))[0]
    assert "there is no such query" in wrong(answer(series=1), Empty("d", "P", "reason", expr="down"))[0]
    assert "there is no such query" in wrong(answer(series=1), Empty("d", "P|Q", "one", expr="x"))[0]


def test_at_times_the_metrics_must_exist() -> None:
    at_times = Empty("d", "P", "reason", When.AT_TIMES)
    assert wrong(answer(), at_times) == []
    assert wrong(answer(series=1), at_times) == []
    assert "no such metric: upp" in wrong(answer(expr="sum(rate(upp[5m])) + up"), at_times)[0]


def test_an_entry_may_depend_on_a_series() -> None:
    assert wrong(answer(), Empty("d", "P", "reason", without="down")) == []
    assert wrong(answer(series=1), Empty("d", "P", "reason", without="down")) == []
    assert "no data" in wrong(answer(), Empty("d", "P", "reason", without="up"))[0]


def test_unknown_metrics_and_patterns() -> None:
    assert panels.unknown('a + rate(b[5m]) + {__name__=~"c.*|d"} + vector(0)', ["a", "cc"]) == {"b"}
    assert panels.unknown('{__name__=~"c.*|d"}', ["cd"]) == set()
    assert panels.unknown('{__name__=~"c.|d"}', ["c", "dd"]) == {"c.|d"}


def test_steps_are_those_of_grafana() -> None:
    day = Window(end=0, seconds=86400, scrape_interval=15)
    assert [day.step(width) for width in (24, 8, 3)] == [60, 300, 600]
    assert Window(end=0, seconds=600, scrape_interval=15).step(24) == 15
    assert day.built_in(60)["__rate_interval"] == "75s"
    assert day.built_in(15)["__rate_interval"] == "60s"


def test_values_are_escaped_as_grafana_does() -> None:
    assert panels.any_of(["web-1"]) == "(web-1)"
    assert panels.any_of(["a.b", "c+"]) == r"(a\\.b|c\\+)"  # in PromQL's quotes, \\ is one backslash
    assert panels.any_of(["a\\"]) == "(a" + 4 * "\\" + ")"


def test_nan_is_no_data() -> None:
    data = {"resultType": "vector", "result": [{"value": [0, "NaN"]}, {"value": [0, "1"]}]}
    assert panels._drawn(data) == 1
    data = {"resultType": "matrix", "result": [{"values": [[0, "NaN"], [1, "NaN"]]}]}
    assert panels._drawn(data) == 0


def test_a_panel_is_as_slow_as_its_slowest_query() -> None:
    answers = [answer(panel=str(number), seconds=float(number)) for number in range(1, 21)]
    assert panels.quantile(answers, 0.95) == 19
    assert panels.quantile([*answers, answer(panel="1", seconds=30.0)], 0.95) == 20
    assert panels.quantile([], 0.95) == 0
