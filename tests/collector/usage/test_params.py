"""Which questions are answered, and what is said of the others."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import promql_parser
import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from werkzeug.exceptions import BadRequest, NotFound

from fleetwatch.collector.usage import params, promql
from fleetwatch.collector.usage.params import PointsQuery, Question, UsageQuery
from fleetwatch.collector.usage.settings import Expressions
from fleetwatch.common import web
from tests.collector.usage.conftest import ODD, settings

NOW = datetime(2026, 1, 10, 12, 0, 7, tzinfo=UTC)
SETTINGS = settings("http://prometheus:9090")
APP = Flask(__name__)


def ask(**query: Any) -> Question:
    with APP.test_request_context(query_string={"resource": "cpu", **query}):
        return params.question(web.query(PointsQuery), SETTINGS, params.POINTS_OF_AVERAGE, NOW)


def refused(**query: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        ask(**query)
    return caught.value.description or ""


@pytest.mark.parametrize(("query", "start", "end", "step"), [
    ({"range": "24"}, NOW - timedelta(days=1), NOW, 15),
    ({"range": "0.5"}, NOW - timedelta(minutes=30), NOW, 15),
    ({"range": "15m"}, NOW - timedelta(minutes=15), NOW, 15),
    ({"range": "2d"}, NOW - timedelta(days=2), NOW, 30),
    ({"range": "10s"}, NOW - timedelta(seconds=10), NOW, 10),
    ({"range": "1w", "step": "1h"}, NOW - timedelta(days=7), NOW, 3600),
    ({"range": "1h", "end": "2026-01-02T00:00:00Z"}, datetime(2026, 1, 1, 23, tzinfo=UTC),
     datetime(2026, 1, 2, tzinfo=UTC), 15),
    ({"start": "2026-01-10T00:00:00Z", "step": "60"}, datetime(2026, 1, 10, tzinfo=UTC), NOW, 60),
    ({"start": "2026-01-10T02:00:00+02:00", "end": "2026-01-10T01:00:00.5Z"},
     datetime(2026, 1, 10, tzinfo=UTC), datetime(2026, 1, 10, 1, 0, 0, 500_000, tzinfo=UTC), 15),
    # What becomes of +02:00 in a URL when nobody encodes the plus.
    ({"start": "2026-01-10T02:00:00 02:00", "step": "60"}, datetime(2026, 1, 10, tzinfo=UTC), NOW, 60),
    # A caller's clock may be a little ahead.
    ({"range": "1", "end": "2026-01-10T12:00:30Z"}, NOW - timedelta(seconds=3577), NOW, 15),
])  # fmt: skip
def test_times(query: dict[str, str], start: Any, end: Any, step: Any) -> None:
    found = ask(**query)
    assert (found.start, found.end, found.step) == (start.timestamp(), end.timestamp(), step)


@pytest.mark.parametrize(("query", "reason"), [
    ({}, "which time? Give start and end, or range=24"),
    ({"end": "2026-01-01T00:00:00Z"}, "start is missing"),
    ({"range": "1", "start": "2026-01-01T00:00:00Z"}, "range and start say the same"),
    ({"range": "1", "start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}, "range and start"),
    ({"start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}, "start must be before end"),
    ({"start": "2026-01-02T00:00:00Z", "end": "2026-01-02T00:00:00Z"}, "start must be before end"),
    ({"start": "2026-01-01T00:00:00Z", "end": "2026-02-01T00:00:00Z"}, "end is in the future"),
    ({"start": "2027-01-01T00:00:00Z"}, "start is in the future; here it is 2026-01-10T12:00:07Z"),
    ({"start": "2026-01-01T00:00:00"}, "start: has no time zone"),
    ({"start": "2026-01-01"}, "start: has no time zone"),
    ({"start": "2026-13-01T00:00:00Z"}, "start: is not a time that exists"),
    ({"start": "yesterday"}, "start: is not a time in ISO 8601"),
    ({"start": "1767312000"}, "start: is not a time in ISO 8601"),
    ({"start": "2026-01-01T00:00:00Z", "end": ""}, "end: is not a time in ISO 8601"),
    ({"start": "1969-12-31T00:00:00Z", "end": "1970-01-02T00:00:00Z"}, "begins before 1970"),
    ({"start": "0001-01-01T00:00:00+14:00", "end": "0001-01-02T00:00:00Z"}, "begins before 1970"),
    ({"start": "9999-12-31T23:59:59-14:00"}, "start is in the future"),
    ({"range": "401d"}, "longer than the limit of 400 days"),
    ({"range": "0"}, "range: must be greater than zero"),
    ({"range": "-1"}, "range: is not a number of hours"),
    ({"range": "1y"}, "range: is not a number of hours"),
    ({"range": "inf"}, "range: is not a number of hours"),
    ({"range": "٣"}, "range: is not a number of hours"),
    ({"range": "1", "step": "2h"}, "step is longer than the time asked for (1h)"),
    ({"range": "1", "step": "0"}, "step: must be at least one second"),
    ({"range": "1", "step": "1.5"}, "step: is not a whole number of seconds"),
    ({"range": "30d", "step": "1"}, "limit of 100000: use step=26 or longer"),
    ({"range": "1", "resource": "gpu"}, "resource: Input should be 'cpu', 'mem' or 'disk'"),
    ({"range": "1", "resource": ["cpu", "mem"]}, "the query parameter resource is given 2 times"),
    ({"range": "1", "hosts": "web1"}, '"hosts" is not known here'),
    ({"range": "1", "host": ""}, "host: String should have at least 1 character"),
    ({"range": "1", "host": "a\nb"}, "host: String should match pattern"),
    ({"range": "1", "host": "x" * 256}, "host: String should have at most 255 characters"),
    ({"range": "1", "format": "xml"}, "format: Input should be 'json' or 'csv'"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused_with_the_reason(query: dict[str, Any], reason: str) -> None:
    assert reason in refused(**query)


def test_the_resource_must_be_named() -> None:
    with APP.test_request_context(query_string={"range": "1"}), pytest.raises(BadRequest) as caught:
        web.query(UsageQuery)
    assert caught.value.description == "resource: Field required"


@pytest.mark.parametrize(("query", "reason"), [
    ({"group": "wed"}, 'there is no group "wed": did you mean web?'),
    ({"group": "empty"}, 'the group "empty" has no hosts'),
    ({"group": "web", "host": "db1"}, 'host "db1" is not in the group "web"'),
])  # fmt: skip
def test_unknown_groups(query: dict[str, str], reason: str) -> None:
    with pytest.raises(NotFound) as caught:
        ask(range="1", **query)
    assert caught.value.description == reason


WORDS = [
    *("", "cpu", "mem", "24", "15m", "2d", "0", "web", "web1", "1", "csv", "2026-01-02T03:04:05Z"),
    *("2026-01-02T03:04:05+02:00", "2026-01-09T00:00:00Z", "2026-01-09 00:00", "9999-12-31T23:59:59Z"),
]
NAMES = ["resource", "start", "end", "range", "host", "group", "step", "format", "other"]


@given(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(WORDS) | st.text(max_size=30)))
def test_any_parameters_give_a_question_or_a_reason(query: dict[str, str]) -> None:
    found: Question | None = None
    reason = ""
    try:
        found = ask(**{"resource": "cpu", "range": "1"} | query)
    except (BadRequest, NotFound) as error:
        reason = error.description or ""
    assert (found is None) is bool(reason)
    if found is None:
        return
    assert found.start < found.end <= NOW.timestamp()
    assert found.start < found.first <= found.last <= found.end
    assert (found.last - found.first) % found.step == found.first % found.step == 0
    assert 1 <= found.steps <= SETTINGS.max_points
    assert found.first - found.step <= found.start
    assert found.last + found.step > found.end


@given(st.floats(1, 400 * 86400), st.integers(1, 20_000), st.integers(1, 86400))
def test_the_chosen_step_fits(seconds: float, target: int, shortest: int) -> None:
    step = params.choose_step(seconds, target, shortest)
    assert 1 <= step <= seconds
    assert step >= min(shortest, int(seconds))
    assert seconds / step <= target or step == int(seconds)


def strings(query: str) -> list[str]:
    """Return the values of all matchers of ``host``, as a parser of PromQL sees them."""
    found: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.extend(each.value for each in node.matchers.matchers if each.name == "host")
        for child in ("expr", "lhs", "rhs", "vector_selector"):
            if (below := getattr(node, child, None)) is not None:
                walk(below)
        for argument in getattr(node, "args", None) or ():
            walk(argument)

    walk(promql_parser.parse(query))
    return found


@given(st.text(min_size=1, max_size=60) | st.sampled_from([ODD, '"}) or up #', "\\", '\\"', "${hosts}"]))
def test_a_name_stays_within_its_quotes(name: str) -> None:
    """However it looks, the query is the same but for one string, whose value is the name."""
    sources = Expressions.model_validate({}).cpu
    usual, found = promql.usage(sources, ["x"]), promql.usage(sources, [name])
    plain = re.compile(r'host="(?:[ !#-\[\]-~]|\\x[0-9a-f]{2})*"')
    assert plain.sub("host", found) == plain.sub("host", usual)
    [quoted] = set(plain.findall(found))
    text = re.sub(rb"\\x([0-9a-f]{2})", lambda byte: bytes([int(byte[1], 16)]), quoted[6:-1].encode())
    assert text.decode() == name


def test_a_parser_of_promql_agrees() -> None:
    sources = Expressions.model_validate({}).cpu
    for name in (ODD, '"}) or vector(1) #', "web1", "a\\", "$hosts"):
        assert set(strings(promql.sums(promql.usage(sources, [name]), 3, 60))) == {name}


@given(st.lists(st.text(min_size=1, max_size=20), min_size=2, max_size=5, unique=True), st.text(max_size=20))
def test_names_are_matched_literally(names: list[str], other: str) -> None:
    pattern = "|".join(promql._literally(name) for name in names)
    python = re.compile(
        re.sub(r"\\x\{([0-9a-f]+)\}", lambda found: re.escape(chr(int(found[1], 16))), pattern)
    )
    assert all(python.fullmatch(name) for name in names)
    assert bool(python.fullmatch(other)) is (other in names)


@pytest.mark.parametrize(("wrong", "reason"), [
    ({"prometheus_urls": []}, "prometheus_urls"),
    ({"prometheus_urls": ["prometheus:9090"]}, "not a URL"),
    ({"expressions": {"cpu": [{"name": "x", "expression": "up"}]}}, "$hosts is missing"),
    ({"expressions": {"cpu": []}}, "at least 1 item"),
    ({"port": 0}, "port"),
])  # fmt: skip
def test_wrong_settings(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(reason)):
        settings("http://prometheus:9090", **wrong)
