"""The OpenAPI document, made from the models of the requests and answers."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from fleetwatch.common import openapi
from fleetwatch.demo import schemas
from fleetwatch.demo.behaviour import Change, Current

_DESCRIPTION = (
    "A payment service to watch. Requests for transactions fail and are slow on purpose, as its settings "
    "say, so a 500 may come from any of them."
)
_REASONS = {
    400: "The request is wrong; the detail says where",
    401: "The token is missing or wrong",
    402: "The payment was declined",
    403: "No token is set, so nobody may",
    404: "There is no such transaction",
    413: "The body is too large",
    415: "The body is not declared as application/json",
    422: "The idempotency key was used for another transaction",
    500: "Failed on purpose, or an error of the program",
    503: "The database is away, or has no free connection; try again",
    504: "The payment gateway took too long",
}


def document() -> dict[str, Any]:
    """Return the document."""
    inputs: list[type[BaseModel]] = [schemas.PageQuery, schemas.NewTransaction, Change]
    answers: list[type[BaseModel]] = [
        schemas.TransactionAnswer,
        schemas.PageAnswer,
        schemas.HealthAnswer,
        schemas.Problem,
        Current,
    ]
    _, definitions = models_json_schema(
        [(model, "validation") for model in inputs] + [(model, "serialization") for model in answers],
        ref_template="#/components/schemas/{model}",
        schema_generator=openapi.Schemas,
    )
    found = definitions["$defs"]
    parameters = list(openapi.query_parameters(found.pop("PageQuery")))
    identity = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Chosen by the caller: a request that comes again with it is not done again",
        "schema": {"type": "string", "pattern": schemas.KEY},
    }
    token: dict[str, Any] = {"security": [{"bearer": []}]}
    control = (401, 403, 500)
    return {
        "openapi": "3.1.0",
        "info": openapi.info("Fleetwatch transactions", _DESCRIPTION),
        "paths": {
            "/transactions": {
                "get": _operation(
                    "transactions",
                    "Transactions, the newest first",
                    {200: "PageAnswer"},
                    (400, 500, 503),
                    parameters=parameters,
                )
            },
            "/transactions/{id}": {
                "get": _operation(
                    "transaction",
                    "One transaction",
                    {200: "TransactionAnswer"},
                    (404, 500, 503),
                    parameters=[identity],
                )
            },
            "/transactions/create": {
                "post": _operation(
                    "create",
                    "Pay an amount",
                    {201: "TransactionAnswer", 200: "TransactionAnswer"},
                    (400, 402, 413, 415, 422, 500, 503, 504),
                    parameters=[key],
                    requestBody=_body("NewTransaction"),
                )
            },
            "/error": {"get": _operation("error", "Fail on purpose", {}, (500,))},
            "/health": {
                "get": _operation(
                    "health", "Can it do its work?", {200: "HealthAnswer", 503: "HealthAnswer"}, ()
                )
            },
            "/control/behaviour": {
                "get": _operation("behaviour", "How it misbehaves", {200: "Current"}, control, **token),
                "put": _operation(
                    "change_behaviour",
                    "Let it misbehave for a while",
                    {200: "Current"},
                    (400, 413, 415, *control),
                    requestBody=_body("Change"),
                    **token,
                ),
                "delete": _operation("reset_behaviour", "End that", {200: "Current"}, control, **token),
            },
            "/openapi.json": {
                "get": {
                    "operationId": "openapi",
                    "summary": "Show this document",
                    "responses": {"200": {"description": "Done", **openapi.json_content({"type": "object"})}},
                }
            },
        },
        "components": {
            "schemas": found,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(
    name: str, summary: str, answers: dict[int, str], errors: tuple[int, ...], **more: Any
) -> dict[str, Any]:
    responses: dict[str, Any] = {
        str(status): {"description": HTTPStatus(status).phrase, **openapi.json_content(_ref(model))}
        for status, model in answers.items()
    }
    problem = {"application/problem+json": {"schema": _ref("Problem")}}
    responses |= {str(status): {"description": _REASONS[status], "content": problem} for status in errors}
    return {"operationId": name, "summary": summary, "responses": responses, **more}


def _body(model: str) -> dict[str, Any]:
    return {"required": True, **openapi.json_content(_ref(model))}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
