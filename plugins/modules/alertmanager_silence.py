#!/usr/bin/python
# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""The module alertmanager_silence: makes, ends and lists silences through Alertmanager's API.

What is to be silenced comes from the action plugin of the same name, which knows the inventory.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: alertmanager_silence
short_description: Silence alerts of hosts for a while
description:
  - Makes a silence in Alertmanager for hosts of the inventory, for alerts, or for both; ends it; or lists
    silences.
  - A silence of Fleetwatch for the same alerts with the same comment is kept, or made longer, instead of
    making a second one. Silences that people made by hand are never touched, unless O(id) names one.
  - One Alertmanager of a cluster tells the others. While some of them are missing, each one that answers is
    told.
  - Watchdog and AlertReceiverNotificationsParked are left out of every silence. The first feeds a dead man's
    switch; the second says that people were not told of something.
  - Everything that is asked for is checked before Alertmanager is.
attributes:
  check_mode:
    description: Silences are only read.
    support: full
  diff_mode:
    description: Shows the silence.
    support: full
options:
  state:
    description:
      - V(present) makes the silence or keeps it, V(absent) ends it, V(list) only tells which there are.
    type: str
    choices: [present, absent, list]
    default: present
  hosts:
    description:
      - Hosts or groups of the inventory whose alerts are silenced, as an Ansible pattern such as
        V(webservers:!web3). Hosts outside of C(--limit) count too. An alert has its host in the label
        C(host).
    type: raw
  alerts:
    description: Names of the alerts to silence. Without them it is all alerts that the rest allows.
    type: list
    elements: str
  matchers:
    description:
      - Further conditions on labels, as in Alertmanager, such as V(job=node_exporter) or
        V(channel=~mail|sms).
    type: list
    elements: str
  duration:
    description: How long the silence lasts, as a Prometheus duration such as V(30m), V(2h) or V(1d).
    type: str
    default: 2h
  starts:
    description:
      - When it begins, with the time zone, such as V(2030-01-31T22:00+01:00). It begins at once without it.
    type: str
  comment:
    description:
      - Why the alerts are silenced; required to make a silence. A silence with another comment is another
        one, and V(absent) with a comment ends only silences with this one.
    type: str
  created_by:
    description: Who silences them. The default is the user who runs Ansible. " (ansible)" is added to it.
    type: str
  id:
    description: Ends the silence with this id, whoever made it; only for V(absent).
    type: str
  required:
    description: Whether it is a failure that no Alertmanager answers.
    type: bool
    default: true
  urls:
    description:
      - URLs of the Alertmanagers, as the host of the task reaches them. The default are those of the
        inventory.
    type: list
    elements: str
  roles_path:
    description: Folders of roles. The default are the roles of this collection and those beside the playbook.
    type: list
    elements: path
notes:
  - Delegate it to a host of Alertmanager, which surely reaches it. It needs no C(become).
author: [The Fleetwatch authors]
"""

EXAMPLES = r"""
- name: Silence a host while its disk is replaced
  fleetwatch.monitoring.alertmanager_silence:
    hosts: web1
    duration: 2h
    comment: new disk
  delegate_to: monitor1
  run_once: true

- name: Silence one alert of a group
  fleetwatch.monitoring.alertmanager_silence:
    hosts: databases
    alerts: [HighLoadAverage]
    duration: 1d
    comment: the index is rebuilt
  delegate_to: monitor1
  run_once: true

- name: End it
  fleetwatch.monitoring.alertmanager_silence:
    state: absent
    hosts: web1
  delegate_to: monitor1
  run_once: true
"""

RETURN = r"""
answered:
  description: Whether an Alertmanager answered; without O(required) it may be false.
  returned: always
  type: bool
msg:
  description: What was done, in one line.
  returned: always
  type: str
  sample: Silenced until 2030-01-31 23:00 UTC.
touched:
  description: The silences that were made, kept, made longer or ended.
  returned: always
  type: list
  elements: dict
