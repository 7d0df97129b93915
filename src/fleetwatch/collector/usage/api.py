"""The API: averages, points, alerts that are passed on."""

from __future__ import annotations

import csv
import errno
import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from typing import Any

from flask import Blueprint, Response, g, jsonify, request, stream_with_context
from werkzeug.exceptions import (
    Forbidden,
    NotFound,
    RequestEntityTooLarge,
    Unauthorized,
    UnsupportedMediaType,
)

from fleetwatch.collector.usage import answers, promql, schemas
from fleetwatch.collector.usage.answers import HostAverage, Point
from fleetwatch.collector.usage.context import usage
from fleetwatch.collector.usage.forward import ReceiverError
from fleetwatch.collector.usage.openapi import document
from fleetwatch.collector.usage.params import (
    POINTS_OF_ANSWER,
    POINTS_OF_AVERAGE,
    PointsQuery,
    Question,
    UsageQuery,
    iso,
    question,
)
from fleetwatch.collector.usage.prometheus import PrometheusError
from fleetwatch.common import logs, web

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute

log = logging.getLogger(__name__)
api = Blueprint("api", __name__)


@api.get("/avg_usage")
def avg_usage() -> Response:
    """Answer the average of all hosts that are asked for, and of each."""
    query = web.query(UsageQuery)
    asked = question(query, usage().settings, POINTS_OF_AVERAGE, datetime.now(UTC))
    found = averages(asked)
    expression = promql.average(
        answers.expression(asked, usage().settings), asked.steps * asked.step, asked.step
    )
    model = schemas.AVERAGES[asked.resource]
    hosts = [
        schemas.HostAnswer(
            host=name,
            average=host.average,
            points=host.count,
            sources=[source for source, _ in host.by_source.most_common()],
        )
        for name, host in found.items()
    ]
    answer = model.model_validate(
        {
            **_asked(asked, expression),
            f"average_{asked.resource}_usage": answers.overall(found),
            "points": sum(host.count for host in found.values()),
            "hosts": hosts,
        }
    )
    return Response(answer.model_dump_json(), mimetype="application/json")


@api.get("/metrics_usage")
def metrics_usage() -> Response:
    """Answer the values over time, as JSON or CSV, while they come."""
    query = web.query(PointsQuery)
    asked = question(query, usage().settings, POINTS_OF_ANSWER, datetime.now(UTC))
    found = points(asked)
    if query.format == "csv":
        response = Response(_stream(_csv(asked, found)), mimetype="text/csv")
        name = f"{asked.resource}_usage_{iso(asked.start)}_{iso(asked.end)}.csv".replace(":", "")
        response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return response
    return Response(_stream(_json(asked, found)), mimetype="application/json")


@api.post("/alert")
def alert() -> Response:
    """Pass alerts on to the alert receiver. It decides about the caller, whose credentials it gets."""
    receivers = usage().receivers
    if not receivers.urls:
        raise NotFound("there is no alert receiver to pass alerts on to")
    if not web.from_own_site():
        raise Forbidden("the request comes from another site's page")
    credentials = request.headers.get("Authorization")
    if not credentials:
        raise Unauthorized(
            "show who you are: a user of the alert receiver who may send, or its webhook token",
            www_authenticate=web.CHALLENGES,
        )
    if not request.is_json:
        raise UnsupportedMediaType("send JSON with the header Content-Type: application/json")
    limit = usage().settings.max_body_bytes
    body = web.read_body(limit)
    if body is None:
        raise RequestEntityTooLarge(f"the body is larger than the limit of {limit} bytes")
    headers = {"Authorization": credentials, "Content-Type": "application/json"}
    headers |= {"X-Request-ID": logs.request_id.get() or ""}
    if parent := request.headers.get("traceparent"):
        headers["traceparent"] = parent
    answer = receivers.send(body, headers)
    return Response(answer.body, answer.status, dict(answer.headers))


