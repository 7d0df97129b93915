from __future__ import annotations

import contextvars
import json
import logging
import re

from fleetwatch.common.logs import JsonFormatter


def _format(message: str, **attributes: object) -> str:
    record = logging.LogRecord("some.module", logging.WARNING, "file.py", 1, message, (), None)
    record.__dict__.update(attributes)
    outside_of_requests = contextvars.Context()
    return outside_of_requests.run(JsonFormatter("example").format, record)


def test_an_event_is_one_line_of_json() -> None:
    line = _format("line one\nline two", hosts=3, text="ü")
    assert "\n" not in line
    event = json.loads(line)
    time = event.pop("time")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    assert event == {
        "level": "WARNING",
        "logger": "some.module",
        "event": "line one\nline two",
        "service": "example",
        "hosts": 3,
        "text": "ü",
    }


def test_a_traceback_stays_on_the_line() -> None:
    try:
        int("bad")
    except ValueError as error:
        line = _format("failed", exc_info=(type(error), error, error.__traceback__))
    assert "\n" not in line
    assert "ValueError: invalid literal" in json.loads(line)["exception"]
