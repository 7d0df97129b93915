#!/usr/bin/python
# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""The module verify_host: looks at everything that one host does for the monitoring, in one go.

What to look at comes from the action plugin of the same name, which knows the inventory.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: verify_host
short_description: Check what a host does for the monitoring
description:
  - Checks that the units of the host's components run and that their endpoints are ready.
  - On a host of Prometheus also that it scrapes exactly the targets which the inventory gives, that these are
    up, that the rules are loaded and healthy, and that it reaches every Alertmanager.
  - On a host of Alertmanager also that the cluster is complete, that the alerts of Prometheus arrive, and
    that a test alert reaches every receiver.
  - On a host of the alert receiver also, if O(channels) asks for it, that every channel takes a test message.
  - The test alert is looked for as the first user of C(alert_receiver_users) with the role C(read) or C(act).
  - Never fails, not for a host that cannot be reached either. M(fleetwatch.monitoring.verify_report) judges.
  - What belongs to a component is read from the file C(monitoring/verify.yml) of its role, a list with one
    entry for each unit. An entry has the keys C(unit), of a job with instances the template unit, such as
    V(worker@.service); C(job), the scrape job that gives the port, left out if the unit serves no HTTP;
    C(ready), the path that answers 200 (the default is the path of the metrics); and C(api), V(prometheus),
    V(alertmanager) or V(alert_receiver), for the further checks of these.
attributes:
  check_mode:
    description: It only reads, but for the test alert, which is not sent in check mode.
    support: full
options:
  channels:
    description:
      - Whether a test message is sent through every channel of an alert receiver. It reaches people, and
        needs C(become). None is sent in check mode.
    type: bool
    default: false
  timeout:
    description:
      - Seconds that a test alert may take to a receiver, and that Prometheus may take for the next scrape of
        a target that is down and for the first evaluation of a rule.
    type: int
    default: 30
  roles_path:
    description: Folders of roles. The default are the roles of this collection and those beside the playbook.
    type: list
    elements: path
author: [The Fleetwatch authors]
"""

EXAMPLES = r"""
- name: Look at each host
  fleetwatch.monitoring.verify_host:
  register: verify_result
"""

RETURN = r"""
rows:
  description: What was found, one item for each check.
  returned: always
  type: list
  elements: dict
  sample:
    - {component: prometheus, check: prometheus.service, state: ok, detail: ""}
offset:
  description: The least and the most seconds that the host's clock can be ahead of the controller's.
  returned: when the host was reached
  type: list
  elements: float
