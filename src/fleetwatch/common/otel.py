"""OpenTelemetry behind ``fleetwatch.common.tracing``, which imports this only when it is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from threading import Thread

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_EXPORT_TIMEOUT = 5.0  # seconds
_LAST_EXPORT = 2.0  # seconds that the end of the process waits for the last spans

_w3c = TraceContextTextMapPropagator()


class Tracer:
    """Makes the spans of one service and exports them."""

    def __init__(self, service: str, endpoint: str) -> None:
        """Prepare the export to an OTLP/HTTP base URL."""
        resource = Resource.create({"service.name": service})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(f"{endpoint}/v1/traces", timeout=_EXPORT_TIMEOUT)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("fleetwatch")

    def shutdown(self) -> None:
        """Export what is left. The SDK itself would wait much longer for a collector that is away."""
        last = Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        last.start()
        last.join(_LAST_EXPORT)

    @contextmanager
    def span(
        self,
        name: str,
        parent: str | None,
        links: Iterable[str | None],
        kind: str,
        attributes: Mapping[str, str | bool | int | float],
    ) -> Iterator[Span]:
        """See ``tracing.span``."""
        causes = (get_current_span(_context(link)).get_span_context() for link in links if link)
        with self._tracer.start_as_current_span(
            name,
            _context(parent) if parent else None,
            SpanKind[kind.upper()],
            attributes=attributes,
            links=[Link(cause) for cause in causes if cause.is_valid],
            # The text of an exception may quote what does not belong into a trace.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except BaseException as error:
                span.set_status(StatusCode.ERROR, type(error).__name__)
                raise

    def current_traceparent(self) -> str | None:
        """See ``tracing.current_traceparent``."""
        carrier: dict[str, str] = {}
        _w3c.inject(carrier)
        return carrier.get("traceparent")


def _context(traceparent: str) -> Context:
    return _w3c.extract({"traceparent": traceparent}, Context())