silences:
  description: Every silence that is active or pending now, the first to end first.
  returned: when an Alertmanager answered
  type: list
  elements: dict
  contains:
    id: {description: Its id in Alertmanager., type: str}
    state: {description: V(active) or V(pending)., type: str}
    starts: {description: When it began or begins., type: str}
    ends: {description: When it ends., type: str}
    matchers: {description: What it silences., type: str, sample: 'host="web1"'}
    comment: {description: Why., type: str}
    created_by: {description: Who made it., type: str}
lines:
  description: RV(silences) for people to read.
  returned: when an Alertmanager answered
  type: list
  elements: str
"""

import json  # noqa: E402 - Ansible's documentation blocks come first
import time  # noqa: E402
from collections.abc import Callable, Mapping  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from datetime import UTC, datetime, timedelta  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.fleetwatch.monitoring.plugins.module_utils.api import (  # noqa: E402
    ApiError,
    fetch,
    fetch_json,
)

Silence = dict[str, Any]
"""A silence as Alertmanager's API shows it."""
Matcher = tuple[str, str, bool, bool]

BY_FLEETWATCH = " (ansible)"
"""Ends the author of every silence that this module makes."""
LIVING = ("active", "pending")
GOSSIP_SECONDS = 5.0
"""How long a change may take from one member of a cluster to the next."""
SAME_START = timedelta(seconds=1)
MAX_SLACK = timedelta(minutes=1)
"""A silence that ends so little too early is not made longer: a second run changes nothing."""
HIDDEN_AFTER = 100
CLIENT_ERRORS = range(400, 500)


def slack(duration: timedelta) -> timedelta:
    """Return by how much a silence may be shorter than asked for."""
    return min(MAX_SLACK, duration / 10)


class RefusedError(Exception):
    """What was asked for cannot be done, through no fault of Alertmanager."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for."""

    state: str
    matchers: frozenset[Matcher]
    """Name, value, whether that is a regular expression, and whether it has to match."""
    duration: timedelta
    starts: datetime | None
    comment: str
    created_by: str
    id: str

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Wanted:
        """Read the module's parameters."""
        return cls(
            state=params["state"],
            matchers=frozenset(map(matcher_of, params["matchers"])),
            duration=timedelta(seconds=params["seconds"]),
            starts=moment(params["starts"]).astimezone(UTC) if params["starts"] else None,
            comment=params["comment"] or "",
            created_by=params["created_by"] or "",
            id=params["id"] or "",
        )

    def is_meant(self, silence: Silence) -> bool:
        """Tell whether a silence is the one that was asked for, apart from its times."""
        if self.id:
            return bool(silence["id"] == self.id)
        return (
            silence["createdBy"].endswith(BY_FLEETWATCH)
            and frozenset(map(matcher_of, silence["matchers"])) == self.matchers
            and self.comment in {"", silence["comment"]}
        )


@dataclass(slots=True)
class Done:
    """What was done to the silences of one Alertmanager."""

    verb: str = ""
    before: Silence | None = None
    after: Silence | None = None


def matcher_of(matcher: Mapping[str, Any]) -> Matcher:
    """Return a matcher of the API in a form that can be compared."""
    return matcher["name"], matcher["value"], matcher["isRegex"], matcher.get("isEqual", True)


def moment(text: str) -> datetime:
    """Return a time of the API."""
    return datetime.fromisoformat(text)


def clock(time: datetime) -> str:
    """Return a time for people to read."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def matcher_text(matcher: Matcher) -> str:
    """Return a matcher in Alertmanager's notation."""
    name, value, is_regex, is_equal = matcher
    operator = {(False, True): "=", (False, False): "!=", (True, True): "=~", (True, False): "!~"}
    return f"{name}{operator[is_regex, is_equal]}{json.dumps(value, ensure_ascii=False)}"


def shown(silence: Silence) -> dict[str, str]:
    """Return a silence as the module returns it."""
    return {
        "id": silence["id"],
        "state": silence["status"]["state"],
        "starts": clock(moment(silence["startsAt"])),
        "ends": clock(moment(silence["endsAt"])),
        "matchers": ", ".join(matcher_text(matcher_of(matcher)) for matcher in silence["matchers"]),
        "comment": silence["comment"],
        "created_by": silence["createdBy"],
    }


