"""The web page: open incidents, one incident with its timeline, dead letters.

Rendered on the server and complete without JavaScript. A page is also what its own live update fetches:
the ETag leaves out what only the clock changes, so a look that brings no news is answered 304.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Blueprint, Response, make_response, redirect, render_template, request, url_for
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import BadRequest, Conflict, HTTPException, NotFound
from werkzeug.wrappers import Response as BaseResponse

from fleetwatch.dispatcher.render import clickable, cut, duration, silence_url
from fleetwatch.receiver import auth
from fleetwatch.receiver.context import receiver
from fleetwatch.store import ConflictError, Incident, State, Status, UnknownIncidentError, timeline
from fleetwatch.store.desk import Entry

PAGE_SIZE = 100
"""Incidents, or dead letters, on one page."""
MAX_NOTE = 10_000
"""Characters of a note."""
LATE = 60.0
"""Seconds after its time at which a message counts as late."""

_SEVERITIES = ("critical", "warning", "info")
_STATUSES = {"firing": "firing", "new": "not acknowledged", "resolved": "resolved", "all": "all"}
_DONE = {
    "acknowledged": "Acknowledged: reminders and escalation stop.",
    "already": "That was done already.",
    "noted": "Note added.",
    "resolved": "Resolved, and told on each channel that had told of it.",
    "requeued": "Queued: the dispatcher tries again now.",
}
_TOLD = {
    "fired": "Began to fire",
    "received": "Received",
    "resolved": "Resolved",
    "acknowledged": "Acknowledged",
    "note": "Note",
    "reopened": "Fired again",
    "retried": "Not delivered yet, to be tried again",
    "parked": "Not delivered, given up",
    "requeued": "Queued again",
    "silenced": "Silenced",
    "unsilenced": "No longer silenced",
}
_LINKS = {"runbook_url": "Runbook", "dashboard_url": "Dashboard", "panel_url": "Grafana panel"}

# Characters that no page of ours holds, so those in a page come from an alert: they could hide or reverse
# text, and a lone surrogate could not even be sent. Joiners stay, since some scripts and emoji need them.
_UNSAFE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ud800-\udfff\U000e0000-\U000e007f]"
)
_CLOCK = re.compile(r"(<time [^>]*>)[^<]*")  # escaping keeps an alert from writing such a tag

log = logging.getLogger(__name__)
pages = Blueprint(
    "pages", __name__, template_folder="templates", static_folder="static", static_url_path="/static"
)


@pages.get("/")
@pages.get("/incidents")
@auth.require("read")
def incidents() -> Response:
    """Show the open incidents, the most severe and oldest first; or others, the newest first.

    Query: ``status=firing|new|resolved|all``, ``severity``, ``text``, ``label`` (``name=value``, several
    with spaces between), ``page`` for open ones, ``cursor`` for the others.
    """
    filters = {name: _neutral(request.args.get(name, "")) for name in ("status", "severity", "text", "label")}
    filters["status"] = filters["status"] if filters["status"] in _STATUSES else "firing"
    store = receiver().store
    counts = store.open_by_severity()
    values: dict[str, Any] = {
        "section": "incidents",
        "counts": {name: counts[name] for name in sorted(counts, key=_rank)},
        "severities": sorted({*_SEVERITIES, *counts, *filter(None, [filters["severity"]])}, key=_rank),
        "statuses": _STATUSES,
        "filters": filters,
        "filtered": any(value for name, value in filters.items() if name != "status")
        or filters["status"] != "firing",
    }
    try:
        values |= _found(filters)
    except ValueError as error:
        return _page("incidents.html", 400, problem=str(error), incidents=[], **values)
    return _page("incidents.html", **values)


def _found(filters: Mapping[str, str]) -> dict[str, Any]:
    """Return the incidents of a page and the way to the pages beside it; ValueError for a wrong filter."""
    status, store = filters["status"], receiver().store
    wanted: dict[str, Any] = {
        "severity": filters["severity"] or None,
        "labels": _labels(filters["label"]),
        "text": filters["text"].strip(),
    }
    given: dict[str, Any] = {name: value for name, value in filters.items() if value}
    if status in ("resolved", "all"):
        cursor = request.args.get("cursor")
        page = store.incidents(
            status=Status.RESOLVED if status == "resolved" else None, limit=PAGE_SIZE, cursor=cursor, **wanted
        )
        return {
            "incidents": page.rows,
            "shown": "The newest first",
            "newer": cursor and url_for(".incidents", **given),
            "newer_text": "Newest",
            "older": page.next and url_for(".incidents", **given, cursor=page.next),
        }
    number = request.args.get("page", 1, int)
    if not 1 <= number <= 10**6:
        raise ValueError("there is no such page")
    offset = (number - 1) * PAGE_SIZE
    rows = store.open_incidents(
        PAGE_SIZE + 1, offset, acknowledged=False if status == "new" else None, **wanted
    )
    return {
        "incidents": rows[:PAGE_SIZE],
        "shown": f"{offset + 1} to {offset + min(len(rows), PAGE_SIZE)}",
        "newer": number > 1 and url_for(".incidents", **given, page=number - 1),
        "newer_text": "Previous",
        "older": len(rows) > PAGE_SIZE and url_for(".incidents", **given, page=number + 1),
    }


@pages.get("/incidents/<int:number>")
@auth.require("read")
def incident(number: int) -> Response:
    """Show all about one incident."""
    return _incident(number)


@pages.post("/incidents/<int:number>/acknowledge")
@auth.require("act")
def acknowledge(number: int) -> BaseResponse:
    """Record that the caller takes care of it."""
    auth.check_form()
    try:
        new = receiver().store.acknowledge(number, auth.current_user())
    except ConflictError as error:
        return _incident(number, Conflict.code, problem=f"Not acknowledged: {error}.")
    return _done("acknowledged" if new else "already", number)


@pages.post("/incidents/<int:number>/notes")
@auth.require("act")
def add_note(number: int) -> BaseResponse:
    """Add a note of the caller."""
    auth.check_form()
    text = _neutral(request.form.get("text", "")).strip()
    if not 0 < len(text) <= MAX_NOTE:
        problem = f"A note has from 1 to {MAX_NOTE} characters."
        return _incident(number, BadRequest.code, problem=problem, draft=text)
    receiver().store.add_note(number, auth.current_user(), text)
    return _done("noted", number)


@pages.post("/incidents/<int:number>/resolve")
@auth.require("act")
def resolve(number: int) -> BaseResponse:
    """Resolve it by hand."""
    auth.check_form()
    new = receiver().store.resolve(number, auth.current_user(), receiver().router)
    return _done("resolved" if new else "already", number)


@pages.get("/dead-letters")
@auth.require("read")
def dead_letters() -> Response:
    """List the messages that were given up, the newest first."""
    cursor = request.args.get("cursor")
    try:
        page = receiver().store.dead_letters(limit=PAGE_SIZE, cursor=cursor)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    return _page(
        "dead_letters.html",
        section="dead letters",
        letters=page.rows,
        newer=cursor and url_for(".dead_letters"),
        newer_text="Newest",
        older=page.next and url_for(".dead_letters", cursor=page.next),
    )


@pages.post("/dead-letters/requeue")
@pages.post("/dead-letters/<int:number>/requeue")
@auth.require("act")
def requeue(number: int | None = None) -> BaseResponse:
    """Have one message tried again, or all."""
    auth.check_form()
    queued = receiver().store.requeue(auth.current_user(), ids=None if number is None else [number])
    return _done("requeued" if queued else "already")


@pages.errorhandler(HTTPException)
def _http_error(error: HTTPException) -> BaseResponse:
    response = error.get_response()
    if response.location:
        return response
    response.data = _render("problem.html", name=error.name, description=error.description)
    response.content_type = "text/html; charset=utf-8"
    return response


@pages.errorhandler(UnknownIncidentError)
def _unknown(error: UnknownIncidentError) -> BaseResponse:
    return _http_error(NotFound(str(error)))


@pages.errorhandler(SQLAlchemyError)
@pages.errorhandler(TimeoutError)
def _store_error(_error: Exception) -> tuple[str, int]:
    log.exception("store failed")
    text = "The receiver cannot reach its database. Reload in a moment; its log says why."
    return _render("problem.html", name="Store not available", description=text), 503


def _incident(number: int, status: int = 200, **values: Any) -> Response:
    found = receiver().store.incident(number)
    return _page(
        "incident.html",
        status,
        section="incident",
        incident=found,
        annotations={name: text for name, text in found.annotations.items() if text != found.summary},
        timeline=timeline(found),
        links=_links(found),
        max_note=MAX_NOTE,
        **values,
    )


def _done(what: str, number: int | None = None) -> BaseResponse:
    """Send the browser on to the page that shows the result, so that a reload does nothing twice."""
    url = url_for(".dead_letters") if number is None else url_for(".incident", number=number)
    return redirect(f"{url}?done={what}", 303)


def _page(template: str, status: int = 200, **values: Any) -> Response:
    """Return a page with what all have in common, or 304 when the browser has it."""
    store = receiver().store
    outbox = store.depth()
    html = _render(
        template,
        **{
            "firing": sum(store.open_by_severity().values()),
            "outbox": outbox,
            "late_since": _late_since(outbox.oldest_age),
            "user": auth.current_user(),
            "may_act": auth.may("act"),
            "done": _DONE.get(request.args.get("done", "")),
        }
        | values,
    )
    response = make_response(html, status)
    if status == 200:  # noqa: PLR2004 - the usual one
        response.set_etag(hashlib.sha256(_CLOCK.sub(r"\1", html).encode()).hexdigest()[:32])
        response.make_conditional(request)
    return response


def _late_since(age: float) -> datetime | None:
    """Return since when a message is late, by the minute, so that it stays the same from look to look."""
    since = datetime.now(UTC) - timedelta(seconds=age)
    return since.replace(second=0, microsecond=0) if age > LATE else None


def _render(template: str, **values: Any) -> str:
    return _neutral(render_template(template, now=datetime.now(UTC), **values))


def _neutral(text: str) -> str:
    """Make characters visible that could hide or reverse others, or that no page can hold."""
    return _UNSAFE.sub("\ufffd", text.replace("\r\n", "\n"))


def _labels(text: str) -> dict[str, str]:
    """Read ``name=value`` pairs with spaces between; a value with a space stands in quotes."""
    pairs = [word.partition("=") for word in shlex.split(text)]
    if not all(name and equals for name, equals, _ in pairs):
        raise ValueError("write labels as name=value, several with spaces between")
    return {name: value for name, _, value in pairs}


def _links(found: Incident) -> dict[str, str]:
    """Return where else to look, text to URL."""
    urls = {text: found.annotations.get(name, "") for name, text in _LINKS.items()} | {
        "Prometheus": found.generator_url,
        "Alertmanager": found.external_url,
        "Silence": silence_url(found.external_url, found.labels) if found.status == Status.FIRING else "",
    }
    return {text: url for text, url in urls.items() if clickable(url)}


def _rank(severity: str) -> tuple[int, str]:
    return (_SEVERITIES.index(severity) if severity in _SEVERITIES else len(_SEVERITIES), severity)


@pages.app_template_filter()
def severity_class(severity: str) -> str:
    """Return the name of the severity's colours."""
    return severity if severity in _SEVERITIES else "other"


