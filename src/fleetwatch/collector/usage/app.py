"""The usage API's web application."""

from __future__ import annotations

import hmac
import time

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, Unauthorized

from fleetwatch.collector.usage.api import api
from fleetwatch.collector.usage.context import Usage, usage
from fleetwatch.collector.usage.metrics import ENDPOINTS
from fleetwatch.collector.usage.page import page
from fleetwatch.collector.usage.settings import UsageSettings
from fleetwatch.common import health, web

_READING = ("/", "/avg_usage", "/metrics_usage", "/openapi.json")
_HEALTH = ("/healthz", "/readyz", "/metrics")
_REFUSED, _FAILED = 400, 500


def create_app(settings: UsageSettings) -> Flask:
    """Return the WSGI application."""
    app = Flask(__name__, static_folder=None)
    found = app.extensions["usage"] = Usage(settings)
    app.before_request(web.name_request)
    app.before_request(_begin)
    app.before_request(_check_reader)
    app.after_request(web.add_headers)
    app.after_request(_count)
    for blueprint in (api, page, health.blueprint(found.prometheus.ready, found.registry)):
        app.register_blueprint(blueprint)
    app.register_error_handler(HTTPException, web.http_error)
    return app


def _begin() -> None:
    g.begun = time.monotonic()
    g.broken_off = []  # filled by a stream that ends too early


def _check_reader() -> None:
    """Let only those read who show the token, if there is one."""
    token = usage().settings.read_token
    if token is None or request.path not in _READING:
        return
    if not hmac.compare_digest(web.shown_secret(request.authorization), token.get_secret_value().encode()):
        raise Unauthorized(
            "the token is needed: as bearer token, or as password with any name",
            www_authenticate=web.CHALLENGES,
        )


def _count(response: Response) -> Response:
    """Count the request once its answer has gone out; those of the monitoring would hide the others."""
    if request.path in _HEALTH:
        return response
    path = "page" if request.path == "/" else request.path[1:]
    endpoint = path if path in ENDPOINTS else "other"
    metrics, begun, broken_off = usage().metrics, g.begun, g.broken_off

    def done() -> None:
        failed = response.status_code >= _FAILED or broken_off
        outcome = "failed" if failed else "refused" if response.status_code >= _REFUSED else "ok"
        metrics.requests.labels(endpoint, outcome).inc()
        metrics.seconds.labels(endpoint).observe(time.monotonic() - begun)

    response.call_on_close(done)
    return response
