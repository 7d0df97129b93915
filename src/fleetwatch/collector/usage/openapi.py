"""The OpenAPI document, made from the models of the requests and answers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from fleetwatch.collector.usage import schemas
from fleetwatch.collector.usage.params import PointsQuery, UsageQuery
from fleetwatch.common import openapi

_DESCRIPTION = (
    "What hosts use of CPU, memory and disk, in percent, as plain numbers from what Prometheus has stored. "
    "Values are taken at the multiples of `step` after `start` and up to `end`; each stands for the step "
    "that it ends. So an average is the mean of the values, the same as that of the points with the same "
    "step. As always in Prometheus, a value holds until the next one, for 5 minutes at most."
)
_REASONS = {
    400: "The parameters are wrong; the error says which and why",
    401: "The token is missing or wrong",
    403: "The request comes from another site's page, or the receiver does not let this user send alerts",
    404: "There is no such host or group, or nothing is known of it for that time",
    413: "The body, or the number of alerts in it, is above the limit",
    415: "The body is not declared as application/json",
    502: "Prometheus, or the alert receiver, is away",
    503: "The alert receiver cannot take alerts now; try again",
    504: "Prometheus, or the alert receiver, takes too long",
}
_READ_ERRORS = (400, 401, 404, 502, 504)


def document(server: str | None, *, open_to_all: bool) -> dict[str, Any]:
    """Return the document.

    server: the URL under which the API is reached, if it is known.
    open_to_all: whether reading needs no token.
    """
    queries: list[type[BaseModel]] = [PointsQuery, UsageQuery]
    answers: list[type[BaseModel]] = [
        *schemas.AVERAGES.values(),
        *schemas.POINTS.values(),
        schemas.Problem,
    ]
    _, definitions = models_json_schema(
        [(model, "validation") for model in queries] + [(model, "serialization") for model in answers],
        ref_template="#/components/schemas/{model}",
        schema_generator=openapi.Schemas,
    )
    found = definitions["$defs"]
    parameters = {model.__name__: found.pop(model.__name__) for model in queries}
    problem = _ref("Problem")
    security: list[dict[str, list[str]]] = [{"bearer": []}, {"basic": []}]
    reading = [*security, *([{}] if open_to_all else [])]

    def errors(*statuses: int) -> dict[str, Any]:
        return {
            str(status): {"description": _REASONS[status], **openapi.json_content(problem)}
            for status in statuses
        }

    def usage(
        name: str, summary: str, query: str, models: dict[str, Any], **other: Any
    ) -> dict[str, dict[str, Any]]:
        content = openapi.json_content({"oneOf": [_ref(model.__name__) for model in models.values()]})
        content["content"] |= other
        return {
            "get": {
                "operationId": name,
                "summary": summary,
                "security": reading,
                "parameters": list(openapi.query_parameters(parameters[query])),
                "responses": {"200": {"description": "Done", **content}, **errors(*_READ_ERRORS)},
            }
        }

    alert = {
        "operationId": "alert",
        "summary": "Send alerts",
        "description": "Passed on to the alert receiver as it is, with the credentials of the caller; the "
        "answer is the receiver's. See its document for both.",
        "security": security,
        "requestBody": {"required": True, **openapi.json_content({"type": "object"})},
        "responses": {
            "200": {
                "description": "The receiver has them on disk",
                **openapi.json_content({"type": "object"}),
            },
            **errors(*_REASONS),
        },
    }
    this = {
        "operationId": "openapi",
        "summary": "Show this document",
        "security": reading,
        "responses": {
            "200": {"description": "Done", **openapi.json_content({"type": "object"})},
            **errors(401),
        },
    }
    csv = {
        "schema": {
            "type": "string",
            "examples": ["time,host,cpu_usage\r\n2026-01-02T03:04:00Z,web1,12.5\r\n"],
        }
    }
    return {
        "openapi": "3.1.0",
        "info": openapi.info("Fleetwatch usage API", _DESCRIPTION),
        "servers": [{"url": server or "/"}],
        "paths": {
            "/avg_usage": usage("avg_usage", "Average usage", "UsageQuery", schemas.AVERAGES),
            "/metrics_usage": usage(
                "metrics_usage", "Usage over time", "PointsQuery", schemas.POINTS, **{"text/csv": csv}
            ),
            "/alert": {"post": alert},
            "/openapi.json": {"get": this},
        }
        | openapi.health("Does a Prometheus answer?"),
        "components": {
            "schemas": found,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "Any name, the token as password",
                },
            },
        },
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
