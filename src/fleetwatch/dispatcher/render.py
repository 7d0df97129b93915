"""From notifications to a message: Jinja2, sandboxed, HTML autoescaped.

Labels and annotations come from outside. They are data in every place: never a template, never markup,
never a line of a header, and a link only when it is http or https. Templates see plain data (``Alert``),
no object of the database, so that a site's own template can reach nothing else.

A site's templates are tried at the start (``Renderer.check``). When one fails all the same on an alert that
nobody thought of, the built-in one takes its place: no message is lost for a template.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import traceback
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote, urlsplit

from jinja2 import (
    BaseLoader,
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    PackageLoader,
    PrefixLoader,
    StrictUndefined,
    Template,
    TemplateError,
    TemplateSyntaxError,
    UndefinedError,
)
from jinja2.sandbox import ImmutableSandboxedEnvironment

from fleetwatch.alerting.settings import AlertingSettings
from fleetwatch.dispatcher.channels import Message
from fleetwatch.dispatcher.sample import sample
from fleetwatch.store import Incident, Notification
from fleetwatch.store.models import Transition

TEMPLATES = ("mail.subject", "mail.txt", "mail.html", "slack.json", "webhook.json", "sms.txt")
"""What there is a built-in template for; its file is named so with ``.j2`` at the end."""

MAX_SUBJECT = 200  # characters
MAX_HTML = 100_000  # bytes: Gmail cuts off what is longer than 102 KB
MAX_URL = 2000  # characters: what every browser and mail program takes
MAX_LISTED = 50  # alerts of a digest that have a line of their own; the others are counted
MAX_SMS = 300  # characters of the GSM alphabet: two segments
MAX_SMS_UNICODE = 201  # UTF-16 units: three segments

_COLOURS = {"critical": "#b91c1c", "error": "#c2410c", "warning": "#b45309", "info": "#1d4ed8"}
_OTHER_COLOUR = "#4b5563"
_RESOLVED_COLOUR = "#15803d"
_RANKS = {severity: rank for rank, severity in enumerate(_COLOURS)}
_NOUNS = {
    Transition.FIRING: ("alert", "alerts"),
    Transition.RESOLVED: ("resolved", "resolved"),
    Transition.REMINDER: ("reminder", "reminders"),
    Transition.ESCALATION: ("escalation", "escalations"),
}
# How long texts and URLs may be in mail.html: the next step is taken while the mail is too long.
_ROOM = ((None, MAX_URL), (1000, MAX_URL), (200, 500), (60, 200))
_URL_ANNOTATIONS = {"runbook_url": "runbook", "panel_url": "panel", "dashboard_url": "dashboard"}
_LINK_TEXTS = {
    "acknowledge": "Acknowledge",
    "incident": "Incident",
    "runbook": "Runbook",
    "panel": "Grafana panel",
    "dashboard": "Dashboard",
    "graph": "Graph in Prometheus",
    "silence": "Silence",
}
_RESOLVED_BY = {"reconciliation": "reconciliation: no Alertmanager knows the alert any more"}
_MAX_NAMES = 4  # alert names in the subject of a digest
_MATCHER_NAME = re.compile(r"[^\s{}!=~,\\\"'`]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # but not tab and newline
_GSM = frozenset(
    "@£$¥èéùìòÇ\nØøÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà^{}\\[~]|€"
)
_GSM_EXTENDED = frozenset("^{}\\[~]|€")
_GSM_SUBSTITUTES = {
    **dict.fromkeys("\u2018\u2019", "'"),  # quotation marks
    **dict.fromkeys("\u201c\u201d\u201e", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"),  # dashes and minus
    **dict.fromkeys("\u2022\u00b7", "*"),  # bullets
    "\u00d7": "x",  # multiplication sign
    "\u0142": "l",
    "\u0141": "L",
    "\u2026": "...",
    "\u2192": "->",
    "\t": " ",
}
_MAX_TEXTS = 50  # labels, and annotations, that are shown when room is short

log = logging.getLogger(__name__)


class BrokenTemplateError(Exception):
    """A template cannot work; the text is one line that names the file and, if known, the line."""


class Texts(dict[str, str]):
    """Labels or annotations as templates see them: one that is missing is empty."""

    def __missing__(self, name: str) -> str:
        """Return the empty text."""
        return ""


@dataclass(frozen=True)
class Link:
    """A link to offer."""

    text: str
    url: str


@dataclass(frozen=True)
class Alert:
    """What templates see of one notification; times are UTC."""

    id: int
    """The incident's number."""
    transition: str
    """``firing``, ``resolved``, ``reminder`` or ``escalation``."""
    number: int
    """Which reminder or escalation it is, from 1."""
    status: str
    """``firing`` or ``resolved``: what the incident is now."""
    severity: str
    word: str
    """The severity in capitals, ``RESOLVED``, or ``ALERT`` without a severity."""
    colour: str
    name: str
    """The label ``alertname``."""
    summary: str
    """One line."""
    description: str
    host: str
    """The label ``host``, or else ``instance``; may be empty."""
    value: str
    """The annotation ``value``; may be empty."""
    fingerprint: str
    labels: Texts
    annotations: Texts
    details: Texts
    """The annotations that are not yet told by another field."""
    starts_at: datetime
    received_at: datetime
    ends_at: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    lasts: str
    """How long it has fired, or fired until it was resolved, as ``1 h 5 min``."""
    waits: str
    """How long ago the receiver got it: since then somebody could have acknowledged it."""
    route: str
    channel: str
    urls: Texts
    """``incident``, ``acknowledge``, ``runbook``, ``panel``, ``dashboard``, ``graph``, ``silence`` and
    ``alertmanager``, those that there are; http or https only."""
    links: Sequence[Link]
    """What of it is offered, and the links of the settings."""
    facts: Mapping[str, str]
    """What is told in short lines: ``Host``, ``Since``, ``Value`` and so on."""


