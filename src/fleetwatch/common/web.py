"""What the web applications share: ids of requests, errors as JSON, security headers, checked queries."""

from __future__ import annotations

import re
import secrets
from typing import Any, TypeVar, get_origin
from urllib.parse import urlsplit

from flask import Response, jsonify, request
from pydantic import BaseModel, ConfigDict, ValidationError
from werkzeug.datastructures import Authorization, WWWAuthenticate
from werkzeug.exceptions import BadRequest, HTTPException

from fleetwatch.common import logs

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: over plain HTTP a browser then sends "Origin: null" with our own forms as well.
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Resource-Policy": "same-origin",
}
CHALLENGES = (
    WWWAuthenticate("basic", {"realm": "Fleetwatch", "charset": "UTF-8"}),
    WWWAuthenticate("bearer", {"realm": "Fleetwatch"}),
)
"""What an answer 401 asks for."""

_READ_BYTES = 64 * 1024

ModelT = TypeVar("ModelT", bound=BaseModel)


class Query(BaseModel):
    """Base of what may stand after the question mark: what is not known is refused."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


def name_request() -> None:
    """Give each request an id, or keep that of a proxy, so that its log events can be found."""
    given = request.headers.get("X-Request-ID", "")
    logs.request_id.set(given if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given) else secrets.token_hex(8))


def add_headers(response: Response) -> Response:
    """Add the security headers; nothing is cached unless the view says so."""
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def http_error(error: HTTPException) -> Response:
    """Answer an error as ``{"error": "what is wrong"}``."""
    response = error.get_response()
    body = jsonify({"error": error.description or error.name})
    response.set_data(body.get_data())
    response.content_type = "application/json"
    return Response(response.get_data(), error.code, response.headers)


def query(model: type[ModelT]) -> ModelT:
    """Return the request's query parameters as the model has them; raise BadRequest with the reason."""
    found: dict[str, Any] = {}
    for name, values in request.args.lists():
        field = model.model_fields.get(name)
        if field is not None and get_origin(field.annotation) is list:
            found[name] = values
        elif len(values) > 1:
            raise BadRequest(f"the query parameter {name} is given {len(values)} times")
        else:
            found[name] = values[0]
    try:
        return model.model_validate(found)
    except ValidationError as error:
        raise BadRequest(explain(error)) from None


def explain(error: ValidationError) -> str:
    """Put what is wrong with a query or body into words, without quoting it."""
    problems = []
    for detail in error.errors(include_input=False, include_url=False):
        where = ".".join(map(str, detail["loc"]))
        if detail["type"] == "extra_forbidden":
            problems.append(f'"{where}" is not known here')
        else:
            problems.append(f"{where}: {detail['msg']}".removeprefix(": ").replace("Value error, ", ""))
    return "; ".join(problems[:10])


def shown_secret(given: Authorization | None) -> bytes:
    """Return the token or password that a caller shows, empty for none."""
    if given is not None and given.type == "bearer":
        return (given.token or "").encode("latin-1", "replace")  # the bytes as they were sent
    if given is not None and given.type == "basic":
        return (given.password or "").encode()
    return b""


def from_own_site(external_url: str | None = None) -> bool:
    """Tell whether the request is not one that a browser sends for another site's page.

    A browser adds the user's credentials to such a request by itself.

    Args:
        external_url: under which the service is reached too, as behind a proxy.

    """
    fetch_site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if fetch_site is not None:
        return fetch_site in ("same-origin", "none")
    if origin is None:  # no browser, or one so old that whatever else is checked decides
        return True
    hosts = {request.host, urlsplit(external_url).netloc if external_url else request.host}
    scheme, _, host = origin.partition("://")
    return scheme in ("http", "https") and host in hosts


def read_body(limit: int) -> bytes | None:
    """Return the request's body, ``None`` when it has more than so many bytes.

    Flask's own limit would silently cut one that comes in chunks.
    """
    body = b""
    too_large = (request.content_length or 0) > limit
    while not too_large and (part := request.stream.read(_READ_BYTES)):
        body += part
        too_large = len(body) > limit
    return None if too_large else body
