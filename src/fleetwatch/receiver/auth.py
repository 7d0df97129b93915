"""Who may do what, and what keeps a browser from being used against its owner.

A view says what it needs; everything else about the caller follows::

    @pages.get("/")
    @auth.require("read")
    def page(): ...

    @pages.post("/incidents/<int:number>/acknowledge")
    @auth.require("act")
    def acknowledge(number):
        auth.check_form()  # a view of the JSON API calls check_json() instead
        ... auth.current_user() ...

A form holds ``<input type="hidden" name="csrf_token" value="{{ csrf_token() }}">``.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import ParamSpec, TypeVar

from flask import Flask, current_app, g, request
from werkzeug.datastructures import Authorization
from werkzeug.exceptions import Forbidden, Unauthorized, UnsupportedMediaType

from fleetwatch.alerting.types import Role
from fleetwatch.common import web
from fleetwatch.receiver.context import receiver
from fleetwatch.receiver.settings import ReceiverSettings

ANONYMOUS = "anonymous"
"""What a caller without a user is called."""
CSRF_FIELD = "csrf_token"
CSRF_HOURS = 12
"""For how long a form can be sent after it was shown."""

_LOG_PAUSE = 1.0  # seconds between two log events about refused callers
_HOUR = 3600

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request comes from."""

    name: str
    roles: frozenset[str]
    csrf_key: bytes

    def __repr__(self) -> str:
        """Leave out the key."""
        return f"Caller({self.name})"


class Guard:
    """Knows the users, and tells who a request comes from."""

    def __init__(self, settings: ReceiverSettings) -> None:
        """Take users, secrets and anonymous roles."""
        # What is compared are digests under a key that nobody knows: of equal length, and of no use to
        # whoever could measure where they differ.
        self._key = secrets.token_bytes(32)
        self._users = []
        for user in settings.users:
            secret = settings.user_secrets[user.name].get_secret_value().encode()
            csrf_key = hmac.digest(secret, b"fleetwatch csrf", "sha256")
            caller = Caller(user.name, _with_implied(user.roles), csrf_key)
            self._users.append((self._digest(user.name.encode()), self._digest(secret), caller))
        self.anonymous = Caller(ANONYMOUS, _with_implied(settings.anonymous_roles), secrets.token_bytes(32))
        self._refusals = _Limited()

    def identify(self, given: Authorization | None) -> Caller | None:
        """Return whose credentials these are, ``None`` for nobody's; takes as long for one as for another."""
        name, secret = None, web.shown_secret(given)
        if given is not None and given.type == "basic":
            name = self._digest((given.username or "").encode())
        digest = self._digest(secret)
        found = None
        for user_name, user_digest, caller in self._users:
            same_secret = hmac.compare_digest(digest, user_digest)
            same_name = hmac.compare_digest(name or user_name, user_name)
            if same_secret & same_name:
                found = caller
        return found if secret else None

    def refuse(self, reason: str, level: int = logging.WARNING) -> None:
        """Count a caller who is refused, and log it unless that was done a moment ago."""
        receiver().metrics.auth_failures.labels(reason).inc()
        if (left_out := self._refusals.take()) is not None:
            details = {"reason": reason, "client": request.remote_addr, "path": request.path[:200]}
            log.log(level, "caller refused", extra={**details, "left_out": left_out})

    def _digest(self, value: bytes) -> bytes:
        return hmac.digest(self._key, value, "sha256")


class _Limited:
    """Lets one event through in each ``_LOG_PAUSE``, and counts the others."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._next = 0.0
        self._left_out = 0

    def take(self) -> int | None:
        """Return how many were left out since the last one, ``None`` when this one is to be left out."""
        with self._lock:
            if time.monotonic() < self._next:
                self._left_out += 1
                return None
            self._next = time.monotonic() + _LOG_PAUSE
            left_out, self._left_out = self._left_out, 0
            return left_out


def init(app: Flask, settings: ReceiverSettings) -> None:
    """Prepare the application: users, ``csrf_token()`` in templates, security headers in every answer."""
    app.extensions["guard"] = Guard(settings)
    app.jinja_env.globals["csrf_token"] = csrf_token
    app.after_request(web.add_headers)


def require(role: Role) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let only callers with the role into a view; others are answered 401 or, when they are known, 403."""

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            _authorize(role)
            return view(*args, **kwargs)

        return guarded

    return decorate


def may(role: Role) -> bool:
    """Tell whether the caller of a guarded view has a role, so that a page offers only what works."""
    return role in _caller().roles


def current_user() -> str:
    """Return the name of the caller of a guarded view; ``ANONYMOUS`` for one without a user."""
    return _caller().name


def csrf_token() -> str:
    """Return what a form shown to this caller must send back; no other caller's will do."""
    return _token(_caller(), int(time.time()) // _HOUR)


def check_form() -> None:
    """Refuse (403) a form that was not shown to this caller by this receiver, or too long ago."""
    _check_origin()
    given = request.form.get(CSRF_FIELD, "")
    this_hour = int(time.time()) // _HOUR
    text = given.partition(".")[0]
    hour = int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(this_hour)) else 0
    expected = _token(_caller(), hour)
    fresh = 0 <= this_hour - hour < CSRF_HOURS
    if not (hmac.compare_digest(given.encode(), expected.encode()) and fresh):
        _guard().refuse("csrf")
        raise Forbidden("the form is out of date: reload the page and send it again")


def check_json() -> None:
    """Refuse what a foreign page can make a browser send: other media types (415), other origins (403)."""
    _check_origin()
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("send JSON with the header Content-Type: application/json")


def _authorize(role: Role) -> None:
    given = "Authorization" in request.headers
    guard = _guard()
    caller = guard.identify(request.authorization) if given else guard.anonymous
    if caller is None:
        guard.refuse("bad_credentials")
        raise Unauthorized("wrong user, password or token", www_authenticate=web.CHALLENGES)
    if role not in caller.roles:
        if not given:
            guard.refuse("no_credentials", logging.INFO)  # as a browser's first request is
            message = f'log in as a user with the role "{role}": basic authentication or a bearer token'
            raise Unauthorized(message, www_authenticate=web.CHALLENGES)
        guard.refuse("forbidden")
        raise Forbidden(f'user "{caller.name}" has not the role "{role}"')
    g.caller = caller


def _check_origin() -> None:
    """Refuse what a browser sends for another site's page; it adds the credentials by itself."""
    if not web.from_own_site(receiver().settings.external_url):
        _guard().refuse("cross_site")
        raise Forbidden("the request comes from another site's page")


def _token(caller: Caller, hour: int) -> str:
    return f"{hour}.{hmac.new(caller.csrf_key, str(hour).encode(), hashlib.sha256).hexdigest()}"


def _with_implied(roles: list[Role]) -> frozenset[str]:
    return frozenset(roles) | ({"read"} if "act" in roles else frozenset())


def _guard() -> Guard:
    guard: Guard = current_app.extensions["guard"]
    return guard


def _caller() -> Caller:
    caller: Caller = g.caller
    return caller