"""

import json  # noqa: E402 - Ansible's documentation blocks come first
import time  # noqa: E402
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402
from datetime import UTC, datetime, timedelta  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.fleetwatch.monitoring.plugins.module_utils.api import (  # noqa: E402
    HTTP_TIMEOUT,
    ApiError,
    fetch,
    fetch_json,
)

Row = dict[str, str]

OK = "ok"
FAILED = "FAILED"
SKIPPED = "skipped"
NAMES_SHOWN = 5
CRASH_LOOP_RESTARTS = 2
CRASH_LOOP_UPTIME = 120
"""A unit that systemd restarted so often, and that has run for less than so many seconds, crash-loops."""
PEER_TIMEOUT = 15
"""Seconds by which each further Alertmanager of a cluster waits longer before it notifies."""
CHANGED_TARGETS = 10
"""Seconds until Prometheus has noticed a changed file of targets."""
WATCHDOG_DELAY = 90
"""Seconds after which a new Alertmanager has heard of every alert: Prometheus repeats them each minute."""
UNIT_PROPERTIES = "Id,LoadState,ActiveState,SubState,UnitFileState,NRestarts,ActiveEnterTimestampMonotonic"
DEPLOY = "Run site.yml."
NO_READER = "Nobody may look whether it arrives. Add a user with the role read to alert_receiver_users."
CHANNELS_TIMEOUT = 300
"""Seconds that the test of all channels may take."""


def row(component: str, check: str, state: str, detail: str = "") -> Row:
    """Return one line of the table."""
    return {"component": component, "check": check, "state": state, "detail": detail}


def verdict(component: str, check: str, problems: Iterable[str], detail: str = "") -> Row:
    """Return a line that failed if there are problems, else one with ``detail``."""
    text = " ".join(problem for problem in problems if problem)
    return row(component, check, FAILED if text else OK, text or detail)


def some(names: Iterable[str]) -> str:
    """Return the first few names, and how many more there are."""
    listed = sorted(names)
    more = f" and {len(listed) - NAMES_SHOWN} more" if len(listed) > NAMES_SHOWN else ""
    return ", ".join(listed[:NAMES_SHOWN]) + more


# Units and endpoints


def unit_rows(units: list[dict[str, str]], show: Callable[[list[str]], str], uptime: float) -> list[Row]:
    """Return a line for each unit.

    :param units: component and name of each unit.
    :param show: returns what ``systemctl show`` prints about units.
    :param uptime: seconds since the host was started, as of ``time.monotonic``.
    """
    blocks = show([unit["unit"] for unit in units]).strip().split("\n\n")
    states = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in blocks]
    by_name = {state.get("Id", ""): state for state in states}
    return [
        verdict(unit["component"], unit["unit"], [unit_problem(by_name.get(unit["unit"], {}), uptime)])
        for unit in units
    ]


def unit_problem(state: dict[str, str], uptime: float) -> str:
    """Return what is wrong with a unit and the cure, or an empty string.

    :param state: the unit's properties.
    :param uptime: seconds since the host was started, as of ``time.monotonic``.
    """
    unit = state.get("Id", "the unit")
    restarts = int(state.get("NRestarts") or 0)
    running = uptime - int(state.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
    if not state:
        return "systemd does not answer."
    if state["LoadState"] in {"not-found", "masked"}:
        return f"The unit is {'masked' if state['LoadState'] == 'masked' else 'not installed'}. {DEPLOY}"
    if state["ActiveState"] not in {"active", "reloading"}:
        after = f" after {restarts} restarts" if restarts else ""
        return f"It is {state['ActiveState']} ({state['SubState']}){after}. See `journalctl -u {unit}`."
    if restarts >= CRASH_LOOP_RESTARTS and running < CRASH_LOOP_UPTIME:
        last = f"{restarts} restarts, the last {running:.0f} s ago"
        return f"It keeps crashing: {last}. See `journalctl -u {unit}`."
    if state["UnitFileState"] == "disabled":
        return f"It runs, but would not start with the host. {DEPLOY}"
    return ""


def ready_problem(url: str) -> str:
    """Return why a URL does not report that its service is ready, or an empty string."""
    try:
        fetch(url)
    except ApiError as error:
        return str(error)
    return ""


# Prometheus


def prometheus_rows(plan: dict[str, Any], timeout: float) -> Iterator[Row]:
    """Yield the lines about one Prometheus.

    :param plan: its ``url``; ``targets``: job -> pairs of address and host; ``own_jobs``: the site's own
        jobs; ``rules``: file -> group -> rules; ``alertmanagers``: host -> URL.
    :param timeout: seconds to wait for what is not settled yet.
    :raises ApiError: Prometheus does not answer.
    """
    for job, problems, detail in target_findings(
        plan["url"], plan["targets"], set(plan["own_jobs"]), timeout
    ):
        yield verdict("prometheus", f"targets of {job}", problems, detail)
    yield rules_row(plan["url"], plan["rules"], timeout)
    yield alertmanagers_row(plan["url"], plan["alertmanagers"])


def target_findings(
    url: str, expected: Mapping[str, Sequence[Sequence[str]]], own_jobs: set[str], timeout: float
) -> list[tuple[str, list[str], str]]:
    """Return for each job its problems, and how many targets are up.

    A target that is down gets another chance, because a service that was just started is down until the next
    scrape; and Prometheus takes some seconds to notice changed targets.
    """
    began, deadline = time.time(), time.monotonic() + timeout
    while True:
        targets = fetch_json(f"{url}/api/v1/targets", {"state": "active"})["data"]["activeTargets"]
        findings = judge_targets(targets, expected, own_jobs)
        # Who is not up by a scrape that was made since is really down; nothing is gained by waiting.
        waiting = [t for t in targets if t["health"] != "up" and timestamp(t["lastScrape"]) < began]
        gone = any(
            problem.startswith(("Missing", "Extra")) for _, problems, _ in findings for problem in problems
        )
        if not (waiting or (gone and time.time() - began < CHANGED_TARGETS)) or time.monotonic() > deadline:
            return findings
        time.sleep(1)


def judge_targets(
    targets: list[dict[str, Any]], expected: Mapping[str, Sequence[Sequence[str]]], own_jobs: set[str]
) -> list[tuple[str, list[str], str]]:
    """Compare targets, as Prometheus' API shows them, with the expected ones; see ``target_findings``."""
    found: dict[str, dict[tuple[str, str], dict[str, Any]]] = {job: {} for job in expected}
    for target in targets:
        before_relabelling = target["discoveredLabels"]
        address = before_relabelling["__address__"]
        if "prober" in before_relabelling:  # one address for all that it probes
            address += f" (probe {before_relabelling['name']})"
        key = address, before_relabelling.get("host", "")
        found.setdefault(target["scrapePool"], {})[key] = target
    findings = []
    for job, actual in sorted(found.items()):
        wanted = actual.keys() if job in own_jobs else {(*pair,) for pair in expected.get(job, ())}
        missing = [_target_name(*key) for key in wanted - actual.keys()]
        extra = [_target_name(*key) for key in actual.keys() - wanted]
        down = [
            f"{_target_name(*key)} {_reason(target)}"
            for key, target in actual.items()
            if key in wanted and target["health"] != "up"
        ]
        problems = [
            f"Missing in Prometheus: {some(missing)}. {DEPLOY}" if missing else "",
            f"Extra, not in the inventory: {some(extra)}. {DEPLOY}" if extra else "",
            f"Down: {some(down)}. Start the service, or let Prometheus through to it." if down else "",
        ]
        up = len(wanted & actual.keys()) - len(down)
        findings.append((job, [problem for problem in problems if problem], f"{up} of {len(wanted)} up"))
    return findings


