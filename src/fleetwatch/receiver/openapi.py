"""The OpenAPI document, made from the models of the requests and answers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from fleetwatch.alerting.types import Role
from fleetwatch.common import openapi
from fleetwatch.receiver.schemas import MAX_ID, AcceptedAlerts, Problem, WebhookMessage

_REASONS = {
    400: "The request is wrong; the error says where",
    401: "No user, or a wrong secret",
    403: "The user has not the role, or the request comes from another site's page",
    404: "There is none of this id",
    409: "The state of the incident does not allow it",
    413: "The body, or the number of alerts in it, is above the limit",
    415: "The body is not declared as application/json",
    503: "The store does not answer; try again",
}


@dataclass(frozen=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    """As OpenAPI writes it, with ``{number}`` for a parameter; all parameters are ids."""
    text: str
    """What it does; the first line is the summary."""
    answer: type[BaseModel] | None
    """Model of the answer; ``None`` when it is any JSON object."""
    role: Role
    """What the caller must be allowed."""
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    errors: tuple[int, ...] = ()
    """Statuses beside those that follow from the rest."""

    @property
    def all_errors(self) -> list[int]:
        """Return every status of an error that it may answer."""
        found = {400, 401, 403, 503, *self.errors}  # 400 for an unknown query parameter too
        if self.body:
            found |= {413, 415}
        if "{" in self.path:
            found.add(404)
        return sorted(found)


WEBHOOK = Operation(
    "POST",
    "/alerts",
    "Send alerts\n\nAlertmanager's webhook, or posted by hand; the paths `/`, `/alert` and `/webhook` do the "
    "same. The answer comes once everything that can be accepted is on disk. One bad alert never costs the "
    "others: it is refused with its reason, and only a request without any good one is answered 400.",
    AcceptedAlerts,
    "send",
    body=WebhookMessage,
)


def document(
    operations: Iterable[Operation], anonymous_roles: Collection[str], server: str | None
) -> dict[str, Any]:
    """Return the document of these operations and the webhook.

    anonymous_roles: what may be done without a user.
    server: the URL under which the receiver is reached, if it is known.
    """
    operations = [WEBHOOK, *operations]
    inputs = {model for each in operations for model in (each.body, each.query) if model}
    outputs = {each.answer for each in operations if each.answer} | {Problem}
    found, definitions = models_json_schema(
        [(model, "validation") for model in _by_name(inputs)]
        + [(model, "serialization") for model in _by_name(outputs)],
        ref_template="#/components/schemas/{model}",
        schema_generator=openapi.Schemas,
    )
    schemas = definitions["$defs"]
    refs: dict[Any, Any] = {model: schema for (model, _), schema in found.items()}
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        query = schemas[each.query.__name__] if each.query else None
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, refs, query, anonymous_roles)
    for model in inputs - {each.body for each in operations}:
        del schemas[model.__name__]  # stands in the parameters
    return {
        "openapi": "3.1.0",
        "info": openapi.info(
            "Fleetwatch alert receiver", "Incidents, what people do with them, and the messages about them."
        ),
        "servers": [{"url": server or "/"}],
        "paths": paths | openapi.health("Can it accept alerts now?"),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A user's secret as token"},
                "basic": {"type": "http", "scheme": "basic", "description": "A user's name and secret"},
            },
        },
    }


def _operation(
    operation: Operation,
    refs: dict[Any, Any],
    query: dict[str, Any] | None,
    anonymous_roles: Collection[str],
) -> dict[str, Any]:
    summary, _, description = inspect.cleandoc(operation.text).partition("\n")
    schema = refs[operation.answer] if operation.answer else {"type": "object"}
    answers: dict[str, Any] = {"200": {"description": "Done", **openapi.json_content(schema)}}
    for status in operation.all_errors:
        answers[str(status)] = {"description": _REASONS[status], **openapi.json_content(refs[Problem])}
    result: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{operation.method} {operation.path}".lower()).strip("_"),
        "summary": summary.rstrip("."),
        "description": f"{description.strip()}\n\nNeeds the role `{operation.role}`.".strip(),
        "responses": answers,
        "security": [{"bearer": []}, {"basic": []}],
    }
    if operation.role in anonymous_roles:
        result["security"].append({})
    if parameters := [*_path_parameters(operation.path), *openapi.query_parameters(query)]:
        result["parameters"] = parameters
    if operation.body:
        result["requestBody"] = {"required": True, **openapi.json_content(refs[operation.body])}
    return result


def _path_parameters(path: str) -> Iterable[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", path):
        schema = {"type": "integer", "minimum": 1, "maximum": MAX_ID}
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _by_name(models: Iterable[type[BaseModel]]) -> list[type[BaseModel]]:
    return sorted(models, key=lambda model: model.__name__)
