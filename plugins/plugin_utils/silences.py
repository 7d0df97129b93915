# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""What is to be silenced, from a person's words and the inventory, checked before anything is done."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager, split_host_pattern
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.fleet import Fleet, suggest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ansible.parsing.dataloader import DataLoader

NEVER_SILENCED = ("AlertReceiverNotificationsParked", "Watchdog")
"""The first says that people were not told of something, the second feeds a dead man's switch."""

Matcher = dict[str, Any]
"""A matcher as Alertmanager's API takes it."""

_UNITS = {"y": 31_536_000, "w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1, "ms": 0.001}
_DURATION = re.compile("".join(rf"(?:(\d+){unit})?" for unit in _UNITS))
_MATCHER = re.compile(r"\s*([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*(.*?)\s*", re.ASCII | re.DOTALL)
_OF_PATTERNS = "!&"
_REGEX_SIGNS = re.compile(r"[\\.+*?()|\[\]{}^$]")
_LAST_YEAR = 9999


class SilenceError(AnsibleError):  # type: ignore[misc] # ansible-core is not typed
    """What is asked for makes no sense; the message names the setting and the cure."""


def seconds(text: str) -> float:
    """Return the seconds of a Prometheus duration such as ``1h30m``.

    :raises SilenceError: it is not one, or is zero.
    """
    match = _DURATION.fullmatch(text)
    counts = match.groups() if match else ()
    total = sum(int(count or 0) * unit for count, unit in zip(counts, _UNITS.values(), strict=False))
    if total <= 0:
        raise SilenceError(f"duration: {text!r} is not a duration; write it as 30m, 2h or 1d")
    return total


def start(text: str) -> str:
    """Return a time as Alertmanager takes it.

    :raises SilenceError: it is not a time, or has no time zone.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None or time.year >= _LAST_YEAR:
        raise SilenceError(
            f"starts: {text!r} is not a time with a time zone; write it as 2030-01-31T22:00+01:00"
        )
    return time.isoformat()


def any_of(label: str, values: Iterable[str], *, equal: bool = True) -> Matcher:
    """Return a matcher for a label that has (or must not have) one of the values."""
    escaped = sorted({_REGEX_SIGNS.sub(r"\\\g<0>", value) for value in values})
    if len(escaped) == 1:
        return {"name": label, "value": next(iter(values)), "isRegex": False, "isEqual": equal}
    return {"name": label, "value": f"^({'|'.join(escaped)})$", "isRegex": True, "isEqual": equal}


def matcher(text: str) -> Matcher:
    """Return a matcher from Alertmanager's notation, the value in double quotes or bare.

    :raises SilenceError: it is not one.
    """
    match = _MATCHER.fullmatch(text)
    if not match or not match[3]:
        raise SilenceError(f"matchers: {text!r} is not a matcher; write it as job=node_exporter")
    name, operator, value = match.groups()
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1].replace(r"\"", '"').replace(r"\\", "\\")
    return {"name": name, "value": value, "isRegex": "~" in operator, "isEqual": operator[0] == "="}


def hosts_of(pattern: Any, groups: Mapping[str, Sequence[str]], loader: DataLoader) -> list[str]:
    """Return the hosts of the inventory that a pattern names, sorted.

    :param pattern: as on Ansible's command line, or a list of such.
    :param groups: Ansible's magic variable of that name.
    :raises SilenceError: a part of it names no host and no group, or nothing is left.
    """
    terms = [str(term) for term in pattern] if isinstance(pattern, list) else str(pattern)
    inventory = InventoryManager(loader, parse=False)
    for group, hosts in groups.items():
        inventory.add_group(group)
        for host in hosts:
            inventory.add_host(host, group=group)
    known = {*inventory.groups, *inventory.hosts}
    for part in split_host_pattern(terms):
        name = part.lstrip(_OF_PATTERNS)
        if name in known:
            continue
        try:
            found = inventory.get_hosts([name])
        except AnsibleError as error:
            raise SilenceError(f"hosts: {error}") from error
        if not found:
            raise SilenceError(f"hosts: the inventory has no host or group {name!r}{suggest(name, known)}")
    found = sorted(host.name for host in inventory.get_hosts(terms))
    if not found:
        raise SilenceError(f"hosts: no host is left of {pattern!r}; name one that is in the inventory")
    return found


def alert_names(files: Iterable[Any]) -> set[str]:
    """Return the alerts in the contents of Prometheus rule files."""
    return {
        str(rule["alert"])
        for content in files
        for group in (content or {}).get("groups") or ()
        for rule in group.get("rules") or ()
        if "alert" in rule
    }


def check_alerts(names: Iterable[str], known: set[str]) -> None:
    """Refuse alerts that must not be silenced, or that do not exist: that would be a false calm.

    :param known: the alerts of the fleet; empty if they are not known.
    :raises SilenceError: there is such an alert.
    """
    for name in names:
        if name in NEVER_SILENCED:
            raise SilenceError(f"alerts: {name} is never silenced; its runbook page says why")
        if known and name not in known:
            hint = suggest(name, known) or f"; for one of your own, use the matcher alertname={name}"
            raise SilenceError(f"alerts: this fleet has no alert {name!r}{hint}")


def matchers_of(hosts: list[str], alerts: list[str], extra: list[str]) -> list[Matcher]:
    """Return the matchers of a silence.

    :raises SilenceError: they would silence everything, or what must not be silenced.
    """
    own = [matcher(text) for text in extra]
    if not hosts and not alerts and not any(map(_restricts, own)):
        raise SilenceError(
            "nothing says what to silence, so everything would be; give hosts, alerts or matchers"
        )
    for item in own:
        if item["name"] == "alertname" and item["isEqual"] and item["value"] in NEVER_SILENCED:
            raise SilenceError(f"matchers: {item['value']} is never silenced; its runbook page says why")
    matchers = [any_of("host", hosts)] if hosts else []
    matchers.append(
        any_of("alertname", alerts) if alerts else any_of("alertname", NEVER_SILENCED, equal=False)
    )
    return [*matchers, *own]


def _restricts(item: Matcher) -> bool:
    """Tell whether a matcher asks for a label; one that also matches its absence does not."""
    if not item["isRegex"]:
        return bool(item["isEqual"])
    try:
        return bool(item["isEqual"]) is not bool(re.fullmatch(item["value"], ""))
    except re.error:  # Alertmanager, whose expressions are a little different, is the judge
        return bool(item["isEqual"])


def endpoints(fleet: Fleet, host: str) -> list[str]:
    """Return the URLs of the Alertmanagers as ``host`` reaches them, its own first.

    :raises FleetError: the inventory is wrong.
    """
    job = fleet.job("alertmanager")
    every = fleet.hosts(job.group)
    own = [fleet.endpoint(job, fleet.variables(host)).local_url] if host in every else []
    return [*own, *(endpoint.url for endpoint in fleet.endpoints("alertmanager") if endpoint.host != host)]