@api.get("/openapi.json")
def openapi() -> Response:
    """Show the document of all this."""
    settings = usage().settings
    return jsonify(_document(settings.external_url, settings.read_token is None))


@lru_cache(1)
def _document(server: str | None, open_to_all: bool) -> dict[str, Any]:
    return document(server, open_to_all=open_to_all)


@api.app_errorhandler(PrometheusError)
@api.app_errorhandler(ReceiverError)
def _away(error: PrometheusError | ReceiverError) -> tuple[dict[str, str], int]:
    log.warning("not answered", extra={"reason": str(error)})
    return {"error": str(error)}, error.status


def averages(asked: Question) -> dict[str, HostAverage]:
    """Return each host's average; raise NotFound when there is none."""
    found = answers.averages(usage().prometheus, usage().settings, asked)
    if not found:
        raise NotFound(_why_nothing(asked))
    usage().metrics.points.inc(sum(host.count for host in found.values()))
    return found


def points(asked: Question) -> Iterator[list[Point]]:
    """Return the parts of the answer; raise NotFound when there is none."""
    parts = answers.points(usage().prometheus, usage().settings, asked)
    first = next(parts, None)
    if first is None:
        raise NotFound(_why_nothing(asked))
    return map(_counted, chain([first], parts))


def _counted(part: list[Point]) -> list[Point]:
    usage().metrics.points.inc(len(part))
    return part


def _why_nothing(asked: Question) -> str:
    if asked.host is not None:
        selector = f"{{{promql.hosts([asked.host])}}}"
        if not usage().prometheus.label_values("host", selector):
            return f'Prometheus knows no host "{asked.host}"'
    return f"there is no {asked.resource} usage of {asked.whose} from {iso(asked.start)} to {iso(asked.end)}"


def _asked(asked: Question, expression: str) -> dict[str, Any]:
    return {
        "resource": asked.resource,
        "unit": "percent",
        "start": iso(asked.start),
        "end": iso(asked.end),
        "step": asked.step,
        "query": expression,
    }


def _json(asked: Question, parts: Iterator[list[Point]]) -> Iterator[str]:
    head = json.dumps(_asked(asked, answers.expression(asked, usage().settings)))
    between = f'{head[:-1]}, "{asked.resource}_usage": ['
    for part in parts:
        times = {at: iso(at) for at, _, _ in part}
        names = {host: json.dumps(host) for _, host, _ in part}
        rows = (
            f'{{"time": "{times[at]}", "host": {names[host]}, "value": {value!r}}}'
            for at, host, value in part
        )
        yield between + ",\n".join(rows)
        between = ",\n"
    yield "]}\n"


def _csv(asked: Question, parts: Iterator[list[Point]]) -> Iterator[str]:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("time", "host", f"{asked.resource}_usage"))
    for part in parts:
        times = {at: iso(at) for at, _, _ in part}
        for at, host, value in part:
            # A host's label may come from who pushed it; an apostrophe keeps a spreadsheet from computing it.
            safe = f"'{host}" if host.startswith(_FORMULA) else host
            writer.writerow((times[at], safe, value))
        yield text.getvalue()
        text.seek(0)
        text.truncate()


def _stream(texts: Iterator[str]) -> Iterator[str]:
    """Send texts as they come. What goes wrong breaks the connection: nobody takes the answer for whole."""
    connection = request.environ.get("gunicorn.socket")
    if connection is not None:
        connection.settimeout(usage().settings.stall_timeout)
    broken_off = g.broken_off

    def run() -> Iterator[str]:
        try:
            yield from texts
        except PrometheusError as error:
            broken_off.append(error)
            log.warning("answer broken off", extra={"reason": str(error)})
            # gunicorn takes it for the end of the caller's connection, and closes it without a traceback.
            raise OSError(errno.ECONNRESET, "answer broken off") from error

    return stream_with_context(run())
