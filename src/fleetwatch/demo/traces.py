"""Traces of requests and queries, and the trace's id for logs and exemplars, traces sent or not."""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext

from fleetwatch.common import logs, tracing

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def join(given: str | None) -> str:
    """Join the trace at hand: that of the span, or else the given one, or else a new one that nobody records.

    Until the next call every log event of this thread carries the trace's id.

    given: the ``traceparent`` of what caused the work; anything malformed counts as none.
    Returns the ``traceparent`` for what the work causes.
    """
    found = tracing.current_traceparent()
    if found is None:
        known = given is not None and _TRACEPARENT.fullmatch(given)
        found = given if given and known else f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"
    logs.trace_id.set(id_of(found))
    return found


def id_of(traceparent: str) -> str:
    """Return the trace's id."""
    return traceparent.split("-")[1]


def trace_queries(engine: Engine) -> None:
    """Make each statement a span of the work that it belongs to; one that belongs to none has no span."""

    @event.listens_for(engine, "before_cursor_execute")
    def _begin(
        _connection: object, _cursor: object, statement: str, _values: object, context: Any, _many: bool
    ) -> None:
        context.fleetwatch_span = None
        if tracing.current_traceparent() is None:
            return
        operation = statement.split(maxsplit=1)[0].upper()
        context.fleetwatch_span = tracing.span(f"{operation} postgresql", kind="client")
        span = context.fleetwatch_span.__enter__()
        span.set_attribute("db.system.name", "postgresql")
        span.set_attribute("db.operation.name", operation)
        span.set_attribute("db.query.text", statement)  # values are parameters, so it holds none

    @event.listens_for(engine, "after_cursor_execute")
    def _end(
        _connection: object, _cursor: object, _statement: str, _values: object, context: Any, _many: bool
    ) -> None:
        if context.fleetwatch_span is not None:
            context.fleetwatch_span.__exit__(None, None, None)
            context.fleetwatch_span = None

    @event.listens_for(engine, "handle_error")
    def _fail(found: ExceptionContext) -> None:
        span = getattr(found.execution_context, "fleetwatch_span", None)
        if span is not None:
            error = found.original_exception
            with suppress(type(error)):  # the span hands it on, and SQLAlchemy raises it anyway
                span.__exit__(type(error), error, error.__traceback__)
