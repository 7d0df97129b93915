"""The receiver's web application."""

from __future__ import annotations

import logging
from typing import Any

from flask import Blueprint, Flask, Response, current_app, jsonify, request
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException

from fleetwatch.common import health
from fleetwatch.receiver import webhook
from fleetwatch.receiver.metrics import Metrics
from fleetwatch.receiver.settings import AlertReceiverSettings
from fleetwatch.receiver.webhook import WebhookError
from fleetwatch.store import Status, Store

MAX_LIMIT = 1000  # incidents in one answer
_READ_BYTES = 64 * 1024
_RETRY_AFTER = "5"  # seconds, with a 503

log = logging.getLogger(__name__)
pages = Blueprint("receiver", __name__)


class Receiver:
    """What a request needs: settings, store and metrics."""

    def __init__(self, settings: AlertReceiverSettings) -> None:
        """Open the store; raises SchemaTooNewError or SQLAlchemyError."""
        self.settings = settings
        self.store = Store(settings.database_url)
        self.registry = health.registry()
        self.metrics = Metrics(self.registry, self.store)

    def ready(self) -> str | None:
        """Return why alerts cannot be accepted now, or ``None``."""
        try:
            self.store.check_writable()
        except SQLAlchemyError:
            log.exception("store not writable")
            return "the database cannot be written"
        return None


def create_app(settings: AlertReceiverSettings) -> Flask:
    """Return the WSGI application; raises SchemaTooNewError or SQLAlchemyError when there is no store."""
    app = Flask(__name__, static_folder=None)
    receiver = Receiver(settings)
    app.extensions["receiver"] = receiver
    app.register_blueprint(pages)
    app.register_blueprint(health.blueprint(receiver.ready, receiver.registry))
    app.register_error_handler(WebhookError, _refuse)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(SQLAlchemyError, _store_error)
    return app


def _receiver() -> Receiver:
    receiver: Receiver = current_app.extensions["receiver"]
    return receiver


@pages.post("/alerts")
@pages.post("/")
@pages.post("/alert")
@pages.post("/webhook")
def accept() -> tuple[dict[str, Any], int]:
    """Take alerts in: 200 once all that can be accepted is on disk, 4xx when nothing can ever be."""
    receiver = _receiver()
    if not request.is_json:
        raise WebhookError(415, "content_type", "send JSON with the header Content-Type: application/json")
    if request.content_encoding not in (None, "identity"):
        raise WebhookError(415, "content_type", "compressed bodies are not supported: send plain JSON")
    batch = webhook.parse(_body(receiver.settings.max_body_bytes), receiver.settings.max_alerts)
    with receiver.metrics.commit_seconds.time():
        done = receiver.store.accept(batch.events, receiver.settings.channels)

    receiver.metrics.accepted.labels("firing").inc(done.fired)
    receiver.metrics.accepted.labels("resolved").inc(done.resolved)
    receiver.metrics.duplicates.inc(done.duplicates)
    receiver.metrics.refused.labels("bad_alert").inc(len(batch.refused))
    counts = {"fired": done.fired, "resolved": done.resolved, "duplicates": done.duplicates}
    log.info("alerts accepted", extra={**counts, "refused": len(batch.refused)})
    for refused in batch.refused:
        log.warning("alert refused", extra={"index": refused.index, "reason": refused.reason})
    refusals = [{"index": refused.index, "reason": refused.reason} for refused in batch.refused]
    return {"accepted": done.fired + done.resolved, **counts, "refused": refusals}, 200


def _body(limit: int) -> bytes:
    """Read the request's body. Flask's own limit would silently cut one that comes in chunks."""
    body = b""
    too_large = (request.content_length or 0) > limit
    while not too_large and (part := request.stream.read(_READ_BYTES)):
        body += part
        too_large = len(body) > limit
    if too_large:
        raise WebhookError(413, "too_large", f"the body is larger than the limit of {limit} bytes")
    return body


@pages.get("/api/v1/incidents")
def incidents() -> tuple[dict[str, Any], int]:
    """List incidents, the newest first.

    Query: ``status=firing|resolved``, ``label=name=value`` (repeat it to demand several),
    ``limit=1…1000`` (default 100).
    """
    status_text, limit_text = request.args.get("status"), request.args.get("limit", "100")
    if status_text not in (None, *Status):
        return {"error": "status must be firing or resolved"}, 400
    if not limit_text.isdecimal() or not 1 <= int(limit_text[:9]) <= MAX_LIMIT:
        return {"error": f"limit must be a number from 1 to {MAX_LIMIT}"}, 400
    labels = {}
    for pair in request.args.getlist("label"):
        name, equals, value = pair.partition("=")
        if not name or not equals or '"' in name:
            return {"error": "label must be given as label=name=value"}, 400
        labels[name] = value
    status = Status(status_text) if status_text else None
    found = _receiver().store.incidents(status, labels, int(limit_text))
    return {"incidents": [incident.to_json() for incident in found]}, 200


def _refuse(error: WebhookError) -> tuple[dict[str, str], int]:
    _receiver().metrics.refused.labels(error.reason).inc()
    log.warning("request refused", extra={"status": error.status, "reason": str(error)})
    return {"error": str(error)}, error.status


def _http_error(error: HTTPException) -> Response:
    response = error.get_response()
    body = jsonify({"error": error.description or error.name})
    response.set_data(body.get_data())
    response.content_type = "application/json"
    return Response(response.get_data(), error.code, response.headers)


def _store_error(_error: SQLAlchemyError) -> tuple[dict[str, str], int, dict[str, str]]:
    """Answer 503, so that Alertmanager tries again."""
    if request.method == "POST":
        _receiver().metrics.commit_failures.inc()
    log.exception("store failed")
    return {"error": "the alerts could not be stored; send them again"}, 503, {"Retry-After": _RETRY_AFTER}
