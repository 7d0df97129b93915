"""Traces: W3C trace context, exported over OTLP/HTTP by OpenTelemetry when an endpoint is set.

    tracing.setup("alert_dispatcher", settings.otlp_endpoint)   # once in each process, after a fork
    with tracing.span("deliver", notification.traceparent, channel="mail") as span:
        span.set_attribute("outcome", "sent")

Without an endpoint OpenTelemetry is not even imported, and ``span`` costs next to nothing. Spans are sent
from a thread in batches; those that a collector cannot take are dropped. ``OTEL_*`` variables count as
everywhere else, for instance ``OTEL_TRACES_SAMPLER``.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from fleetwatch.common.otel import Tracer

Attribute = str | bool | int | float
Kind = Literal["internal", "server", "client"]

_tracer: Tracer | None = None


class Span(Protocol):
    """What can be said about the work at hand."""

    def set_attribute(self, key: str, value: Attribute, /) -> None:
        """Attach a fact."""


class _NoSpan:
    def set_attribute(self, key: str, value: Attribute, /) -> None:
        """Forget the fact."""


_NO_SPAN = nullcontext[Span](_NoSpan())


def setup(service: str, endpoint: str | None) -> None:
    """Send the spans of this process to an OTLP/HTTP collector; do nothing without one.

    endpoint: its base URL, such as ``http://tempo:4318``.
    """
    global _tracer  # noqa: PLW0603 - one for the process, as with logging
    if endpoint is not None and _tracer is None:
        # Imported here, since it costs memory that most installations need not pay.
        from fleetwatch.common.otel import Tracer  # noqa: PLC0415

        _tracer = Tracer(service, endpoint)
        atexit.register(shutdown)


def shutdown() -> None:
    """Send what is left, within two seconds, and trace no more. The end of the process calls it."""
    global _tracer
    tracer, _tracer = _tracer, None
    if tracer is not None:
        tracer.shutdown()


def span(
    name: str,
    parent_traceparent: str | None = None,
    *,
    links: Iterable[str | None] = (),
    kind: Kind = "internal",
    **attributes: Attribute,
) -> AbstractContextManager[Span]:
    """Trace the work in the block. An exception marks the span as failed and goes on.

    parent_traceparent: the ``traceparent`` of what caused it; anything malformed counts as none.
    links: those of further causes.
    kind: whether it answers somebody's call (``server``) or calls another program (``client``).
    """
    return _tracer.span(name, parent_traceparent, links, kind, attributes) if _tracer else _NO_SPAN


def current_traceparent() -> str | None:
    """Return the ``traceparent`` of the span at hand, for what it causes; ``None`` without tracing."""
    return _tracer.current_traceparent() if _tracer else None
