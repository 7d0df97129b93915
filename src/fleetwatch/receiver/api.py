"""The JSON API: incidents, what people do with them, and dead letters."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

from flask import Blueprint, Response, jsonify, request
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import BadRequest

from fleetwatch.alerting.types import Role
from fleetwatch.common import web
from fleetwatch.common.web import Query
from fleetwatch.receiver import auth
from fleetwatch.receiver.context import receiver
from fleetwatch.receiver.openapi import Operation, document
from fleetwatch.receiver.schemas import (
    DeadLetter,
    DeadLetterList,
    DeadLetterQuery,
    HeartbeatAnswer,
    HeartbeatList,
    IncidentAnswer,
    IncidentDetails,
    IncidentList,
    IncidentQuery,
    Note,
    Remark,
    RequeueAll,
    RequeueChannel,
    Requeued,
    RequeueIds,
    RequeueRequest,
)
from fleetwatch.store import ConflictError, UnknownIncidentError

PREFIX = "/api/v1"
OPERATIONS: list[Operation] = []
"""All that the API offers, for the OpenAPI document."""

_MAX_BODY = 256 * 1024  # bytes

api = Blueprint("api", __name__, url_prefix=PREFIX)

ModelT = TypeVar("ModelT", bound=BaseModel)
ViewT = TypeVar("ViewT", bound=Callable[..., BaseModel | Response])


def _operation(  # noqa: PLR0913 - each is a part of the contract
    method: str,
    rule: str,
    answer: type[BaseModel] | None,
    role: Role,
    *,
    query: type[BaseModel] = Query,
    body: type[BaseModel] | None = None,
    errors: tuple[int, ...] = (),
) -> Callable[[ViewT], ViewT]:
    """Add a view to the API and to its OpenAPI document, so that the two cannot differ.

    The view gets ``query`` and ``body`` when it has models of its own for them, checked.
    """

    def decorate(view: ViewT) -> ViewT:
        @auth.require(role)
        def run(**arguments: Any) -> Response:
            found = web.query(query)
            if query is not Query:
                arguments["query"] = found
            if body is not None:
                auth.check_json()
                arguments["body"] = _body(body)
            result = view(**arguments)
            if isinstance(result, Response):
                return result
            return Response(result.model_dump_json(), mimetype="application/json")

        path = PREFIX + re.sub(r"<int:(\w+)>", r"{\1}", rule)
        OPERATIONS.append(Operation(method, path, view.__doc__ or "", answer, role, query, body, errors))
        api.add_url_rule(rule, view.__name__, run, methods=[method])
        return view

    return decorate


@_operation("GET", "/incidents", IncidentList, "read", query=IncidentQuery)
def incidents(query: IncidentQuery) -> IncidentList:
    """List incidents, the newest first."""
    pairs = {(name, value) for name, _, value in (label.partition("=") for label in query.label)}
    labels = dict(pairs)
    if len(labels) < len(pairs):  # no incident has two values of one label
        return IncidentList(incidents=[], next=None)
    page = receiver().store.incidents(
        status=query.status,
        severity=query.severity,
        acknowledged=None if query.acknowledged is None else query.acknowledged == "true",
        labels=labels,
        text=query.q,
        limit=query.limit,
        cursor=query.cursor,
    )
    rows = [IncidentAnswer.model_validate(row) for row in page.rows]
    return IncidentList(incidents=rows, next=page.next)


@_operation("GET", "/incidents/<int:number>", IncidentDetails, "read")
def incident(number: int) -> IncidentDetails:
    """Show one incident with its timeline, the oldest entry first and what is still to come last."""
    return IncidentDetails.of(receiver().store.incident(number))


@_operation("POST", "/incidents/<int:number>/acknowledge", IncidentDetails, "act", body=Remark, errors=(409,))
def acknowledge(number: int, body: Remark) -> IncidentDetails:
    """Acknowledge an incident.

    Its reminders and escalations are cancelled. Doing so again changes nothing; a resolved incident is
    answered 409.
    """
    receiver().store.acknowledge(number, auth.current_user(), body.note)
    return incident(number)


@_operation("POST", "/incidents/<int:number>/notes", IncidentDetails, "act", body=Note)
def add_note(number: int, body: Note) -> IncidentDetails:
    """Add a note to an incident's timeline."""
    receiver().store.add_note(number, auth.current_user(), body.text)
    return incident(number)


@_operation("POST", "/incidents/<int:number>/resolve", IncidentDetails, "act", body=Remark)
def resolve(number: int, body: Remark) -> IncidentDetails:
    """Resolve an incident by hand.

    Each channel that was told of its beginning is told of its end. Doing so again changes nothing.
    """
    receiver().store.resolve(number, auth.current_user(), receiver().router, body.note)
    return incident(number)


@_operation("GET", "/heartbeats", HeartbeatList, "read")
def heartbeats() -> HeartbeatList:
    """List when the Watchdog of each Prometheus last came."""
    rows = [HeartbeatAnswer.of(row) for row in receiver().store.watchdogs()]
    return HeartbeatList(heartbeats=rows)


@_operation("GET", "/dead-letters", DeadLetterList, "read", query=DeadLetterQuery)
def dead_letters(query: DeadLetterQuery) -> DeadLetterList:
    """List messages that were given up, the newest first."""
    page = receiver().store.dead_letters(channel=query.channel, limit=query.limit, cursor=query.cursor)
    rows = [DeadLetter.model_validate(row) for row in page.rows]
    return DeadLetterList(dead_letters=rows, next=page.next)


@_operation("POST", "/dead-letters/requeue", Requeued, "act", body=RequeueRequest)
def requeue(body: RequeueRequest) -> Requeued:
    """Try messages again that were given up.

    They are due at once, and given up again only after the usual time. Ids that are not of dead letters
    are passed over.
    """
    store, user = receiver().store, auth.current_user()
    match body.root:
        case RequeueIds(ids=ids):
            return Requeued(requeued=store.requeue(user, ids=ids))
        case RequeueChannel(channel=channel):
            return Requeued(requeued=store.requeue(user, channel=channel))
        case RequeueAll():
            return Requeued(requeued=store.requeue(user))


@_operation("GET", "/openapi.json", None, "read")
def openapi() -> Response:
    """Show this document."""
    settings = receiver().settings
    return jsonify(_document(frozenset(settings.anonymous_roles), settings.external_url))


@lru_cache(1)
def _document(anonymous_roles: frozenset[str], server: str | None) -> dict[str, Any]:
    return document(OPERATIONS, anonymous_roles, server)


@api.app_errorhandler(UnknownIncidentError)
def _unknown(error: UnknownIncidentError) -> tuple[dict[str, str], int]:
    return {"error": str(error)}, 404


@api.app_errorhandler(ConflictError)
def _conflict(error: ConflictError) -> tuple[dict[str, str], int]:
    return {"error": str(error)}, 409


def _body(model: type[ModelT]) -> ModelT:
    request.max_content_length = _MAX_BODY
    try:
        return model.model_validate_json(request.get_data())
    except ValidationError as error:
        raise BadRequest(web.explain(error)) from None