@dataclass(frozen=True)
class Group:
    """Alerts of one name in a digest."""

    name: str
    count: int
    hosts: Sequence[str]
    """All hosts, in order."""


class Renderer:
    """Renders notifications with the built-in templates, or with a site's in their place."""

    def __init__(
        self, settings: AlertingSettings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """Take ``external_url``, ``links`` and ``template_directory`` from the settings.

        clock: tells the time that "5 min ago" counts from.
        """
        self._external_url = settings.external_url
        self._directory = settings.template_directory
        self._clock = clock
        builtin = PackageLoader("fleetwatch.dispatcher")
        # "builtin/mail.html.j2" is what a site's mail.html.j2 extends or imports.
        shared = [PrefixLoader({"builtin": builtin}), builtin]
        self._builtin = _environment(ChoiceLoader(shared))
        self._site = (
            _environment(ChoiceLoader([FileSystemLoader(self._directory), *shared]))
            if self._directory
            else None
        )
        # Each value is quoted, so a label can neither leave its place in the URL nor add to it.
        self._urls = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, finalize=lambda value: quote(str(value), safe="")
        )
        self._links: dict[str, Template | TemplateSyntaxError] = {}
        for text, url in settings.links.items():
            try:
                self._links[text] = self._urls.from_string(url)
            except TemplateSyntaxError as error:
                self._links[text] = error

    def check(self) -> None:
        """Compile every template, and render each with samples; raise BrokenTemplateError.

        Finds what a site has written wrongly, in a template or in ``links``, before an alert needs it.
        """
        for text, template in self._links.items():
            if isinstance(template, TemplateSyntaxError):
                raise BrokenTemplateError(f'setting "links": the URL of "{text}": {template.message}')
        if self._directory:
            _check_names(self._directory)
        now = self._clock()
        samples = [sample(transition, 1, now) for transition in Transition]
        samples.append([row for transition in Transition for row in sample(transition, MAX_LISTED, now)])
        for name in TEMPLATES:
            for rows in samples:
                try:
                    self._render(self._site or self._builtin, name, rows, now)
                except Exception as error:
                    raise BrokenTemplateError(_where(error, name)) from error

    def message(self, rows: Sequence[Notification], templates: Sequence[str]) -> Message:
        """Return the message that tells of these notifications, a digest when there are several.

        rows: at least one, each with its incident loaded.
        templates: names out of ``TEMPLATES``.
        """
        now = self._clock()
        return Message(
            key=_key(rows),
            parts={name: self._part(name, rows, now) for name in templates},
            traceparent=next((row.traceparent for row in rows if row.traceparent), None),
        )

    def _part(self, name: str, rows: Sequence[Notification], now: datetime) -> str:
        if self._site:
            try:
                return self._render(self._site, name, rows, now)
            except Exception as error:
                log.exception("broken template, the built-in one is used", extra={"why": _where(error, name)})
        return self._render(self._builtin, name, rows, now)

    def _render(
        self, environment: Environment, name: str, rows: Sequence[Notification], now: datetime
    ) -> str:
        template = environment.get_template(f"{name}.j2")
        text = ""
        for room in _ROOM if name == "mail.html" else _ROOM[:1]:
            text = _finish(name, template.render(self._values(rows, now, *room)))
            if len(text.encode()) <= MAX_HTML:
                break
        return text

    def _values(
        self, rows: Sequence[Notification], now: datetime, longest: int | None, longest_url: int
    ) -> dict[str, object]:
        alerts = [self._alert(row, now, longest, longest_url) for row in rows]
        alerts.sort(
            key=lambda alert: (alert.transition == Transition.RESOLVED, _rank(alert), alert.starts_at)
        )
        digest = len(alerts) > 1
        words = Counter((alert.word, alert.colour) for alert in alerts)
        return {
            "alerts": alerts,
            "alert": alerts[0],
            "digest": digest,
            "transition": alerts[0].transition
            if len({alert.transition for alert in alerts}) == 1
            else "mixed",
            "word": alerts[0].word,
            "colour": alerts[0].colour,
            "title": _digest_title(alerts) if digest else _title(alerts[0]),
            "severities": [
                {"word": word, "colour": colour, "count": n} for (word, colour), n in words.items()
            ],
            "listed": alerts[:MAX_LISTED],
            "others": _groups(alerts[MAX_LISTED:]),
            "incidents_url": f"{self._external_url}/incidents" if self._external_url else "",
            "key": _key(rows),
            "now": now,
        }

    def _alert(self, row: Notification, now: datetime, longest: int | None, longest_url: int) -> Alert:
        incident = row.incident
        resolved = row.transition == Transition.RESOLVED
        annotations = incident.annotations
        urls = Texts(
            (name, url)
            for name, url in self._incident_urls(incident, resolved).items()
            if len(url) <= longest_url and clickable(url)
        )
        links = [Link(text, urls[name]) for name, text in _LINK_TEXTS.items() if name in urls]
        links += [
            Link(text, url)
            for text, url in self._own_links(incident).items()
            if len(url) <= longest_url and clickable(url)
        ]
        # What has a place of its own is not told twice; what cannot be a link stays readable as text.
        told = {"summary", "description", "value"}
        told |= {note for note in _URL_ANNOTATIONS if _URL_ANNOTATIONS[note] in urls}
        severity = incident.severity
        word = "RESOLVED" if resolved else "ALERT" if severity == "none" else one_line(severity).upper()
        host = incident.labels.get("host") or incident.labels.get("instance") or ""
        lasts = duration((incident.ends_at or now) - incident.starts_at)
        alert = Alert(
            id=incident.id or 0,
            transition=str(row.transition),
            number=(row.sequence or 0) + 1,
            status=str(incident.status),
            severity=severity,
            word=cut(word, longest),
            colour=_RESOLVED_COLOUR if resolved else _COLOURS.get(severity, _OTHER_COLOUR),
            name=cut(one_line(incident.labels.get("alertname", "")), longest),
            summary=cut(one_line(incident.summary), longest),
            description=cut(annotations.get("description", "").strip(), longest),
            host=cut(one_line(host), longest),
            value=cut(one_line(annotations.get("value", "")), longest),
            fingerprint=incident.fingerprint,
            labels=_texts(incident.labels, longest),
            annotations=_texts(annotations, longest),
            details=_texts({name: text for name, text in annotations.items() if name not in told}, longest),
            starts_at=incident.starts_at,
            received_at=incident.received_at,
            ends_at=incident.ends_at,
            acknowledged_at=incident.acknowledged_at,
            acknowledged_by=incident.acknowledged_by,
            lasts=lasts,
            waits=duration(now - incident.received_at),
            route=row.route or "",
            channel=row.channel or "",
            urls=urls,
            links=links,
            facts={},
        )
        return replace(alert, facts=_facts(alert, incident, resolved))

    def _incident_urls(self, incident: Incident, resolved: bool) -> dict[str, str]:
        """Return where an incident can be looked at and dealt with; what there is not is empty."""
        urls = {name: incident.annotations.get(note, "") for note, name in _URL_ANNOTATIONS.items()}
        urls |= {"graph": incident.generator_url, "alertmanager": incident.external_url}
        if self._external_url and incident.id:
            urls["incident"] = f"{self._external_url}/incidents/{incident.id}"
            if not resolved and incident.acknowledged_at is None:
                # A page with a button: mail scanners follow each link, and must not acknowledge.
                urls["acknowledge"] = f"{urls['incident']}#acknowledge"
        if not resolved:
            urls["silence"] = silence_url(incident.external_url, incident.labels)
        return urls

    def _own_links(self, incident: Incident) -> dict[str, str]:
        """Return the links of the settings, without those that speak of a label that is not there."""
        found = {}
        for text, template in self._links.items():
            if isinstance(template, Template):
                try:
                    found[text] = template.render(labels=incident.labels, annotations=incident.annotations)
                except UndefinedError:
                    continue
                except Exception:
                    log.exception("broken link", extra={"link": text})
        return found