def _target_name(address: str, host: str) -> str:
    return f"{host} at {address}" if host else address


def _reason(target: Mapping[str, Any]) -> str:
    if target["health"] != "down":
        return "(not scraped yet)"
    # Get "http://node1:9100/metrics": dial tcp 10.0.0.5:9100: connect: connection refused
    reason = target["lastError"].rpartition('": ')[2]
    return f"({reason})"


def timestamp(text: str) -> float:
    """Return a time of Prometheus' API in seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


def rules_row(url: str, expected: Mapping[str, Mapping[str, list[str]]], timeout: float) -> Row:
    """Return the line about the rules; one that was not evaluated yet gets time for it."""
    deadline = time.monotonic() + timeout
    while True:
        groups = fetch_json(f"{url}/api/v1/rules")["data"]["groups"]
        waiting = any(rule["health"] == "unknown" for group in groups for rule in group["rules"])
        if not waiting or time.monotonic() > deadline:
            return verdict("prometheus", "rules", *judge_rules(groups, expected))
        time.sleep(1)


def judge_rules(
    groups: list[dict[str, Any]], expected: Mapping[str, Mapping[str, list[str]]]
) -> tuple[list[str], str]:
    """Compare rule groups, as Prometheus' API shows them, with the expected ones.

    :return: the problems, and how much is loaded.
    """
    loaded = {
        (Path(group["file"]).name, group["name"]): [rule["name"] for rule in group["rules"]]
        for group in groups
    }
    wanted = {(file, name): rules for file, by_name in expected.items() for name, rules in by_name.items()}
    missing = [f"{file}: {group}" for file, group in wanted.keys() - loaded.keys()]
    extra = [f"{file}: {group}" for file, group in loaded.keys() - wanted.keys()]
    changed = [
        f"{file}: {group}"
        for file, group in wanted.keys() & loaded.keys()
        if wanted[file, group] != loaded[file, group]
    ]
    unhealthy = [
        f"{rule['name']} ({rule.get('lastError') or 'not evaluated yet'})"
        for group in groups
        for rule in group["rules"]
        if rule["health"] != "ok" or rule.get("lastError")
    ]
    problems = [
        f"Not loaded: {some(missing)}. {DEPLOY}" if missing else "",
        f"Loaded, but not expected: {some(extra)}. {DEPLOY}" if extra else "",
        f"Loaded with other rules: {some(changed)}. {DEPLOY}" if changed else "",
        f"Cannot be evaluated: {some(unhealthy)}. Mend the expression." if unhealthy else "",
    ]
    return problems, f"{sum(map(len, loaded.values()))} rules in {len(loaded)} groups"


def alertmanagers_row(url: str, expected: Mapping[str, str]) -> Row:
    """Return the line about Prometheus' connections to the Alertmanagers."""
    check = "alertmanagers"
    active = fetch_json(f"{url}/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
    found = {alertmanager["url"] for alertmanager in active}
    wanted = {f"{base}/api/v2/alerts": host for host, base in expected.items()}
    if not wanted and not found:
        return row("prometheus", check, SKIPPED, "No host is in the group alertmanager.")
    missing = [wanted[url] for url in wanted.keys() - found]
    problems = [
        f"Prometheus does not use: {some(missing)}. {DEPLOY}" if missing else "",
        f"Prometheus also uses, from outside of the inventory: {some(found - wanted.keys())}. {DEPLOY}"
        if found - wanted.keys()
        else "",
        *(ready_problem(f"{base}/-/ready") for base in expected.values()),
    ]
    return verdict("prometheus", check, problems, f"{some(expected)} connected")


# Alertmanager


def alertmanager_rows(
    plan: dict[str, Any], timeout: float, tokens: Mapping[str, str], *, send: bool
) -> Iterator[Row]:
    """Yield the lines about one Alertmanager.

    :param plan: its ``url``; ``members``: how many Alertmanagers there are; ``receivers``: host -> URL;
        ``watchdog``: whether a Prometheus sends Watchdog; ``verify_id``: names the test alert.
    :param timeout: seconds that the test alert may take.
    :param tokens: host of a receiver -> token of a user there who may read, empty if that needs none; no
        entry if there is no such user.
    :param send: whether a test alert is sent.
    :raises ApiError: Alertmanager does not answer.
    """
    url, members = plan["url"], plan["members"]
    readable = {host: (where, tokens[host]) for host, where in plan["receivers"].items() if host in tokens}
    if members > 1:
        yield cluster_row(fetch_json(f"{url}/api/v2/status")["cluster"], members)
    if not plan["receivers"]:
        yield row("alertmanager", "test alert", SKIPPED, "No host is in the group alert_receiver.")
    elif not send:
        yield row("alertmanager", "test alert", SKIPPED, "Not sent in check mode.")
    else:
        limit = timeout + PEER_TIMEOUT * (members - 1)
        if readable:
            yield from alert_rows(url, readable, plan["verify_id"], limit)
        for host in plan["receivers"].keys() - readable.keys():
            yield row("alertmanager", f"test alert to {host}", FAILED, NO_READER)
    if plan["watchdog"]:
        yield watchdog_row(url)
        for host, receiver in readable.items():
            yield heartbeat_row(url, host, receiver)


def cluster_row(cluster: Mapping[str, Any], members: int) -> Row:
    """Return the line about the cluster, from the part ``cluster`` of Alertmanager's status."""
    found = len(cluster.get("peers") or ())
    problems = [
        f"It sees {found} of {members} members (state: {cluster['status']}).",
        DEPLOY
        if cluster["status"] == "disabled"
        else "Check that the others run and that the cluster port is open between them, for TCP and UDP.",
    ]
    return verdict("alertmanager", "cluster", problems if found != members else [], f"{members} members")


def alert_rows(url: str, receivers: Mapping[str, tuple[str, str]], verify_id: str, limit: float) -> list[Row]:
    """Send a test alert and return a line for each receiver.

    :param receivers: host -> URL and token.
    :param limit: seconds that the alert may take.
    """
    now = datetime.now(UTC)
    alert = {
        "labels": {"alertname": "FleetwatchVerify", "severity": "info", "verify_id": verify_id},
        "annotations": {"summary": "Test alert; nothing is wrong"},
        "startsAt": now.isoformat(),
        "endsAt": (now + timedelta(seconds=limit + HTTP_TIMEOUT)).isoformat(),  # should nobody end it
    }
    began = time.monotonic()
    fetch(f"{url}/api/v2/alerts", [alert])
    with ThreadPoolExecutor(len(receivers)) as pool:
        wait = partial(arrival_problem, verify_id=verify_id, deadline=began + limit)
        arrivals = dict(zip(receivers, pool.map(wait, receivers.values()), strict=True))
    why = why_not_delivered(url, verify_id) if any(problem for problem, _ in arrivals.values()) else ""
    # End it now, so that it is no open incident for longer than needed. With the earliest end there is, since
    # Alertmanager ignores one that is in its future.
    ends = now + timedelta(milliseconds=1)
    fetch(f"{url}/api/v2/alerts", [{**alert, "endsAt": ends.isoformat()}])
    return [
        verdict(
            "alertmanager",
            f"test alert to {host}",
            [f"It did not arrive within {limit:.0f} s. {problem} {why}"] if problem else [],
            f"arrived after {arrived - began:.1f} s",
        )
        for host, (problem, arrived) in arrivals.items()
    ]


def arrival_problem(receiver: tuple[str, str], verify_id: str, deadline: float) -> tuple[str, float]:
    """Wait until a receiver has committed the test alert.

    :param receiver: its URL and token.
    :return: why it did not, or an empty string; and the time, as of ``time.monotonic``.
    """
    url, token = receiver
    query = {"label": f"verify_id={verify_id}"}
    while True:
        try:
            if fetch_json(f"{url}/api/v1/incidents", query, token)["incidents"]:
                return "", time.monotonic()
            problem = f"{url} answers, but has not got it."
        except ApiError as error:
            problem = str(error)
        if time.monotonic() > deadline:
            return problem, time.monotonic()
        time.sleep(0.2)


def why_not_delivered(url: str, verify_id: str) -> str:
    """Return what Alertmanager knows about an alert that did not arrive, and the cure."""
    alerts = fetch_json(f"{url}/api/v2/alerts", {"filter": f'verify_id="{verify_id}"'})
    if not alerts:
        return "Alertmanager has lost it."
    status, receivers = alerts[0]["status"], {receiver["name"] for receiver in alerts[0]["receivers"]}
    if status["silencedBy"]:
        return f"A silence holds it back: {some(status['silencedBy'])}."
    if status["inhibitedBy"]:
        return f"Another alert inhibits it: {some(status['inhibitedBy'])}."
    if receivers != {"fleetwatch-verify"}:
        return f"Alertmanager has no route for test alerts and sent it to {some(receivers)}. {DEPLOY}"
    return "See `journalctl -u alertmanager` for why it was not delivered."


def watchdog_row(url: str) -> Row:
    """Return the line about the alert that Prometheus always sends."""
    check, query = "alerts from Prometheus", {"filter": 'alertname="Watchdog"'}
    started = timestamp(fetch_json(f"{url}/api/v2/status")["uptime"])
    while not fetch_json(f"{url}/api/v2/alerts", query):
        if time.time() - started > WATCHDOG_DELAY:
            problem = "Watchdog, which always fires, is not here, so no Prometheus sends its alerts to it."
            return row("alertmanager", check, FAILED, f"{problem} See the lines about Prometheus.")
        time.sleep(1)
    return row("alertmanager", check, OK, "Watchdog is here")


def heartbeat_row(url: str, host: str, receiver: tuple[str, str]) -> Row:
    """Return the line about the heartbeat that Alertmanager sends to a receiver.

    :param url: of Alertmanager, which gets time if it has just started.
    :param receiver: its URL and token.
    """
    started = timestamp(fetch_json(f"{url}/api/v2/status")["uptime"])
    while problem := heartbeat_problem(receiver):
        if time.time() - started > WATCHDOG_DELAY:
            break
        time.sleep(1)
    return verdict("alertmanager", f"heartbeat at {host}", [problem], "it comes")


def heartbeat_problem(receiver: tuple[str, str]) -> str:
    """Return why the heartbeats at a receiver are not well, or an empty string."""
    url, token = receiver
    try:
        found = fetch_json(f"{url}/api/v1/heartbeats", None, token)["heartbeats"]
    except ApiError as error:
        return str(error)
    if not any(each["last_heartbeat"] for each in found):
        return f"The receiver has never got the Watchdog as a heartbeat. {DEPLOY}"
    missing = [each["last_heartbeat"] or "never" for each in found if each["missing"]]
    return f"A Watchdog came last at {missing[0]}; see the runbook of WatchdogMissing." if missing else ""


# Alert receiver


def channel_rows(plan: Mapping[str, Any], run: Callable[[list[str]], tuple[int, str, str]]) -> Iterator[Row]:
    """Yield a line for each channel of an alert receiver, through which a test message is sent.

    :param plan: its ``test_channels``: the command that does it, and prints an object whose ``channels`` have
        ``channel``, ``error`` and ``provider_id``, the latter two ``null`` when there is none.
    :param run: runs a command and returns its code, output and errors.
    :raises ApiError: the command does not work.
    """
    _, out, err = run(plan["test_channels"])
    try:
        answer = json.loads(out)
    except ValueError:
        words = err.strip().splitlines() or ["it said nothing"]
        raise ApiError(f"`{' '.join(plan['test_channels'])}` failed: {words[-1]}") from None
    for result in answer["channels"]:
        taken = f"taken as {result['provider_id']}" if result["provider_id"] else "taken"
        yield verdict("alert_receiver", f"channel {result['channel']}", [result["error"] or ""], taken)


APIS: dict[str, str] = {
    "prometheus": "targets, rules, alertmanagers",
    "alertmanager": "test alert",
    "alert_receiver": "channels",
}


def api_rows(component: str, check: str, rows: Iterator[Row]) -> Iterator[Row]:
    """Yield the lines of a component, and a last one if its API gives up in between."""
    try:
        yield from rows
    except ApiError as error:
        yield row(component, check, FAILED, str(error))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        yield row(component, check, FAILED, f"Its API does not answer as expected: {error!r}.")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "dict", "default": []},
            "ready": {"type": "list", "elements": "dict", "default": []},
            "prometheus": {"type": "dict"},
            "alertmanager": {"type": "dict"},
            "alert_receiver": {"type": "dict"},
            "tokens": {"type": "dict", "default": {}, "no_log": True},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
        no_log=True,  # keeps ten thousand targets out of the host's system log
    )
    params = module.params

    def show(units: list[str]) -> str:
        command = ["systemctl", "show", "-p", UNIT_PROPERTIES, *units]
        try:
            return str(module.run_command(command, handle_exceptions=False)[1])
        except OSError:
            return ""

    def run(command: list[str]) -> tuple[int, str, str]:
        # It ends by itself even if a provider hangs.
        code, out, err = module.run_command(["timeout", str(CHANNELS_TIMEOUT), *command])
        return code, out, err

    rows = unit_rows(params["units"], show, time.monotonic()) if params["units"] else []
    ready: dict[str, bool] = {}
    for item in params["ready"]:
        problem = ready_problem(item["url"])
        ready[item["component"]] = ready.get(item["component"], True) and not problem
        rows.append(verdict(item["component"], f"{item['job']} ready", [problem]))
    checks = {
        "prometheus": partial(prometheus_rows, timeout=params["timeout"]),
        "alertmanager": partial(
            alertmanager_rows,
            timeout=params["timeout"],
            tokens=params["tokens"],
            send=not module.check_mode,
        ),
        "alert_receiver": partial(channel_rows, run=run),
    }
    for component, check in checks.items():
        if plan := params[component]:
            if ready.get(component):
                rows += api_rows(component, APIS[component], check(plan))
            else:
                rows.append(row(component, APIS[component], SKIPPED, "It is not ready."))
    module.exit_json(changed=False, rows=rows)


if __name__ == "__main__":
    main()
