"""The receiver's web application."""

from __future__ import annotations

import logging

from flask import Flask, request
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException

from fleetwatch.common import health, web
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
    app.before_request(web.name_request)
    auth.init(app, settings)
    for blueprint in (ingest, api, pages, health.blueprint(found.ready, found.registry)):
        app.register_blueprint(blueprint)
    app.register_error_handler(HTTPException, web.http_error)
    for error in (SQLAlchemyError, TimeoutError, ClosedError):
        app.register_error_handler(error, _store_error)
    return app


def _store_error(_error: Exception) -> tuple[dict[str, str], int, dict[str, str]]:
    """Answer 503, so that Alertmanager tries again."""
    if request.method == "POST":
        receiver().metrics.commit_failures.inc()
    log.exception("store failed")
    return {"error": "the store does not answer; try again"}, 503, {"Retry-After": _RETRY_AFTER}
