#!/usr/bin/python
# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""The module firing_alerts: asks Prometheus what fires on a host, and waits for an alert to come or go."""

from __future__ import annotations

DOCUMENTATION = r"""
module: firing_alerts
short_description: See which alerts of a host fire, and wait for one to come or to go
description:
  - Asks the first Prometheus that answers which alerts with the label C(host) of one host fire, as the rules
    say now; whether people are told, and silences, do not matter.
  - Waits, if asked to, until an alert fires or no longer does.
attributes:
  check_mode:
    description: It only reads; it does not wait in check mode, in which nothing happens to wait for.
    support: full
options:
  urls:
    description: URLs of the Prometheus servers, as the host of the task reaches them.
    type: list
    elements: str
    required: true
  host:
    description: Name of the host in the inventory.
    type: str
    required: true
  alert:
    description: Name of the alert that is waited for. Prometheus must have such a rule.
    type: str
  state:
    description: What is waited for, V(firing) or V(gone); V(any) waits for nothing.
    type: str
    choices: [firing, gone, any]
    default: any
  timeout:
    description: Seconds to wait at most; it is a failure if it did not happen then.
    type: int
    default: 300
author: [The Fleetwatch authors]
"""

EXAMPLES = r"""
- name: Wait until the alert fires
  fleetwatch.monitoring.firing_alerts:
    urls: "{{ query('fleetwatch.monitoring.endpoints', 'prometheus') | map(attribute='url') }}"
    host: web1
    alert: HighErrorRate
    state: firing
  delegate_to: monitor1
"""

RETURN = r"""
firing:
  description: The alerts of the host that fire, by name.
  returned: when a Prometheus answered
  type: list
  elements: dict
  contains:
    alert: {description: Name of the alert., type: str}
    severity: {description: Its label C(severity)., type: str}
    labels: {description: All labels., type: dict}
seconds:
  description: How long it was waited.
  returned: when a Prometheus answered
  type: float
"""

import time  # noqa: E402 - Ansible's documentation blocks come first
from collections.abc import Callable, Sequence  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.fleetwatch.monitoring.plugins.module_utils.api import (  # noqa: E402
    ApiError,
    fetch_json,
)

Alert = dict[str, Any]

INTERVAL = 2.0
"""Seconds between two looks."""
AWAY = 30.0
"""Seconds for which Prometheus may be away while one waits."""


class NotMetError(Exception):
    """What was waited for did not happen, or cannot."""


def firing(urls: Sequence[str], host: str) -> list[Alert]:
    """Return the alerts of a host that fire.

    :raises ApiError: no Prometheus answers.
    """
    found = [
        {
            "alert": alert["labels"]["alertname"],
            "severity": alert["labels"].get("severity", ""),
            "labels": alert["labels"],
        }
        for alert in ask(urls, "/api/v1/alerts")["alerts"]
        if alert["state"] == "firing" and alert["labels"].get("host") == host
    ]
    return sorted(found, key=lambda alert: (alert["alert"], sorted(alert["labels"].items())))


def ask(urls: Sequence[str], path: str) -> Any:
    """Return the data that the first Prometheus answers.

    :raises ApiError: none does.
    """
    reasons = []
    for url in urls:
        try:
            return fetch_json(f"{url}{path}")["data"]
        except ApiError as error:
            reasons.append(str(error))
    raise ApiError(" ".join(["No Prometheus answers.", *reasons]))


def check_rule(urls: Sequence[str], alert: str) -> None:
    """See that there is a rule for an alert.

    :raises ApiError: no Prometheus answers.
    :raises NotMetError: there is none, so that the alert will never come.
    """
    groups = ask(urls, "/api/v1/rules?type=alert")["groups"]
    if alert not in {rule["name"] for group in groups for rule in group["rules"]}:
        raise NotMetError(
            f"Prometheus has no rule for {alert}, so it cannot fire: is a host in the group of the component "
            "that brings it, and did site.yml run?"
        )


def wait(
    look: Callable[[], list[Alert]], alert: str, state: str, timeout: float
) -> tuple[list[Alert], float]:
    """Wait until an alert fires or no longer does; returns the alerts that fire, and the seconds it took.

    :param look: returns what fires.
    :raises ApiError: Prometheus stays away.
    :raises NotMetError: it did not happen in time.
    """
    began = answered = time.monotonic()
    while True:
        now = time.monotonic()
        try:
            found = look()
            answered = now
        except ApiError:
            if now - answered > AWAY:
                raise
        else:
            names = {one["alert"] for one in found}
            if state == "any" or (alert in names) is (state == "firing"):
                return found, now - began
            if now - began >= timeout:
                what = "did not fire" if state == "firing" else "still fires after"
                others = f" Firing: {', '.join(sorted(names))}." if names else " No alert of the host fires."
                raise NotMetError(
                    f"{alert} {what} {'within ' if state == 'firing' else ''}{timeout:g} s.{others}"
                )
        time.sleep(INTERVAL)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "urls": {"type": "list", "elements": "str", "required": True},
            "host": {"type": "str", "required": True},
            "alert": {"type": "str"},
            "state": {"type": "str", "choices": ["firing", "gone", "any"], "default": "any"},
            "timeout": {"type": "int", "default": 300},
        },
        required_if=[("state", "firing", ("alert",)), ("state", "gone", ("alert",))],
        supports_check_mode=True,
    )
    params = module.params
    state = "any" if module.check_mode else params["state"]
    try:
        if params["alert"]:
            check_rule(params["urls"], params["alert"])
        found, seconds = wait(
            lambda: firing(params["urls"], params["host"]), params["alert"], state, params["timeout"]
        )
    except (ApiError, NotMetError) as error:
        module.fail_json(msg=str(error))
    except (KeyError, TypeError) as error:
        module.fail_json(msg=f"Prometheus' API does not answer as expected: {error!r}.")
    module.exit_json(changed=False, firing=found, seconds=round(seconds, 1))


if __name__ == "__main__":
    main()
