"""The API's web application: counts, traces and logs each request, and answers what goes wrong."""

from __future__ import annotations

import logging
import random
import time
from contextlib import suppress
from http import HTTPStatus
from types import TracebackType

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from fleetwatch.common import logs, tracing, web
from fleetwatch.demo import schemas, traces
from fleetwatch.demo.api import DeliberateError, requests
from fleetwatch.demo.behaviour import lognormal
from fleetwatch.demo.context import Api, api
from fleetwatch.demo.gateway import GatewayError
from fleetwatch.demo.metrics import METHODS
from fleetwatch.demo.settings import Settings
from fleetwatch.demo.storage import UnavailableError

_RETRY_AFTER = "2"  # seconds, with a 503
_FAILED = 500

log = logging.getLogger(__name__)


class InjectedError(Exception):
    """What ``error_rate`` is for."""


def create_app(settings: Settings) -> Flask:
    """Return the WSGI application."""
    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False  # it would redirect
    app.extensions["transactions"] = Api(settings)
    app.before_request(_begin)
    app.before_request(_misbehave)
    app.after_request(web.add_headers)
    app.after_request(_finish)
    app.teardown_request(_end)
    app.register_blueprint(requests)
    app.register_error_handler(Exception, _problem)
    return app


def _begin() -> None:
    web.name_request()
    g.begun = time.monotonic()
    g.error = None
    g.route = request.url_rule.rule.replace("<uuid:", "<") if request.url_rule else "unmatched"
    g.method = request.method if request.method in METHODS else "other"
    g.watched = g.route != "/health"  # who probes it would hide the others
    if g.watched:
        api().metrics.in_progress.inc()
    parent = request.headers.get("traceparent")
    g.span = tracing.span(f"{g.method} {g.route}", parent, kind="server")
    g.told = g.span.__enter__()
    g.told.set_attribute("http.request.method", g.method)
    g.told.set_attribute("http.route", g.route)
    g.traceparent = traces.join(parent)


def _misbehave() -> None:
    """Be slow, and fail, as often as the behaviour says."""
    if not g.route.startswith("/transactions"):
        return
    current = api().behaviour.current()
    time.sleep(lognormal(current.latency, api().settings.latency_spread))
    if random.random() < current.error_rate:  # noqa: S311 - no secret
        raise InjectedError("the error rate of the settings")


def _problem(error: Exception) -> Response:
    """Answer what went wrong, as RFC 9457 has it."""
    headers: dict[str, str] = {}
    if isinstance(error, HTTPException):
        status, detail = error.code or _FAILED, error.description or ""
        headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    elif isinstance(error, UnavailableError):
        status, detail = 503, "the database does not answer; try again"
        headers = {"Retry-After": _RETRY_AFTER}
    elif isinstance(error, GatewayError):
        status, detail = 504, str(error)
    elif isinstance(error, InjectedError | DeliberateError):
        status, detail = 500, f"failed on purpose: {error}"
    else:
        status, detail = 500, "an error of the program; its log says more"
    if status >= _FAILED:
        g.error = error
        api().metrics.exceptions.labels(g.route, type(error).__name__).inc()
    problem = schemas.Problem(
        title=HTTPStatus(status).phrase, status=status, detail=detail, trace_id=traces.id_of(g.traceparent)
    )
    return Response(problem.model_dump_json(), status, headers, content_type="application/problem+json")


def _finish(response: Response) -> Response:
    """Count and log the request; those of probes would hide the others."""
    seconds = time.monotonic() - g.begun
    g.told.set_attribute("http.response.status_code", response.status_code)
    response.headers["X-Request-ID"] = logs.request_id.get() or ""
    if not g.watched:
        return response
    metrics = api().metrics
    metrics.requests.labels(g.route, g.method, str(response.status_code)).inc()
    metrics.request_seconds.labels(g.route, g.method).observe(
        seconds, {"trace_id": traces.id_of(g.traceparent)}
    )
    failed = response.status_code >= _FAILED
    unexpected = failed and not isinstance(
        g.error, InjectedError | DeliberateError | UnavailableError | GatewayError
    )
    log.log(
        logging.ERROR if failed else logging.INFO,
        "request",
        extra={
            "method": g.method,
            "path": request.path,
            "route": g.route,
            "status": response.status_code,
            "seconds": round(seconds, 6),
            "client": request.headers.get("X-Real-IP") or request.remote_addr or "",
            **({"error": f"{type(g.error).__name__}: {g.error}"} if g.error else {}),
        },
        exc_info=g.error if unexpected else None,
    )
    return response


def _end(_error: BaseException | None) -> None:
    """End the span, failed if the request did."""
    error = g.error
    kind: type[BaseException] | None = type(error) if error else None
    traceback: TracebackType | None = error.__traceback__ if error else None
    with suppress(Exception):  # the span hands the error on
        g.span.__exit__(kind, error, traceback)
    if g.watched:
        api().metrics.in_progress.dec()