@pages.app_template_filter()
def host(found: Incident) -> str:
    """Return where it happens."""
    return found.labels.get("host") or found.labels.get("instance") or ""


@pages.app_template_filter()
def details(found: Incident) -> str:
    """Return the labels that the list does not show elsewhere, on one line."""
    shown = ("alertname", "severity", "host")
    rest = [f"{name}={cut(value, 80)}" for name, value in sorted(found.labels.items()) if name not in shown]
    return " · ".join(filter(None, [cut(found.labels.get("alertname", ""), 80), *rest[:8]]))


@pages.app_template_filter()
def undelivered(found: Incident) -> int:
    """Return how many of its messages were given up."""
    return sum(row.state == State.PARKED for row in found.notifications)


@pages.app_template_filter()
def tell(entry: Entry) -> str:
    """Return what a line of the timeline says."""
    if entry.kind == "notified":
        return f"Sent by {entry.channel}: {entry.transition}"
    if entry.kind == "waiting":
        return f"To be sent by {entry.channel}: {entry.transition}"
    text = _TOLD.get(entry.kind, entry.kind)
    return f"{text} by {entry.author}" if entry.author else text


@pages.app_template_filter()
def age(span: timedelta) -> str:
    """Return a time span that goes on, without seconds once it is longer than a minute."""
    return duration(span - span % timedelta(minutes=1) if span >= timedelta(minutes=1) else span)


@pages.app_template_filter()
def iso(at: datetime) -> str:
    """Return a time for machines."""
    return at.isoformat(timespec="milliseconds")


@pages.app_template_filter()
def utc(at: datetime) -> str:
    """Return a time for people."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


for _filter in (clickable, cut, duration):
    pages.add_app_template_filter(_filter)