def silence_url(external_url: str, labels: Mapping[str, str]) -> str:
    """Return Alertmanager's form for a silence with all labels filled in; empty if it has no such form.

    The filter is written as Alertmanager's page does it: values as JSON strings, then percent-encoded.
    """
    usable = {name: value for name, value in sorted(labels.items()) if value}
    if not external_url or not usable or not all(_MATCHER_NAME.fullmatch(name) for name in usable):
        return ""
    matchers = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in usable.items())
    return f"{external_url.rstrip('/')}/#/silences/new?filter={quote(f'{{{matchers}}}', safe='')}"


def one_line(text: str) -> str:
    """Return the text on one line, without control or formatting characters that could hide or forge."""
    if text.isprintable():  # by far the most are, and texts can be long
        return " ".join(text.split())
    return " ".join(
        "".join(
            " " if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") else char for char in text
        ).split()
    )


def clickable(url: str) -> bool:
    """Tell whether a URL may be made a link: absolute, http or https."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc) and not re.search(r"[\s\x00-\x1f]", url)


def cut(text: str, longest: int | None) -> str:
    """Return the text, shortened with ``…`` to so many characters; ``None`` leaves it whole."""
    return text if longest is None or len(text) <= longest else text[: longest - 1].rstrip() + "…"


def duration(span: timedelta) -> str:
    """Return a time span as ``1 h 5 min``: its two largest units."""
    seconds = max(int(span.total_seconds()), 0)
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        parts.append(f"{count} {unit}" if count else "")
    first = next((number for number, part in enumerate(parts) if part), None)
    return "0 s" if first is None else " ".join(part for part in parts[first : first + 2] if part)


def slack_text(text: str, longest: int) -> str:
    """Escape a text for Slack, and shorten it to so many characters, as Slack counts them."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if len(escaped) <= longest:
        return escaped
    return re.sub(r"&[a-z]*$", "", escaped[: longest - 1]) + "…"


