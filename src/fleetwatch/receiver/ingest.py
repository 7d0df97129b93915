"""The webhook: alerts come in, and are answered once they are on disk."""

from __future__ import annotations

import logging
from typing import Any

from flask import Blueprint, request

from fleetwatch.common import tracing, web
from fleetwatch.receiver import auth, webhook
from fleetwatch.receiver.context import receiver
from fleetwatch.receiver.webhook import WebhookError

# Alertmanager gives up after about 10 seconds, and a late answer is worth nothing to it.
_COMMIT_TIMEOUT = 8.0  # seconds

log = logging.getLogger(__name__)
ingest = Blueprint("ingest", __name__)


@ingest.post("/alerts")
@ingest.post("/")
@ingest.post("/alert")
@ingest.post("/webhook")
@auth.require("send")
def accept() -> tuple[dict[str, Any], int]:
    """Take alerts in: 200 once all that can be accepted is on disk, 4xx when nothing can ever be."""
    if not request.is_json:
        raise WebhookError(415, "content_type", "send JSON with the header Content-Type: application/json")
    if request.content_encoding not in (None, "identity"):
        raise WebhookError(415, "content_type", "compressed bodies are not supported: send plain JSON")
    app = receiver()
    with tracing.span("accept alerts", request.headers.get("traceparent")) as span:
        with app.committer.reading():
            body = web.read_body(limit := app.settings.max_body_bytes)
            if body is None:
                message = f"the body is larger than the limit of {limit} bytes"
                raise WebhookError(413, "too_large", message)
            batch = webhook.parse(body, app.settings.max_alerts, tracing.current_traceparent())
        with app.metrics.commit_seconds.time():
            done = app.committer.commit(batch.events, _COMMIT_TIMEOUT)
        span.set_attribute("alerts", len(batch.events))

    app.metrics.accepted.labels("firing").inc(done.fired)
    app.metrics.accepted.labels("resolved").inc(done.resolved)
    app.metrics.duplicates.inc(done.duplicates)
    app.metrics.heartbeats.inc(done.heartbeats)
    counts = {
        "fired": done.fired,
        "resolved": done.resolved,
        "duplicates": done.duplicates,
        "heartbeats": done.heartbeats,
    }
    # One each minute tells nobody anything.
    level = logging.DEBUG if done.heartbeats == len(batch.events) else logging.INFO
    log.log(level, "alerts accepted", extra={**counts, "refused": len(batch.refused)})
    if batch.refused:
        app.metrics.refused.labels("bad_alert").inc(len(batch.refused))
    if batch.truncated:
        app.metrics.refused.labels("truncated").inc(batch.truncated)
        log.warning(
            "Alertmanager left alerts out: set its max_alerts to 0", extra={"alerts": batch.truncated}
        )
    for refused in batch.refused:
        log.warning("alert refused", extra={"index": refused.index, "reason": refused.reason})
    refusals = [{"index": refused.index, "reason": refused.reason} for refused in batch.refused]
    return {"accepted": done.fired + done.resolved, **counts, "refused": refusals}, 200


@ingest.app_errorhandler(WebhookError)
def _refuse(error: WebhookError) -> tuple[dict[str, str], int]:
    receiver().metrics.refused.labels(error.reason).inc()
    log.warning("request refused", extra={"status": error.status, "reason": str(error)})
    return {"error": str(error)}, error.status
