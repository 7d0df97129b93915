"""The receiver's web application."""

from __future__ import annotations

import logging
import re
import secrets

from flask import Flask, Response, jsonify, request
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException

from fleetwatch.common import health, logs
from fleetwatch.receiver import auth
from fleetwatch.receiver.api import api
from fleetwatch.receiver.committer import ClosedError
from fleetwatch.receiver.context import Receiver, receiver
from fleetwatch.receiver.ingest import ingest
from fleetwatch.receiver.pages import pages
from fleetwatch.receiver.settings import ReceiverSettings

_RETRY_AFTER = "5"  # seconds, with a 503

log = logging.getLogger(__name__)


def create_app(settings: ReceiverSettings) -> Flask:
    """Return the WSGI application; raises SchemaError or SQLAlchemyError when there is no store."""
    app = Flask(__name__, static_folder=None)
    found = app.extensions["receiver"] = Receiver(settings)
    app.before_request(_name_request)
    auth.init(app, settings)
    for blueprint in (ingest, api, pages, health.blueprint(found.ready, found.registry)):
        app.register_blueprint(blueprint)
    app.register_error_handler(HTTPException, _http_error)
    for error in (SQLAlchemyError, TimeoutError, ClosedError):
        app.register_error_handler(error, _store_error)
    return app


def _name_request() -> None:
    """Give each request an id, or keep that of a proxy, so that its log events can be found."""
    given = request.headers.get("X-Request-ID", "")
    logs.request_id.set(given if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given) else secrets.token_hex(8))


def _http_error(error: HTTPException) -> Response:
    response = error.get_response()
    body = jsonify({"error": error.description or error.name})
    response.set_data(body.get_data())
    response.content_type = "application/json"
    return Response(response.get_data(), error.code, response.headers)


def _store_error(_error: Exception) -> tuple[dict[str, str], int, dict[str, str]]:
    """Answer 503, so that Alertmanager tries again."""
    if request.method == "POST":
        receiver().metrics.commit_failures.inc()
    log.exception("store failed")
    return {"error": "the store does not answer; try again"}, 503, {"Retry-After": _RETRY_AFTER}