def sms_text(text: str) -> str:
    """Return the text short enough for a text message, in the GSM alphabet if that is possible.

    A single character outside of it would more than halve what fits into a segment. A URL in the last
    line is kept whole.
    """
    plain = "".join(char if char in _GSM else _gsm(char) for char in text)
    gsm = all(char in _GSM for char in plain)
    text, limit = (plain, MAX_SMS) if gsm else (text, MAX_SMS_UNICODE)

    def size(part: str) -> int:
        return (
            sum(1 + (char in _GSM_EXTENDED) for char in part) if gsm else len(part.encode("utf-16-le")) // 2
        )

    if size(text) <= limit:
        return text
    body, _, last = text.rpartition("\n")
    end = f"\n{last}" if clickable(last) and size(last) < limit // 2 else ""
    body = body if end else text
    end = f"...{end}"
    while size(body) + size(end) > limit:
        body = body[:-1]
    return body.rstrip() + end


def _gsm(char: str) -> str:
    """Return what stands for a character in the GSM alphabet, or the character itself."""
    base = _GSM_SUBSTITUTES.get(char) or unicodedata.normalize("NFD", char)[0]
    return base if all(part in _GSM for part in base) else char


def _environment(loader: BaseLoader) -> Environment:
    environment = ImmutableSandboxedEnvironment(
        loader=loader,
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    environment.filters |= {
        "clickable": clickable,
        "cut": cut,
        "duration": duration,
        "human": _human,
        "iso": _iso,
        "one_line": one_line,
        "slack": slack_text,
    }
    return environment


def _finish(name: str, text: str) -> str:
    """Return a rendered text as its channel can take it; raise ValueError when none can."""
    if name == "mail.subject":
        text = cut(one_line(text), MAX_SUBJECT)
    elif name == "sms.txt":
        text = sms_text(_printable(text).strip())
    elif name.endswith(".json"):
        text = json.dumps(json.loads(text, parse_constant=_not_json), separators=(",", ":"))
    else:
        text = _printable(text)
    if not text.strip():
        raise ValueError("the text is empty")
    return text


def _not_json(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _check_names(directory: Path) -> None:
    """Refuse what looks like a template, but would never be used."""
    try:
        names = sorted(path.name for path in directory.iterdir())
    except OSError as error:
        raise BrokenTemplateError(
            f'setting "template_directory": cannot read {directory}: {error.strerror}'
        ) from None
    known = [f"{name}.j2" for name in TEMPLATES]
    for name in names:
        if name in TEMPLATES or (name.endswith(".j2") and name not in known and not name.startswith("_")):
            raise BrokenTemplateError(
                f"{directory / name}: no template of this name is used: call it one of {', '.join(known)}, "
                "or begin its name with _ when others import it"
            )


def _where(error: Exception, name: str) -> str:
    """Say in one line what is wrong with a template, and where."""
    file, line = f"{name}.j2", None
    if isinstance(error, TemplateSyntaxError):
        file, line = error.filename or error.name or file, error.lineno
    else:
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename.endswith(".j2"):
                file, line = frame.filename, frame.lineno
    what = str(error) if isinstance(error, TemplateError | ValueError) else f"{type(error).__name__}: {error}"
    return one_line(f"template {file}{f' line {line}' if line else ''}: {what}")


def _key(rows: Sequence[Notification]) -> str:
    keys = sorted(_row_key(row) for row in rows)
    return (
        keys[0] if len(keys) == 1 else f"digest/{hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:32]}"
    )


def _row_key(row: Notification) -> str:
    parts = [row.incident.fingerprint, row.incident.starts_at.isoformat(), str(row.transition)]
    if row.sequence or row.episode:
        parts.append(str(row.sequence or 0))
    if row.episode:
        parts.append(str(row.episode))
    return "/".join(parts)


def _rank(alert: Alert) -> int:
    return _RANKS.get(alert.severity, len(_RANKS))


def _title(alert: Alert) -> str:
    told = alert.transition in (Transition.REMINDER, Transition.ESCALATION)
    return f"{alert.transition.upper()}: {alert.summary}" if told else alert.summary


def _digest_title(alerts: Sequence[Alert]) -> str:
    """Return e.g. ``480 alerts, 20 resolved: 490 HostDown, 10 HighCpu``."""
    transitions = Counter(alert.transition for alert in alerts)
    if set(transitions) == {Transition.RESOLVED}:
        what = f"{len(alerts)} alerts"  # the word before it says that they are resolved
    else:
        what = ", ".join(
            f"{transitions[kind]} {nouns[transitions[kind] > 1]}"
            for kind, nouns in _NOUNS.items()
            if transitions[kind]
        )
    groups = _groups(alerts)
    names = [f"{group.count} {cut(group.name, 50)}" for group in groups[:_MAX_NAMES]]
    if more := sum(group.count for group in groups[_MAX_NAMES:]):
        names.append(f"{more} others")
    return f"{what}: {', '.join(names)}"


def _groups(alerts: Sequence[Alert]) -> list[Group]:
    """Return the alerts counted by name, the most frequent first."""
    hosts: dict[str, dict[str, None]] = {}
    for alert in alerts:
        hosts.setdefault(alert.name or "unnamed", {})[alert.host] = None
    counts = Counter(alert.name or "unnamed" for alert in alerts)
    return [
        Group(name, count, [host for host in hosts[name] if host]) for name, count in counts.most_common()
    ]


def _facts(alert: Alert, incident: Incident, resolved: bool) -> dict[str, str]:
    facts = {"Host": alert.host}
    if resolved:
        facts["Began"] = _human(alert.starts_at)
        facts["Ended"] = _human(alert.ends_at) if alert.ends_at else ""
        facts["Lasted"] = alert.lasts if alert.ends_at else ""
        facts["Resolved by"] = _RESOLVED_BY.get(incident.resolved_by or "", incident.resolved_by or "")
    else:
        facts["Since"] = f"{_human(alert.starts_at)} ({alert.lasts} ago)"
    facts["Value"] = alert.value
    if alert.acknowledged_at:
        facts["Acknowledged"] = f"{_human(alert.acknowledged_at)} by {alert.acknowledged_by or 'somebody'}"
    return {name: one_line(text) for name, text in facts.items() if text}


def _texts(texts: Mapping[str, str], longest: int | None) -> Texts:
    """Return labels or annotations in order; when room is short also each, and their number, cut."""
    items = sorted(texts.items())
    if longest is None:
        return Texts(items)
    shown = Texts((cut(name, longest), cut(text, longest)) for name, text in items[:_MAX_TEXTS])
    if more := len(items) - len(shown):
        shown["…"] = f"and {more} more"
    return shown


def _printable(text: str) -> str:
    """Drop control characters except newline and tab, which mail programs and APIs choke on."""
    return _CONTROL.sub("", text)


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _human(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%a %-d %b %Y, %H:%M:%S UTC")