def line(silence: Mapping[str, str]) -> str:
    """Return one line about a silence, as the module returns it."""
    matchers = silence["matchers"]
    if len(matchers) > HIDDEN_AFTER:
        matchers = matchers[:HIDDEN_AFTER] + "…"
    when = "until" if silence["state"] == "active" else f"from {silence['starts']} to"
    who = f"{silence['created_by']}: {silence['comment']}"
    return f"{when} {silence['ends']}: {matchers} - {who} [{silence['id']}]"


class Alertmanager:
    """One Alertmanager, through its API."""

    def __init__(self, url: str, *, change: bool = True) -> None:
        """Talk to the one at ``url``; ``change`` is false in check mode."""
        self.url = url.rstrip("/")
        self._change = change

    def silences(self) -> list[Silence]:
        """Return the silences that are active or pending.

        :raises ApiError: it does not answer.
        """
        found = fetch_json(f"{self.url}/api/v2/silences")
        return sorted((s for s in found if s["status"]["state"] in LIVING), key=lambda s: moment(s["endsAt"]))

    def peers(self) -> int:
        """Return how many members of its cluster it sees, with itself; 0 without a cluster.

        :raises ApiError: it does not answer.
        """
        return len(fetch_json(f"{self.url}/api/v2/status")["cluster"].get("peers") or ())

    def post(self, silence: Silence) -> Silence:
        """Make a silence, or change the one with its id, and return it.

        :raises ApiError: it does not answer.
        """
        if not self._change:
            return {"id": "", **silence}
        keys = ("id", "matchers", "startsAt", "endsAt", "createdBy", "comment")
        answer = fetch_json(
            f"{self.url}/api/v2/silences", body={key: silence[key] for key in keys if key in silence}
        )
        return {**silence, "id": answer["silenceID"]}

    def expire(self, silence: Silence) -> None:
        """End a silence.

        :raises ApiError: it does not answer.
        """
        if self._change:
            fetch(f"{self.url}/api/v2/silence/{silence['id']}", method="DELETE")


def make(alertmanager: Alertmanager, wanted: Wanted, now: datetime) -> list[Done]:
    """Keep the silence, make it longer, or make it.

    :raises ApiError: Alertmanager does not answer.
    :raises RefusedError: it would be over already.
    """
    ends = (wanted.starts or now) + wanted.duration
    if ends <= now:
        raise RefusedError(f"starts and duration: the silence would have ended at {clock(ends)}")
    found = [silence for silence in alertmanager.silences() if wanted.is_meant(silence)]
    if wanted.starts is None:
        found = [silence for silence in found if silence["status"]["state"] == "active"]
        enough = ends - slack(wanted.duration)
        last = [silence for silence in found[-1:] if moment(silence["endsAt"]) >= enough]
    else:
        starts = wanted.starts
        found = [silence for silence in found if abs(moment(silence["startsAt"]) - starts) < SAME_START]
        last = [silence for silence in found[-1:] if abs(moment(silence["endsAt"]) - ends) < SAME_START]
    if last:
        return [Done("kept", last[0], last[0])]
    if found:
        before = found[-1]
        return [Done("changed", before, alertmanager.post({**before, "endsAt": ends.isoformat()}))]
    new = {
        "matchers": [
            {"name": name, "value": value, "isRegex": is_regex, "isEqual": is_equal}
            for name, value, is_regex, is_equal in sorted(wanted.matchers)
        ],
        "startsAt": max(wanted.starts or now, now).isoformat(),
        "endsAt": ends.isoformat(),
        "createdBy": wanted.created_by + BY_FLEETWATCH,
        "comment": wanted.comment,
        "status": {"state": "pending" if wanted.starts and wanted.starts > now else "active"},
    }
    return [Done("made", None, alertmanager.post(new))]


def end(alertmanager: Alertmanager, wanted: Wanted, _: datetime) -> list[Done]:
    """End the silences that are meant.

    :raises ApiError: Alertmanager does not answer.
    """
    done = []
    for silence in alertmanager.silences():
        if wanted.is_meant(silence):
            alertmanager.expire(silence)
            done.append(Done("ended", silence, None))
    return done


