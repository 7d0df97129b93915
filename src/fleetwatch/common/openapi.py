"""Parts of an OpenAPI document that are alike in all services."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from pydantic.json_schema import GenerateJsonSchema


class Schemas(GenerateJsonSchema):
    """Pydantic's schemas, without titles that only repeat the field's name."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the signature is pydantic's
        """Leave them out."""
        return False


def info(title: str, description: str) -> dict[str, Any]:
    """Return what a document says of the service."""
    return {
        "title": title,
        "version": version("fleetwatch"),
        "description": description,
        "license": {"name": "MIT", "identifier": "MIT"},
    }


def health(ready: str) -> dict[str, Any]:
    """Return the paths that every service has; ``ready`` is what /readyz answers, as a question."""
    return {
        "/healthz": _health("Is it alive?", 200),
        "/readyz": _health(ready, 200, 503),
        "/metrics": _health("Metrics for Prometheus", 200, media_type="text/plain"),
    }


def _health(summary: str, *statuses: int, media_type: str = "application/json") -> dict[str, Any]:
    content = {media_type: {"schema": {"type": "string" if media_type == "text/plain" else "object"}}}
    answers = {
        str(status): {"description": HTTPStatus(status).phrase, "content": content} for status in statuses
    }
    return {"get": {"summary": summary, "security": [], "responses": answers}}


def query_parameters(schema: dict[str, Any] | None) -> Iterable[dict[str, Any]]:
    """Yield the parameters that a model of a query stands for, given its schema."""
    required = (schema or {}).get("required", ())
    for name, found in (schema or {}).get("properties", {}).items():
        # A parameter is left out instead of being null.
        plain = {key: value for key, value in found.items() if key not in ("anyOf", "title", "description")}
        plain |= next((option for option in found.get("anyOf", ()) if option.get("type") != "null"), {})
        if plain.get("default", "") is None:
            del plain["default"]
        parameter = {"name": name, "in": "query", "description": found.get("description", "")}
        yield parameter | ({"required": True} if name in required else {}) | {"schema": plain}


def json_content(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a body or answer in JSON."""
    return {"content": {"application/json": {"schema": schema}}}
