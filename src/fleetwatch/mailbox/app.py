"""The mailbox's web side: the providers' APIs, the JSON API, and the pages."""

from __future__ import annotations

import logging
import math
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flask import Blueprint, Flask, Response, abort, current_app, jsonify, redirect, render_template, request
from prometheus_client import Counter, Gauge
from pydantic import SecretStr, ValidationError
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from fleetwatch.common import health
from fleetwatch.mailbox import sendgrid, slack, twilio, webhook
from fleetwatch.mailbox.failure import DRIP_PAUSE, Failure, FailureSwitch
from fleetwatch.mailbox.messages import Messages, Received
from fleetwatch.mailbox.sendgrid import ApiError
from fleetwatch.mailbox.settings import MailboxSettings
from fleetwatch.mailbox.slack import SlackError
from fleetwatch.mailbox.twilio import TwilioError

log = logging.getLogger(__name__)
pages = Blueprint("mailbox", __name__)

TOO_MANY = 429

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
        for via in ("sendgrid", "smtp", "slack", "twilio", "webhook"):
            self._received.labels(via)

    def keep(self, received: Received, name: str | None = None) -> str:
        """Keep a message; return the name it is given, a random one unless it has one."""
        name = name or secrets.token_urlsafe(16)
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
    app.register_error_handler(SlackError, lambda error: Response(str(error), error.status))
    app.register_error_handler(TwilioError, lambda error: (error.to_json(), error.status))
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


# The providers


@pages.post("/v3/mail/send")
def send() -> Response:
    """Take a mail as SendGrid does, or fail as told."""
    wanted = _mailbox().settings.api_key
    kind, _, key = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "bearer" or not _matches(key, wanted):
        raise ApiError(401, "The provided authorization grant is invalid, expired, or revoked")
    return _deliver(
        sendgrid.parse(request.get_data(cache=False)),
        lambda name: Response(status=202, headers={"X-Message-Id": name}),
        _sendgrid_failure,
    )


def _sendgrid_failure(status: int, seconds: float) -> Response:
    text = "too many requests" if status == TOO_MANY else "Internal Server Error"
    response = jsonify(ApiError(status, text).to_json())
    if status == TOO_MANY:
        response.headers["X-RateLimit-Limit"] = "1"
        response.headers["X-RateLimit-Remaining"] = "0"
        response.headers["X-RateLimit-Reset"] = str(int(time.time() + seconds))
    return response


@pages.post("/services/<path:path>")
def incoming_webhook(path: str) -> Response:
    """Take a message as Slack's incoming webhooks do, or fail as told."""
    received = slack.parse(path, request.get_data(cache=False), _headers())
    return _deliver([received], lambda _name: Response("ok", mimetype="text/html"), _slack_failure)


def _slack_failure(status: int, seconds: float) -> Response:
    response = Response("rate_limited" if status == TOO_MANY else "rollup_error", mimetype="text/html")
    return _ask_to_wait(response, status, seconds)


@pages.post("/2010-04-01/Accounts/<account>/Messages.json")
def text_message(account: str) -> Response:
    """Take a text message as Twilio does, or fail as told."""
    wanted = _mailbox().settings.twilio_auth_token
    given = request.authorization
    if (
        given is None
        or given.type != "basic"
        or given.username != account
        or not _matches(given.password or "", wanted)
    ):
        raise TwilioError(401, 20003, "Authenticate")
    raw = request.get_data(as_text=True)  # before the form, which would not leave it
    received = twilio.parse(request.form, raw, _headers())

    def accepted(name: str) -> Response:
        response = jsonify(twilio.accepted(received, name, account))
        response.status_code = 201
        return response

    return _deliver([received], accepted, _twilio_failure, name=f"SM{secrets.token_hex(16)}")


def _twilio_failure(status: int, seconds: float) -> Response:
    error = (
        TwilioError(status, 20429, "Too Many Requests")
        if status == TOO_MANY
        else TwilioError(status, 20500, "An internal server error has occurred")
    )
    return _ask_to_wait(jsonify(error.to_json()), status, seconds)


@pages.post("/hooks/<name>")
def hook(name: str) -> Response:
    """Take anything, or fail as told."""
    received = webhook.parse(name, request.get_data(cache=False), _headers())
    return _deliver([received], lambda name: jsonify(id=name), _hook_failure)


def _hook_failure(status: int, seconds: float) -> Response:
    return _ask_to_wait(jsonify(error="told to fail"), status, seconds)


def _ask_to_wait(response: Response, status: int, seconds: float) -> Response:
    if status == TOO_MANY:
        response.headers["Retry-After"] = str(math.ceil(seconds))
    return response


def _matches(given: str, wanted: SecretStr | None) -> bool:
    return bool(given) and (
        wanted is None or secrets.compare_digest(given.encode(), wanted.get_secret_value().encode())
    )


def _headers() -> dict[str, str]:
    """Return the request's headers; the page is open to all, so a credential is not among them."""
    hidden = {"Authorization": "(hidden)"} if "Authorization" in request.headers else {}
    return dict(request.headers) | hidden


def _deliver(
    received: list[Received],
    accepted: Callable[[str], Response],
    failed: Callable[[int, float], Response],
    name: str | None = None,
) -> Response:
    """Keep what was received and answer, or fail as told.

    accepted: makes the answer from the message's name.
    failed: makes the provider's 429 or 500 from the status and the seconds to wait.
    name: the name of the only message, if the provider has a form for it.
    """
    mailbox = _mailbox()
    failure = mailbox.failures.next()
    if failure.mode == "ok" or failure.deliver:
        names = [mailbox.keep(message, name) for message in received]
    if failure.mode == "ok":
        return accepted(names[0])
    mailbox.failed.labels(failure.mode).inc()
    if failure.mode not in ("429", "500"):
        _hang_up(failure)
    status = TOO_MANY if failure.mode == "429" else 500
    response = failed(status, failure.seconds)
    response.status_code = status
    return response


def _hang_up(failure: Failure) -> None:
    """Keep the connection as long as the failure says and close it; what Flask answers goes nowhere."""
    connection = request.environ.get("werkzeug.socket")
    if not isinstance(connection, socket.socket):
        return
    with suppress(OSError):  # the sender may have hung up long ago
        if failure.mode == "half_closed":
            connection.shutdown(socket.SHUT_WR)
        if failure.mode == "drip":
            ends = time.monotonic() + failure.seconds
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Drip: ")
            while time.monotonic() < ends:
                connection.sendall(b".")
                time.sleep(DRIP_PAUSE)
        elif failure.mode != "refuse":
            time.sleep(failure.seconds)
        connection.shutdown(socket.SHUT_RDWR)


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
