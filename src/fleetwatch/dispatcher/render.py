"""From a notification to a message: Jinja2, sandboxed, HTML autoescaped.

Labels and annotations come from outside. They are data in every place: never a template, never markup,
never a line of a header, and a link only when it is http or https.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import urlsplit

from jinja2 import PackageLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

from fleetwatch.dispatcher.channels import Message
from fleetwatch.store import Incident, Notification, Status

MAX_SUBJECT = 200  # characters
_COLOURS = {"critical": "#c0262d", "warning": "#b45309", "info": "#1d5fbf"}
_OTHER_COLOUR = "#4b5563"
_RESOLVED_COLOUR = "#15803d"


class Renderer:
    """Renders notifications with the templates of this package."""

    def __init__(self, links: Mapping[str, str]) -> None:
        """Set the links (text to URL) at the end of each message."""
        self._links = dict(links)
        self._environment = SandboxedEnvironment(
            loader=PackageLoader("fleetwatch.dispatcher"),
            autoescape=lambda name: name is not None and name.endswith(".html.j2"),
            undefined=StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        self._environment.filters |= {
            "one_line": one_line,
            "iso": _iso,
            "human": _human,
            "clickable": clickable,
        }

    def message(self, notification: Notification) -> Message:
        """Return the message of one notification."""
        incident = notification.incident
        resolved = notification.transition == Status.RESOLVED
        word = "resolved" if resolved else incident.severity if incident.severity != "none" else "alert"
        subject = one_line(f"[{word.upper()}] {incident.summary}")
        if len(subject) > MAX_SUBJECT:
            subject = subject[: MAX_SUBJECT - 1] + "…"
        values = {
            "incident": incident,
            "resolved": resolved,
            "word": word.upper(),
            "colour": _RESOLVED_COLOUR if resolved else _COLOURS.get(incident.severity, _OTHER_COLOUR),
            "description": incident.annotations.get("description", ""),
            "annotations": {
                name: text
                for name, text in sorted(incident.annotations.items())
                if name not in ("summary", "description", "runbook_url")
            },
            "labels": dict(sorted(incident.labels.items())),
            "duration": _duration(incident),
            "links": self._all_links(incident),
        }
        text, html = (
            self._environment.get_template(name).render(values) for name in ("mail.txt.j2", "mail.html.j2")
        )
        return Message(
            key=f"{incident.fingerprint}/{incident.starts_at.isoformat()}/{notification.transition}",
            subject=subject,
            text=_printable(text),
            html=_printable(html),
        )

    def _all_links(self, incident: Incident) -> dict[str, str]:
        links = {
            "Runbook": incident.annotations.get("runbook_url", ""),
            "Graph in Prometheus": incident.generator_url,
            "Alertmanager": incident.external_url,
        }
        return {text: url for text, url in (links | self._links).items() if url}


def one_line(text: str) -> str:
    """Return the text on one line, without control or formatting characters that could hide or forge."""
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


def _printable(text: str) -> str:
    """Drop control characters except newline and tab, which mail programs and APIs choke on."""
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) != "Cc")


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _human(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%A, %-d %B %Y, %H:%M:%S UTC")


def _duration(incident: Incident) -> str:
    """Return how long a resolved incident lasted, e.g. ``1 h 5 min``; empty while it lasts."""
    if incident.ends_at is None or incident.ends_at < incident.starts_at:
        return ""
    seconds = int((incident.ends_at - incident.starts_at).total_seconds())
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    parts = []
    for unit, size in units:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
