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
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

from jinja2 import (
    BaseLoader,
    ChoiceLoader,
    FileSystemLoader,
    PackageLoader,
    PrefixLoader,
    StrictUndefined,
    Template,
    TemplateError,
    TemplateSyntaxError,
)
from jinja2.sandbox import ImmutableSandboxedEnvironment

from fleetwatch.alerting.settings import AlertingSettings
from fleetwatch.dispatcher.channels import Message
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
    urls: Mapping[str, str]
    """``incident``, ``acknowledge``, ``runbook``, ``panel``, ``dashboard``, ``graph``, ``silence`` and
    ``alertmanager``, those that there are; http or https only."""
    links: Sequence[Link]
    """The same, and the site's own, with a text each."""


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
            _environment(ChoiceLoader([FileSystemLoader(self._directory), *shared])) if self._directory else None
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
        """Compile every template, and render each with a sample; raise BrokenTemplateError.

        What is checked is what a site has written: its templates and the links of the settings.
        """

    def message(self, rows: Sequence[Notification], templates: Sequence[str]) -> Message:
        """Return the message that tells of these notifications, a digest when there are several.

        rows: at least one, each with its incident loaded.
        templates: names out of ``TEMPLATES``.
        """
        raise NotImplementedError
