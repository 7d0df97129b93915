"""The requests."""

from __future__ import annotations

import hmac
import re
from functools import lru_cache
from typing import Any, TypeVar
from uuid import UUID

from flask import Blueprint, Response, g, jsonify, request, url_for
from pydantic import BaseModel, ValidationError
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import (
    BadRequest,
    Forbidden,
    HTTPException,
    NotFound,
    RequestEntityTooLarge,
    Unauthorized,
    UnprocessableEntity,
    UnsupportedMediaType,
)

from fleetwatch.common import web
from fleetwatch.demo import schemas
from fleetwatch.demo.behaviour import Change
from fleetwatch.demo.context import api
from fleetwatch.demo.models import Transaction
from fleetwatch.demo.openapi import document
from fleetwatch.demo.storage import New

_LARGEST_BODY = 16 * 1024

requests = Blueprint("requests", __name__)
ModelT = TypeVar("ModelT", bound=BaseModel)


class DeclinedError(HTTPException):
    """The payment was declined. Werkzeug has no class for 402."""

    code = 402


class DeliberateError(Exception):
    """What /error is for."""


@requests.get("/health")
def health() -> tuple[Response, int]:
    """Tell how the service and what it needs are."""
    parts = {"database": api().database(), "cache": api().cache.state(), "queue": api().publisher.state}
    up = parts["database"] == "up"
    status = "unavailable" if not up else "degraded" if "down" in parts.values() else "ok"
    return _json(schemas.HealthAnswer.model_validate({"status": status, **parts})), 200 if up else 503


@requests.get("/transactions")
def transactions() -> Response:
    """Answer a page of transactions, from the cache if it has it."""
    query = web.query(schemas.PageQuery)
    name = f"{query.limit}:{query.cursor or ''}:{query.status or ''}"
    body = api().cache.page(name, lambda: _page(query).model_dump_json().encode())
    return Response(body, mimetype="application/json")


@requests.get("/transactions/<uuid:id>")
def transaction(id: UUID) -> Response:  # noqa: A002 - its name in the path, and so in metrics
    """Answer one transaction."""
    found = api().storage.get(id)
    if found is None:
        raise NotFound("there is no such transaction")
    return _json(schemas.TransactionAnswer.model_validate(found))


@requests.post("/transactions/create")
def create() -> tuple[Response, int, dict[str, str]]:
    """Have an amount paid, and store it for the workers to settle.

    The payment is authorised before anything is stored. If that fails, the authorisation lapses.
    """
    key = request.headers.get("Idempotency-Key")
    if key is not None and not re.fullmatch(schemas.KEY, key):
        raise BadRequest("the header Idempotency-Key must be 1 to 128 printable ASCII characters, no spaces")
    asked = _body(schemas.NewTransaction)
    known = api().storage.by_key(key) if key is not None else None
    if known is not None:
        return _replay(asked, known)
    payment = api().gateway.authorise(asked.amount, asked.currency)
    if payment is None:
        raise DeclinedError("the payment gateway declined the payment")
    new = New(
        amount=asked.amount,
        currency=asked.currency,
        reference=asked.reference,
        payment_id=payment,
        idempotency_key=key,
        traceparent=g.traceparent,
    )
    made, is_new = api().storage.create(new)
    if not is_new:  # another request with the same key was faster
        return _replay(asked, made)
    metrics = api().metrics
    metrics.created.labels(made.currency).inc()
    metrics.created_amount.labels(made.currency).inc(float(made.amount))
    api().cache.invalidate()
    api().publisher.publish(made.id)
    return _created(made, 201)


@requests.get("/error")
def error() -> Response:
    """Fail on purpose."""
    raise DeliberateError("somebody asked for it")


@requests.get("/control/behaviour")
def behaviour() -> Response:
    """Show which share of requests fails and how slow they are."""
    _check_controller()
    return _json(api().behaviour.current())


@requests.put("/control/behaviour")
def change_behaviour() -> Response:
    """Change it for a while, on all instances of this host."""
    _check_controller()
    return _json(api().behaviour.change(_body(Change)))


@requests.delete("/control/behaviour")
def reset_behaviour() -> Response:
    """End the change."""
    _check_controller()
    return _json(api().behaviour.reset())


@requests.get("/openapi.json")
def openapi() -> Response:
    """Show the document of all this."""
    return jsonify(_document())


@lru_cache(1)
def _document() -> dict[str, Any]:
    return document()


def _page(query: schemas.PageQuery) -> schemas.PageAnswer:
    before = (query.cursor.time, query.cursor.id) if query.cursor else None
    # One more than asked for tells whether there is another page.
    found = api().storage.page(query.limit + 1, before, query.status)
    shown, last = found[: query.limit], None
    if len(found) > query.limit:
        last = str(schemas.Cursor(time=shown[-1].created_at, id=shown[-1].id))
    answers = [schemas.TransactionAnswer.model_validate(one) for one in shown]
    return schemas.PageAnswer(transactions=answers, next_cursor=last)


def _created(made: Transaction, status: int) -> tuple[Response, int, dict[str, str]]:
    answer = schemas.TransactionAnswer.model_validate(made)
    return _json(answer), status, {"Location": url_for("requests.transaction", id=made.id)}


def _replay(asked: schemas.NewTransaction, known: Transaction) -> tuple[Response, int, dict[str, str]]:
    """Answer a request that was done before with the transaction as it is by now."""
    if not asked.is_that_of(known):
        raise UnprocessableEntity("the Idempotency-Key was used for another transaction: take a new one")
    return _created(known, 200)


def _body(model: type[ModelT]) -> ModelT:
    """Return the request's body as the model has it; raise what is to be answered when it is not so."""
    if not request.is_json:
        raise UnsupportedMediaType("send JSON with the header Content-Type: application/json")
    body = web.read_body(_LARGEST_BODY)
    if body is None:
        raise RequestEntityTooLarge(f"the body is larger than {_LARGEST_BODY} bytes")
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise BadRequest(web.explain(error)) from None


def _check_controller() -> None:
    token = api().settings.control_token.get_secret_value()
    if not token:
        raise Forbidden(
            "no control_token is set, so only the command on the host changes the behaviour: "
            "fleetwatch-transactions behaviour"
        )
    if not hmac.compare_digest(web.shown_secret(request.authorization), token.encode()):
        raise Unauthorized(
            "show the control_token: Authorization: Bearer <token>",
            www_authenticate=WWWAuthenticate("bearer", {"realm": "Fleetwatch"}),
        )


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), mimetype="application/json")