def look(_: Alertmanager, __: Wanted, ___: datetime) -> list[Done]:
    """Do nothing: the list is made after everything else."""
    return []


ACTIONS: dict[str, Callable[[Alertmanager, Wanted, datetime], list[Done]]] = {
    "present": make,
    "absent": end,
    "list": look,
}


def wait_for_gossip(alertmanager: Alertmanager, wanted: Wanted) -> None:
    """Wait until another member has told of what was done, if it can.

    :raises ApiError: Alertmanager does not answer.
    """
    deadline = time.monotonic() + GOSSIP_SECONDS
    while time.monotonic() < deadline:
        known = any(wanted.is_meant(silence) for silence in alertmanager.silences())
        if known is (wanted.state == "present"):
            return
        time.sleep(0.1)


def run(urls: list[str], wanted: Wanted, *, change: bool) -> dict[str, Any]:
    """Do what is wanted on the first Alertmanager that answers, and on the others if it cannot tell them.

    :raises RefusedError: it cannot be done.
    """
    done: list[Done] = []
    silences: list[Silence] = []
    missing: list[str] = []
    answered = False
    for url in urls:
        alertmanager = Alertmanager(url, change=change)
        try:
            peers = alertmanager.peers()
            if answered and peers > 1 and change:
                wait_for_gossip(alertmanager, wanted)
            done += [
                step
                for step in ACTIONS[wanted.state](alertmanager, wanted, datetime.now(UTC))
                if not (answered and step.verb == "kept")
            ]
            if not answered:
                silences = alertmanager.silences()
            answered = True
        except ApiError as error:
            if error.code in CLIENT_ERRORS and "/silence" in str(error):
                raise RefusedError(f"Alertmanager refuses it. {error}") from error
            missing.append(str(error))
            continue
        if wanted.state == "list" or peers >= len(urls):
            break  # it sees all members, and so tells them
    return {
        "answered": answered,
        "changed": any(step.verb not in {"kept", ""} for step in done),
        "msg": message(wanted, done, len(silences))
        if answered
        else f"No Alertmanager answers. {' '.join(missing)}",
        "touched": [shown(step.after or step.before or {}) for step in done],
        "diff": {
            "before": "".join(line(shown(step.before)) + "\n" for step in done if step.before),
            "after": "".join(line(shown(step.after)) + "\n" for step in done if step.after),
        },
        "silences": [shown(silence) for silence in silences],
        "lines": [line(shown(silence)) for silence in silences],
        "warnings": [f"{words} It was not told." for words in missing if answered and wanted.state != "list"],
    }


def message(wanted: Wanted, done: list[Done], living: int) -> str:
    """Return one line that says what was done; ``living``: how many silences there are now."""
    if wanted.state == "list":
        return "There is 1 silence." if living == 1 else f"There are {living or 'no'} silences."
    if not done:
        what = f"No silence has the id {wanted.id}" if wanted.id else "Fleetwatch has no such silence"
        return f"{what}; there is nothing to end."
    silence = shown(done[0].after or done[0].before or {})
    if done[0].verb == "ended":
        ids = ", ".join(step.before["id"] for step in done if step.before)
        return f"Ended the silence {ids}."
    verb = {"kept": "Already silenced", "changed": "Silence changed: it lasts", "made": "Silenced"}[
        done[0].verb
    ]
    begins = f" from {silence['starts']}" if wanted.starts else ""
    return f"{verb}{begins} until {silence['ends']}."


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent", "list"], "default": "present"},
            "matchers": {"type": "list", "elements": "dict", "default": []},
            "seconds": {"type": "float", "default": 0},
            "starts": {"type": "str"},
            "comment": {"type": "str"},
            "created_by": {"type": "str"},
            "id": {"type": "str"},
            "urls": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module.params["urls"], Wanted.of(module.params), change=not module.check_mode)
    except RefusedError as error:
        module.fail_json(msg=str(error), answered=True)
    except (KeyError, TypeError, ValueError) as error:
        module.fail_json(msg=f"Alertmanager's API does not answer as expected: {error!r}.", answered=True)
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
