# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""What Grafana is given: its settings as an ini file, its datasources, its dashboards.

Formats: Grafana's ``conf/defaults.ini`` (read by go-ini), ``pkg/services/provisioning/datasources/types.go``
and ``pkg/services/provisioning/dashboards``. In provisioning files Grafana expands ``$NAME`` and ``${NAME}``
in every text value, and takes ``$$`` for a dollar (``pkg/services/provisioning/values``).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

UID_LENGTH = 40
"""Characters that a uid may have in Grafana."""
OWN_FOLDER = "fleetwatch"
"""Folder of the dashboards that come with the components, below that of all dashboards."""
SITE_FOLDER = "site"
"""Folder of the site's own dashboards; a folder in it is a folder in Grafana."""
DEEPEST = 2
"""Parts that the name of a dashboard may have: a folder, and its own."""

_UID = re.compile(r"[a-zA-Z0-9_-]{1,40}")
_SECTION = re.compile(r"[A-Za-z0-9_.-]+")
_KEY = re.compile(r"[A-Za-z0-9_.-]+")


class GrafanaError(ValueError):
    """A setting that Grafana would not take, or not as it was meant; names the setting and the cure."""


# --- grafana.ini -----------------------------------------------------------------------------


def ini(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the text of a ``grafana.ini``.

    :param settings: section -> key -> value. ``None`` leaves a key to Grafana; the section ``DEFAULT`` holds
        the keys that stand before all sections.
    :raises GrafanaError: a name or value cannot be written.
    """
    first = settings.get("DEFAULT") or {}
    lines = [*_ini_lines("DEFAULT", first)]
    for section, values in settings.items():
        if section == "DEFAULT":
            continue
        if not _SECTION.fullmatch(str(section)):
            raise GrafanaError(f"{section!r} is not the name of a section of grafana.ini")
        if not isinstance(values, dict):
            raise GrafanaError(f"the section {section} of grafana.ini must map keys to values")
        if body := _ini_lines(str(section), values):
            lines += ["", f"[{section}]", *body]
    return "\n".join(["; Written by Ansible; changes made here are lost.", *lines, ""])


def _ini_lines(section: str, values: Mapping[str, Any]) -> list[str]:
    return [
        f"{_ini_key(section, key)} = {_ini_value(section, key, value)}"
        for key, value in values.items()
        if value is not None
    ]


def _ini_key(section: str, key: object) -> str:
    if not _KEY.fullmatch(str(key)):
        raise GrafanaError(f"{key!r} in the section {section} is not a key of grafana.ini")
    return str(key)


def _ini_value(section: str, key: object, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple, dict)):
        raise GrafanaError(
            f"{key} in the section {section} must be written as grafana.ini has it, as one text"
        )
    text = str(value)
    if "\n" in text or '"""' in text:
        raise GrafanaError(f"{key} in the section {section} cannot be written in one line of grafana.ini")
    # go-ini takes # and ; for comments, and takes quotes and spaces at the ends away.
    quoted = any(mark in text for mark in "#;`") or text != text.strip() or text[:1] in {'"', "'"}
    return f'"""{text}"""' if quoted else text


# --- Datasources -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """A host of the fleet that Grafana can ask."""

    kind: str
    """Type of the datasource, which is the component's name too: prometheus, alertmanager, loki, tempo."""
    host: str
    url: str
    interval: str = ""
    """How often Prometheus scrapes, as a duration."""


NAMES = {"prometheus": "Prometheus", "alertmanager": "Alertmanager", "loki": "Loki", "tempo": "Tempo"}
"""Components that are datasources, and what people call them; in the order in which they are listed."""


def uid(kind: str, host: str) -> str:
    """Return the uid of a host's datasource: the same on every run, and allowed in Grafana."""
    text = re.sub(r"[^a-zA-Z0-9_-]", "-", f"{kind}-{host}")
    if text == f"{kind}-{host}" and len(text) <= UID_LENGTH:
        return text
    digest = hashlib.sha256(host.encode()).hexdigest()[:8]
    return f"{text[: UID_LENGTH - 9]}-{digest}"


def datasources(
    sources: Sequence[Source],
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    extra: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Return the datasources of the fleet, linked to one another, and after them those of the site.

    :param sources: who can be asked; of each kind the first is the one that others link to, and the first
        Prometheus is Grafana's default.
    :param changes: kind -> what the site changes in each datasource of it; dictionaries in it are merged.
    :param extra: the site's own, as Grafana takes them.
    :raises GrafanaError: one is not complete, or two have the same name or uid, or are both the default.
    """
    first = {kind: next((uid(kind, s.host) for s in sources if s.kind == kind), "") for kind in NAMES}
    alone = {kind: sum(source.kind == kind for source in sources) == 1 for kind in NAMES}
    found = []
    default = not any(entry.get("isDefault") for entry in extra)
    for kind, title in NAMES.items():
        for source in (source for source in sources if source.kind == kind):
            entry = {
                "name": title if alone[kind] else f"{title} {source.host}",
                "uid": uid(kind, source.host),
                "type": kind,
                "access": "proxy",
                "url": source.url,
                "isDefault": default and kind == "prometheus" and uid(kind, source.host) == first[kind],
                "editable": False,
                "jsonData": _json_data(source, first),
            }
            found.append(_merged(entry, (changes or {}).get(kind) or {}))
    if unknown := set(changes or {}) - set(NAMES):
        raise GrafanaError(
            f"grafana_datasource_settings: {min(unknown)} is none of {', '.join(NAMES)}; "
            "a datasource of your own belongs in grafana_extra_datasources"
        )
    return _checked([*found, *({"access": "proxy", "editable": False, **entry} for entry in extra)])


def _json_data(source: Source, first: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of a datasource, with the links to the others that exist."""
    prometheus, loki, tempo = first["prometheus"], first["loki"], first["tempo"]
    if source.kind == "prometheus":
        data: dict[str, Any] = {"httpMethod": "POST", "prometheusType": "Prometheus"}
        if source.interval:
            data["timeInterval"] = source.interval  # the least that $__interval becomes
        if first["alertmanager"]:
            data["alertmanagerUid"] = first["alertmanager"]
        if tempo:
            data["exemplarTraceIdDestinations"] = [{"name": "trace_id", "datasourceUid": tempo}]
        return data
    if source.kind == "alertmanager":
        return {"implementation": "prometheus", "handleGrafanaManagedAlerts": False}
    if source.kind == "loki":
        links = [
            {
                "name": "trace_id",
                "matcherType": "label",
                "matcherRegex": "trace_id",
            },  # logs that came by OTLP
            {
                "name": "trace_id in the text",
                "matcherRegex": r'"?trace_?[iI][dD]"?\s*[=:]\s*"?([0-9a-f]{16,32})',
            },
        ]
        common = {"datasourceUid": tempo, "url": "${__value.raw}", "urlDisplayLabel": "Open the trace"}
        return {"derivedFields": [link | common for link in links]} if tempo else {}
    data = {"nodeGraph": {"enabled": True}}
    if loki:
        data["tracesToLogsV2"] = {
            "datasourceUid": loki,
            "spanStartTimeShift": "-5m",
            "spanEndTimeShift": "5m",
            "filterByTraceID": True,
            "tags": [{"key": "service.name", "value": "service_name"}],
        }
    if prometheus:
        data["tracesToMetrics"] = {
            "datasourceUid": prometheus,
            "spanStartTimeShift": "-5m",
            "spanEndTimeShift": "5m",
            "tags": [{"key": "service.name", "value": "service"}],
            "queries": [
                {
                    "name": "Requests per second",
                    "query": "sum(rate(traces_spanmetrics_calls_total{$__tags}[$__rate_interval]))",
                }
            ],
        }
        data["serviceMap"] = {"datasourceUid": prometheus}
    return data


def _merged(entry: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(entry)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if both else value
    return result


def _checked(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for entry in entries:
        for key in ("name", "type"):
            if not entry.get(key):
                raise GrafanaError(f"grafana_extra_datasources: each needs a {key}")
        if entry.get("uid") and not _UID.fullmatch(str(entry["uid"])):
            raise GrafanaError(
                f"grafana_extra_datasources: the uid of {entry['name']} must be up to {UID_LENGTH} letters, "
                "digits, _ and -"
            )
    for key in ("name", "uid"):
        values = [entry[key] for entry in entries if entry.get(key)]
        if twice := next((value for value in values if values.count(value) > 1), None):
            raise GrafanaError(
                f"two datasources have the {key} {twice}; change it in grafana_extra_datasources"
            )
    if sum(bool(entry.get("isDefault")) for entry in entries) > 1:
        raise GrafanaError("more than one datasource is the default; leave isDefault at one of them")
    return entries


def escaped(value: Any) -> Any:
    """Return a value whose texts Grafana takes literally: each ``$`` doubled."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: escaped(item) for key, item in value.items()}
    return [escaped(item) for item in value] if isinstance(value, (list, tuple)) else value


def datasource_file(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the provisioning file of the datasources holds.

    ``prune`` makes Grafana delete those that it had from this file and that are in it no more.
    """
    return {"apiVersion": 1, "prune": True, "datasources": escaped(list(entries))}


# --- Dashboards ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dashboard:
    """One dashboard, read and checked."""

    path: str
    """Below the folder of all dashboards, with ``/``."""
    uid: str
    title: str
    text: str
    origin: str
    """Where it comes from, for messages."""


def dashboard(path: str, content: str | Mapping[str, Any], origin: str) -> Dashboard:
    """Return a dashboard.

    :param content: JSON text, or what it stands for.
    :raises GrafanaError: it is not a dashboard that Grafana would take and keep under one address.
    """
    try:
        data = json.loads(content) if isinstance(content, str) else content
    except ValueError as error:
        raise GrafanaError(f"{origin} is not JSON: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("panels"), list):
        hint = "; export the dashboard's JSON model" if isinstance(data, dict) and "dashboard" in data else ""
        raise GrafanaError(f"{origin} is not a dashboard: it has no panels{hint}")
    for key in ("uid", "title"):
        if not isinstance(data.get(key), str) or not data[key].strip():
            raise GrafanaError(f"{origin} has no {key}; give it one, so that links to the dashboard last")
    if not _UID.fullmatch(data["uid"]):
        raise GrafanaError(f"{origin}: the uid must be up to {UID_LENGTH} letters, digits, _ and -")
    if "__inputs" in data:
        raise GrafanaError(
            f"{origin} was exported for sharing and still asks for its inputs (__inputs); export it without "
            "'Export for sharing externally', or use a variable of the type datasource"
        )
    text = content if isinstance(content, str) else json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    return Dashboard(path, data["uid"], data["title"], text, origin)


def checked_dashboards(found: Iterable[Dashboard]) -> list[Dashboard]:
    """Return the dashboards, sorted by path.

    :raises GrafanaError: two have one uid, or one title in one folder. Grafana then stops updating both.
    """
    by_uid: dict[str, Dashboard] = {}
    by_title: dict[tuple[str, str], Dashboard] = {}
    result = sorted(found, key=lambda one: one.path)
    for one in result:
        for known, what in (
            (by_uid.setdefault(one.uid, one), f"the uid {one.uid}"),
            (
                by_title.setdefault((str(PurePosixPath(one.path).parent), one.title), one),
                f"the title {one.title!r} in one folder",
            ),
        ):
            if known is not one:
                raise GrafanaError(f"{known.origin} and {one.origin} have {what}; change one of them")
    return result


def site_path(name: str) -> str:
    """Return where a dashboard of the site goes, from ``Name`` or ``Folder/Name``.

    :raises GrafanaError: the name cannot be one of a file.
    """
    parts = name.removesuffix(".json").split("/")
    if len(parts) > DEEPEST or not all(part and part.strip() == part and part[0] != "." for part in parts):
        raise GrafanaError(f"grafana_dashboards: {name!r} must be a name, or Folder/name")
    return "/".join([SITE_FOLDER, *parts]) + ".json"
