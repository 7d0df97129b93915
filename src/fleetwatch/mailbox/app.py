"""The mailbox's web side: SendGrid's API, the JSON API, and the pages."""

from __future__ import annotations

import logging
import secrets
import socket
import time
from typing import Any

from flask import Blueprint, Flask, Response, abort, current_app, jsonify, redirect, render_template, request
from prometheus_client import Counter, Gauge
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from fleetwatch.common import health
from fleetwatch.mailbox import sendgrid
from fleetwatch.mailbox.failure import Failure, FailureSwitch
from fleetwatch.mailbox.messages import Messages, Received
from fleetwatch.mailbox.sendgrid import ApiError
from fleetwatch.mailbox.settings import MailboxSettings

log = logging.getLogger(__name__)
pages = Blueprint("mailbox", __name__)

_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
# A message is a stranger's HTML: no scripts, nothing fetched, no access to the page around it.
_MESSAGE_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; "
    "style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
)


class Mailbox:
    """Messages, failure switch and metrics, shared by HTTP and SMTP."""

    def __init__(self, settings: MailboxSettings) -> None:
        """Open the messages; raises sqlite3.Error or OSError."""
        self.settings = settings
        self.messages = Messages(settings.state_directory / "mailbox.db", settings.max_messages)
        self.failures = FailureSwitch()
        self.registry = health.registry()
        self._received = Counter(
            "lab_mailbox_messages_received", "Messages kept", ["via"], registry=self.registry
        )
        self.failed = Counter(
            "lab_mailbox_failures", "Deliveries that failed on demand", ["mode"], registry=self.registry
        )
        kept = Gauge("lab_mailbox_messages", "Messages in the mailbox", registry=self.registry)
        kept.set_function(lambda: len(self.messages.all()))
        for via in ("sendgrid", "smtp"):
            self._received.labels(via)

    def keep(self, received: Received) -> str:
        """Keep a message; return the name it is given."""
        name = secrets.token_urlsafe(16)
        self.messages.add(received, name)
        self._received.labels(received.via).inc()
        log.info("message kept", extra={"via": received.via, "subject": received.subject})
        return name


def create_app(mailbox: Mailbox) -> Flask:
    """Return the WSGI application."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = mailbox.settings.max_message_bytes
    app.extensions["mailbox"] = mailbox
    app.register_blueprint(pages)
    app.register_blueprint(health.blueprint(lambda: None, mailbox.registry))
    app.register_error_handler(ApiError, lambda error: (error.to_json(), error.status))
    app.register_error_handler(HTTPException, lambda error: ({"error": error.description}, error.code or 500))
    app.after_request(_protect)
    return app


def _mailbox() -> Mailbox:
    mailbox: Mailbox = current_app.extensions["mailbox"]
    return mailbox


def _protect(response: BaseResponse) -> BaseResponse:
    response.headers.setdefault("Content-Security-Policy", _PAGE_POLICY)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    return response


# SendGrid


@pages.post("/v3/mail/send")
def send() -> Response:
    """Take a mail as SendGrid does, or fail as told."""
    mailbox = _mailbox()
    _authorize(mailbox)
    received = sendgrid.parse(request.get_data(cache=False))
    failure = mailbox.failures.next()
    names = [mailbox.keep(mail) for mail in received] if failure.mode == "ok" or failure.deliver else []
    if failure.mode != "ok":
        mailbox.failed.labels(failure.mode).inc()
        return _fail(failure)
    return Response(status=202, headers={"X-Message-Id": names[0]})


def _authorize(mailbox: Mailbox) -> None:
    kind, _, key = request.headers.get("Authorization", "").partition(" ")
    wanted = mailbox.settings.api_key
    matches = bool(key) and (
        wanted is None or secrets.compare_digest(key.encode(), wanted.get_secret_value().encode())
    )
    if kind.lower() != "bearer" or not matches:
        raise ApiError(401, "The provided authorization grant is invalid, expired, or revoked")


def _fail(failure: Failure) -> Response:
    if failure.mode == "429":
        response = jsonify(ApiError(429, "too many requests").to_json())
        response.headers["X-RateLimit-Limit"] = "1"
        response.headers["X-RateLimit-Remaining"] = "0"
        response.headers["X-RateLimit-Reset"] = str(int(time.time() + failure.seconds))
        response.status_code = 429
        return response
    if failure.mode == "timeout":
        time.sleep(failure.seconds)
    if failure.mode in ("timeout", "refuse"):
        # Hang up; the answer that Flask wants to send goes nowhere.
        connection = request.environ.get("werkzeug.socket")
        if isinstance(connection, socket.socket):
            connection.shutdown(socket.SHUT_RDWR)
    response = jsonify(ApiError(500, "Internal Server Error").to_json())
    response.status_code = 500
    return response


# JSON API


@pages.get("/api/messages")
def list_messages() -> Response:
    """List messages, the newest first. Query: ``q=TEXT`` in subject or text part, ``limit=N``."""
    limit = request.args.get("limit", type=int)
    found = _mailbox().messages.all(request.args.get("q", ""), limit)
    return jsonify(messages=[message.to_json() for message in found])


@pages.get("/api/messages/<int:number>")
def one_message(number: int) -> Response:
    """Return one message."""
    message = _mailbox().messages.get(number)
    if message is None:
        abort(404, "there is no such message")
    return jsonify(message.to_json())


@pages.delete("/api/messages")
def clear() -> Response:
    """Drop all messages."""
    return jsonify(deleted=_mailbox().messages.clear())


@pages.get("/api/failure")
def show_failure() -> Response:
    """Tell how deliveries fail at the moment."""
    return jsonify(_mailbox().failures.to_json())


@pages.put("/api/failure")
def set_failure() -> tuple[dict[str, Any], int]:
    """Set how deliveries fail, see ``Failure``: ``{"mode": "429", "count": 3, "seconds": 2}``."""
    try:
        failure = Failure.model_validate_json(request.get_data() or b"{}")
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors()]
        return {"error": "; ".join(problems)}, 400
    _mailbox().failures.set(failure)
    return _mailbox().failures.to_json(), 200


# Pages


@pages.get("/")
def index() -> str:
    """Show the list."""
    mailbox = _mailbox()
    messages = mailbox.messages.all(request.args.get("q", ""), limit=200)
    return render_template(
        "list.html", messages=messages, failure=mailbox.failures.get(), query=request.args.get("q", "")
    )


@pages.get("/messages/<int:number>")
def show(number: int) -> str:
    """Show one message."""
    mailbox = _mailbox()
    message = mailbox.messages.get(number)
    if message is None:
        abort(404, "there is no such message")
    return render_template("message.html", message=message, failure=mailbox.failures.get())


@pages.get("/messages/<int:number>/html")
def show_html(number: int) -> Response:
    """Return the HTML part, for the frame."""
    message = _mailbox().messages.get(number)
    if message is None:
        abort(404, "there is no such message")
    response = Response('<!doctype html><base target="_blank">' + message.html, mimetype="text/html")
    response.headers["Content-Security-Policy"] = _MESSAGE_POLICY
    return response


@pages.post("/clear")
def clear_from_page() -> BaseResponse:
    """Drop all messages and show the empty list; only for the page itself."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        abort(403, "only the mailbox's own page may do this")
    _mailbox().messages.clear()
    return redirect("/", 303)
