# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""Alert rules in which some hosts have thresholds of their own, without a rule of their own.

A rule file is rendered with the values that count for all hosts. When a host has other values, the file is
rendered with these as well, and every alert that came out differently is there once for each such result:
the first leaves the hosts with values of their own out, each further one is for some of them only. So all
that a rule makes of its variables follows: expression, duration, and the figures in its text.

Which hosts an alert is for is a series that a recording rule just before it makes, as the names of a thousand
hosts in the expression itself would be part of every notification. ``up`` gives the hosts: a target that is
down still has it. The rules keep name and labels of the alert, so routes, silences and inhibition see no
difference.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.rules import RulesError, render_rules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

HOSTS_SERIES = "host:alert_override:group"
"""Recorded series: the hosts with values of their own; labels ``alert``, ``set`` and ``host``."""
MAX_SETS = 200
"""How many different sets of values the hosts may have: each gives rules that Prometheus evaluates."""

_ABOUT_A_HOST = "$labels.host"
_META = re.compile(r"[\\.+*?()|\[\]{}^$]")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where there is one: many times as fast


class OverrideError(RulesError):
    """Hosts cannot have these values of their own."""

    def __init__(self, settings: Sequence[str], hosts: Sequence[str], what: str) -> None:
        """Take the names of the variables, the hosts that set them, and what is wrong with that."""
        super().__init__(f"{', '.join(settings)} of host {hosts[0]} {what}")
        self.settings = ", ".join(settings)
        self.hosts = hosts
        self.what = what


Rule = dict[str, Any]
Key = tuple[str, str, int]
"""Group, alert, and how many alerts of that name are before it."""


@dataclass(frozen=True)
class _Set:
    """Hosts with the same values."""

    own: Mapping[str, Any]
    """The values in which they differ from the other hosts."""
    hosts: list[str]


def render_with_overrides(
    path: str | Path, variables: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]
) -> str:
    """Return the text of the rule file at ``path``, with rules for hosts that have values of their own.

    :param variables: plain values, which count for all hosts.
    :param settings: host to the values that it sets; those not in ``variables`` or equal to them do nothing.
    :raises OverrideError: a host cannot have these values of its own.
    :raises RulesError: as for :func:`render_rules`.
    """
    text = render_rules(path, variables)
    sets = _sets(variables, settings)
    if not sets:
        return text
    if len(sets) > MAX_SETS:
        raise OverrideError(
            sorted({name for each in sets for name in each.own}),
            [host for each in sets for host in each.hosts],
            f"and others have {len(sets)} different sets of values, and each becomes rules of its own;"
            f" {MAX_SETS} are allowed, so give hosts that are alike the same values",
        )
    content = _load(text)
    general = _alerts(content)
    special: dict[Key, dict[str, tuple[Rule, list[str]]]] = {}
    for each in sets:
        own = _alerts(_load(render_rules(path, {**variables, **each.own})))
        if own.keys() != general.keys():
            what = f"must not change which alerts there are: make {path} say so for all hosts or for none"
            raise OverrideError(list(each.own), each.hosts, what)
        for key, rule in own.items():
            if rule == general[key]:
                continue
            if _ABOUT_A_HOST not in str(rule.get("annotations")):
                guilty = [
                    name
                    for name, value in each.own.items()
                    if _alerts(_load(render_rules(path, {**variables, name: value}))).get(key) != general[key]
                ]
                what = (
                    f"cannot have an effect, because the alert {key[1]} is not about one host; set it for the"
                    " hosts of the group prometheus"
                )
                raise OverrideError(guilty or list(each.own), each.hosts, what)
            _, hosts = special.setdefault(key, {}).setdefault(json.dumps(rule, sort_keys=True), (rule, []))
            hosts.extend(each.hosts)
    if not special:
        return text
    for group, rules in _with_keys(content):
        group["rules"] = [
            new
            for key, rule in rules
            for new in (_split(key, rule, list(special[key].values())) if key in special else [rule])
        ]
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110))


def _sets(variables: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]) -> list[_Set]:
    """Gather the hosts by the values in which they differ from the others, in the order of the hosts."""
    sets: dict[tuple[tuple[str, str], ...], _Set] = {}
    for host in sorted(settings):
        own = {
            name: value
            for name, value in sorted(settings[host].items())
            if name in variables and str(value) != str(variables[name])
        }
        if own:
            key = tuple((name, str(value)) for name, value in own.items())
            sets.setdefault(key, _Set(own, [])).hosts.append(str(host))
    return list(sets.values())


def _with_keys(content: Any) -> list[tuple[dict[str, Any], list[tuple[Key | None, Rule]]]]:
    """Return each group with its rules; an alert has a key, a recording rule None."""
    result = []
    for group in (content or {}).get("groups") or ():
        seen: Counter[str] = Counter()
        rules: list[tuple[Key | None, Rule]] = []
        for rule in group.get("rules") or ():
            name = rule.get("alert")
            rules.append(((str(group["name"]), str(name), seen[name]) if name else None, rule))
            seen[name] += 1
        result.append((group, rules))
    return result


def _alerts(content: Any) -> dict[Key, Rule]:
    return {key: rule for _, rules in _with_keys(content) for key, rule in rules if key}


def _split(key: Key, rule: Rule, special: Sequence[tuple[Rule, list[str]]]) -> list[Rule]:
    """Return the rules that take the place of ``rule``: one for most hosts, and those for some of them."""
    _, name, before = key
    alert = f"{name} {before + 1}" if before else name
    selector = f"{HOSTS_SERIES}{{alert={_quoted(alert)}"
    recordings, alerts = [], [_limited(rule, f"unless on (host) {selector}}}")]
    for number, (own, hosts) in enumerate(special, start=1):
        regex = "|".join(_META.sub(r"\\\g<0>", host) for host in sorted(hosts))
        recordings.append(
            {
                "record": HOSTS_SERIES,
                "expr": f"group by (host) (up{{host=~{_quoted(regex)}}})",
                "labels": {"alert": alert, "set": str(number)},
            }
        )
        alerts.append(_limited(own, f'and on (host) {selector}, set="{number}"}}'))
    return [*recordings, *alerts]


def _limited(rule: Rule, condition: str) -> Rule:
    expression = str(rule["expr"]).strip()
    end = "\n)" if "#" in expression else ")"  # it may end with a comment
    return {**rule, "expr": f"({expression}{end} {condition}"}


def _load(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - it is a safe loader


def _quoted(text: str) -> str:
    """Return a string as PromQL writes it."""
    return json.dumps(text, ensure_ascii=False)
