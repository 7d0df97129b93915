# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""Find every mistake in an inventory at once, before any host is touched.

Values that many hosts share (from ``group_vars``, say) are the same objects in Ansible, so the verdict on
one is kept and ten thousand hosts are checked in seconds. Values are not quoted in messages, because they
may be secrets; the file and line are named instead. Facts are not known yet: a value that needs them is
not judged.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleError, AnsibleTemplateSyntaxError, AnsibleUndefinedVariable
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.errors import ArgumentTypeError, ArgumentValueError
from ansible.template import Templar
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.fleet import (
    ADDRESS,
    JOB_SETTINGS,
    TARGET_LABELS,
    Fleet,
    FleetError,
    HostVariables,
    Job,
    SettingError,
    host_labels,
    suggest,
)
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.overrides import (
    OverrideError,
    render_with_overrides,
)
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.rules import (
    JOBS,
    RulesError,
    rules_variables,
)
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.slo import (
    BUDGET_DAYS,
    SLOS,
    is_objective,
    slo_problems,
)

try:
    from ansible._internal._datatag._tags import Origin
except ImportError:  # not a public part of ansible-core: without it, messages only lack the file and line
    Origin = None

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ansible.module_utils.errors import AnsibleValidationError
    from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.probes import Probing

WATCHED = "node_exporter"
"""The component that every host of the fleet must have."""
PROMETHEUS = "prometheus"
"""The component whose hosts use the target labels and evaluate the alerts."""
RETENTION = "prometheus_retention_time"
RECEIVER = "alert_receiver"
"""The component that needs a channel, and whose hosts share one store."""
DATABASE = "alert_receiver_database_url"
CHANNELS = "alert_receiver_channels"
DEFAULT_CHANNEL = ("alert_receiver_sender", "alert_receiver_recipients", "alert_receiver_sendgrid_api_key")
"""What the default of CHANNELS is made of."""
GRAFANA = "grafana"
"""The component whose secrets must not be those that everybody knows."""
GRAFANA_SECRETS = ("grafana_admin_password", "grafana_secret_key")
GRAFANA_SECRET_LENGTH = 12
GRAFANA_KNOWN_SECRETS = {"admin", "grafana", "password", "changeme", "SW2YcwTIb9zpOOhoPsMm"}
"""What stands in Grafana's own defaults, and what comes to mind first."""
SHARED = "common"
"""The role that specifies the variables ``fleetwatch_…``, which count for every host."""

_SECRET = re.compile(
    r"(^|_)(pass|passwd|password|passphrase|secret|token|credentials?|key|webhook_url|dsn)(_|$)",
    re.IGNORECASE,
)
# What Ansible's validator quotes of a value at the end of a message.
_QUOTED_VALUE = re.compile(r"(?:, got|\. Got no match for|(?<=unable to convert to )(\w+)): .*", re.DOTALL)
_KINDS = {
    "str": "text in quotes",
    "path": "a path",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a dictionary",
}
_DURATION = re.compile(
    r"0|(?=.)(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?"  # as Prometheus reads it
)
_IDENTIFIER = re.compile(r"\b[a-zA-Z_]\w*\b")
_LOOKS_LIKE = 0.85
_HOSTS_SHOWN = 3


@dataclass(slots=True)
class Finding:
    """One mistake and the hosts that share it."""

    subject: str
    """The setting or the group."""
    what: str
    """What is wrong with it, and the cure."""
    place: str = ""
    """File and line of the first occurrence, if known."""
    hosts: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return one line."""
        shown = ", ".join(self.hosts[:_HOSTS_SHOWN])
        if len(self.hosts) > _HOSTS_SHOWN:
            shown += f" and {len(self.hosts) - _HOSTS_SHOWN} more"
        if shown:
            shown = f"{'hosts' if len(self.hosts) > 1 else 'host'} {shown}"
        details = ", ".join(filter(None, (shown, self.place)))
        return f"{self.subject} {self.what}" + (f" ({details})" if details else "")


class InventoryCheck:
    """One check of a whole inventory."""

    def __init__(self, fleet: Fleet) -> None:
        """Prepare the check of ``fleet``."""
        self._fleet = fleet
        self._templar = Templar()
        self._findings: dict[tuple[str, str], Finding] = {}
        self._warnings: dict[str, None] = {}
        self._wrong: set[tuple[str, str]] = set()  # (setting, host): one finding for each is enough
        self._harmless: set[str] = set()  # names of variables that need no look on the next host
        self._static: dict[int, tuple[Any, bool]] = {}  # id -> (the value, kept alive; has no template)
        self._verdicts: dict[tuple[str, int], list[str]] = {}  # of static values, by id
        self._options_of: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}

    def run(self) -> tuple[list[str], list[str]]:
        """Return the problems and the warnings, one line each.

        :raises FleetError: a component's own folder is broken, so the inventory cannot be judged.
        """
        self._check_groups()
        roles_of, jobs_of = self._roles_of_hosts(), self._jobs_of_hosts()
        probings, wrong_prober = self._probings()
        settings: dict[str, dict[str, Any]] = {}
        addresses: dict[str, list[str]] = defaultdict(list)
        for host in self._fleet.hostvars:
            variables = self._fleet.variables(host)
            self._check_names(variables)
            self._check_options(variables, self._options(tuple(roles_of.get(host, ()))))
            if host in roles_of or host in jobs_of:
                self._check_endpoints(variables, jobs_of.get(host, ()), addresses)
                own = variables.raw.keys() & self._fleet.alert_variables
                settings[host] = self._values(variables, own)
            self._check_probes(variables, probings, watched=host in jobs_of)
        if wrong_prober:
            self._report_setting(wrong_prober, self._fleet.variables(wrong_prober.host))
        self._check_addresses(addresses)
        self._check_alerts(settings)
        self._check_labels()
        self._check_slos()
        self._check_receivers()
        self._check_grafana()
        return [str(finding) for finding in self._findings.values()], list(self._warnings)

    # What is known -------------------------------------------------------------------------------

    @cached_property
    def _specs(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The options of the entry point ``main`` of each role that has argument specs."""
        specs = {}
        for role, path in self._fleet.roles.items():
            content = self._fleet.read_yaml(path / "meta" / "argument_specs.yml")
            if content:
                specs[role] = content["argument_specs"].get("main", {}).get("options") or {}
        return specs

    @cached_property
    def _alert_options(self) -> dict[str, dict[str, Any]]:
        """The options of all roles that are variables of alerts."""
        names = self._fleet.alert_variables
        return {n: spec for options in self._specs.values() for n, spec in options.items() if n in names}

    @cached_property
    def _known(self) -> set[str]:
        """All names of settings."""
        names = {name for options in self._specs.values() for name in options}
        jobs = [job.name for job in self._fleet.jobs.values() if not job.prober]
        return names | {f"{job}_{setting}" for job in jobs for setting in JOB_SETTINGS}

    @cached_property
    def _probes_of_nobody(self) -> dict[str, str]:
        """The settings of probes that there is no host for, each with the group that it would be in."""
        jobs = self._fleet.jobs.values()
        return {
            f"{job.name}_probes": job.group for job in jobs if job.prober and not self._fleet.hosts(job.group)
        }

    @cached_property
    def _owners(self) -> set[str]:
        """What settings are named after: the components and jobs, and roles that are groups as well."""
        roles = {role for role in self._specs if role in self._fleet.components or role in self._fleet.groups}
        return {"fleetwatch", *roles, *self._fleet.jobs}

    def _options(self, roles: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        if roles not in self._options_of:
            options: dict[str, dict[str, Any]] = {}
            for role in (SHARED, *roles):
                options |= self._specs.get(role, {})
            # Any host may have thresholds of its own for any alert.
            options |= {name: spec for name, spec in self._alert_options.items() if name not in options}
            self._options_of[roles] = options
        return self._options_of[roles]

    def _roles_of_hosts(self) -> dict[str, list[str]]:
        roles_of: dict[str, list[str]] = defaultdict(list)
        for role in sorted({*self._fleet.components, *self._specs}):
            for host in self._fleet.hosts(role):
                roles_of[host].append(role)
        return roles_of

    def _jobs_of_hosts(self) -> dict[str, list[Job]]:
        jobs_of: dict[str, list[Job]] = defaultdict(list)
        for job in self._fleet.jobs.values():
            for host in () if job.prober else self._fleet.hosts(job.group):
                jobs_of[host].append(job)
        return jobs_of

    # The checks ----------------------------------------------------------------------------------

    def _check_groups(self) -> None:
        components = self._fleet.components
        watched = set(self._fleet.hosts(WATCHED))
        if WATCHED in components:
            for name in components:
                for host in self._fleet.hosts(name):
                    if host not in watched:
                        what = (
                            f"lacks hosts of the group {name}; add them, so that the machines are watched too"
                        )
                        self._report(f"group {WATCHED}", what, host)
        for group in self._fleet.groups:
            if group in self._fleet.roles:
                continue
            for name in difflib.get_close_matches(group, components, n=1, cutoff=_LOOKS_LIKE):
                if set(self._fleet.hosts(group)) - set(self._fleet.hosts(name)):
                    self._warn(f"group {group} is no component; did you mean {name}?")

    def _check_names(self, variables: HostVariables) -> None:
        prefixes = tuple(f"{owner}_" for owner in self._owners)
        for name in variables.raw.keys() - self._harmless:
            if name in self._known or not name.startswith(prefixes):
                self._harmless.add(name)
                self._check_prefix(name)
            else:
                what = f"is not a setting{suggest(name, self._known)}"
                self._report(name, what, variables.host, _place(_key(variables.raw, name)))

    def _check_prefix(self, name: str) -> None:
        """Warn of a name like ``promethues_port``; a site may well have meant it, so it is no problem."""
        if name in self._known:
            return
        for owner in self._owners:
            words = name.split("_")
            count = owner.count("_") + 1
            prefix = "_".join(words[:count])
            meant = "_".join([owner, *words[count:]])
            if meant in self._known and difflib.SequenceMatcher(a=prefix, b=owner).ratio() >= _LOOKS_LIKE:
                self._warn(f"variable {name} is not a setting; did you mean {meant}?")

    def _check_options(self, variables: HostVariables, options: Mapping[str, dict[str, Any]]) -> None:
        for name, spec in options.items():
            if name in variables.raw:
                for what in self._verdict(name, spec, variables):
                    place = _place(variables.raw[name]) or _place(_key(variables.raw, name))
                    self._report(name, what, variables.host, place)
            elif spec.get("required") and self._fleet.defaults.get(name) is None:
                self._report(name, f"is missing; set it {_where_to_set(name, spec)}", variables.host)

    def _verdict(self, name: str, spec: Mapping[str, Any], variables: HostVariables) -> list[str]:
        raw = variables.raw[name]
        key = (name, id(raw))
        if key in self._verdicts:
            return self._verdicts[key]
        try:
            verdict = self._judge(name, spec, variables.render(raw))
        except AnsibleError as error:
            verdict = self._judge_error(name, spec, variables, error)
        if self._is_static(raw):
            self._verdicts[key] = verdict
        return verdict

    def _is_static(self, value: Any) -> bool:
        if id(value) not in self._static:
            self._static[id(value)] = (value, not self._templar.is_template(value))
        return self._static[id(value)][1]

    def _judge(self, name: str, spec: Mapping[str, Any], value: Any) -> list[str]:
        """Return what is wrong with a rendered value."""
        if value is None or (value == "" and spec.get("required")):
            if spec.get("required") or self._fleet.defaults.get(name) is not None:
                return ["is empty; give it a value or remove the line"]
            return []
        if problems := self._judge_meaning(name, value):
            return problems
        kind, elements = spec.get("type", "str"), spec.get("elements", "raw")
        if _is_misfit(kind, value):
            return [f"must be {_KINDS[kind]}"]
        if kind == "list" and any(_is_misfit(elements, item) for item in value):
            return [f"must be a list in which each item is {_KINDS[elements]}"]
        result = ArgumentSpecValidator({name: {**spec, "required": False}}).validate({name: value})
        return [_explain(spec, value, error) for error in result.errors.errors]

    def _judge_meaning(self, name: str, value: Any) -> list[str]:
        """Return what is wrong with a value beyond its type."""
        if name == SLOS:
            return slo_problems(value)
        if "_slo_" in name and name.endswith("_objective"):
            return [] if is_objective(value) else ["must be a percentage above 0 and below 100, such as 99.9"]
        if name in self._fleet.alert_variables and name.endswith(("_for", "_window")):
            if not isinstance(value, (str, int)) or isinstance(value, bool):
                return []  # the type is wrong
            return [] if _DURATION.fullmatch(str(value)) else ["must be a duration such as 30s, 5m or 1h30m"]
        return []

    def _judge_error(
        self, name: str, spec: Mapping[str, Any], variables: HostVariables, error: AnsibleError
    ) -> list[str]:
        """Return what is wrong with a value that cannot be rendered."""
        if isinstance(error, AnsibleTemplateSyntaxError):
            return [f"cannot be rendered: {error}"]
        if not isinstance(error, AnsibleUndefinedVariable):
            return ["cannot be rendered"]  # the error may quote what it could not convert
        if _needs_facts(variables.source(name), variables):
            return []
        cure = (
            "set that in a file that ansible-vault encrypts" if _is_secret(name, spec) else "set that as well"
        )
        return [f"refers to something that is not defined: {error}; {cure}"]

    def _check_endpoints(
        self, variables: HostVariables, jobs: Iterable[Job], addresses: dict[str, list[str]]
    ) -> None:
        try:
            address = self._fleet.address(variables)
            addresses[address.lower().rstrip(".")].append(variables.host)
            for job in jobs:
                self._fleet.is_scraped(job, variables)
                self._fleet.endpoints_of(job, variables)
        except SettingError as error:
            self._report_setting(error, variables)

    def _report_setting(self, error: SettingError, variables: HostVariables) -> None:
        if (error.setting, variables.host) in self._wrong:
            return
        found = [error.what]
        if isinstance(error.__cause__, AnsibleError):
            found = self._judge_error(error.setting, {}, variables, error.__cause__)
        for what in found:
            self._report(error.setting, what, variables.host, _place(variables.source(error.setting)))

    def _check_addresses(self, addresses: Mapping[str, list[str]]) -> None:
        for address, hosts in addresses.items():
            if len(hosts) > 1:
                what = (
                    f"is {address} on more than one host; give each the address at which the others reach it"
                )
                for host in hosts:
                    self._report(ADDRESS, what, host)
            elif len(addresses) > 1 and _is_loopback(address):
                what = f"is {address}, where the other hosts cannot reach it; set {ADDRESS}"
                self._report(ADDRESS, what, hosts[0])

    def _check_labels(self) -> None:
        for host in self._fleet.hosts(PROMETHEUS):
            variables = self._fleet.variables(host)
            try:
                target_labels = variables.get(TARGET_LABELS)
                host_labels(self._fleet.groups, target_labels)
            except SettingError as error:
                self._report_setting(error, variables)
                continue
            except FleetError as error:
                what = str(error).removeprefix(f"{TARGET_LABELS}: ").removeprefix(f"{TARGET_LABELS} ")
                if (TARGET_LABELS, host) not in self._wrong:
                    self._report(f"{TARGET_LABELS}:", what, host, _place(variables.raw.get(TARGET_LABELS)))
                continue
            for label, groups in (target_labels or {}).items():
                for group in groups:
                    if group not in self._fleet.groups:
                        hint = suggest(group, self._fleet.groups)
                        self._warn(
                            f"{TARGET_LABELS}: the group {group} of the label {label} does not exist{hint}"
                        )

    def _check_alerts(self, settings: Mapping[str, dict[str, Any]]) -> None:
        """Check that hosts of Prometheus agree on the alerts, and what other hosts want to have different."""
        servers = self._fleet.hosts(PROMETHEUS)
        general: dict[str, str] = {}
        for host in servers:
            variables = self._fleet.variables(host)
            for name, value in self._values(variables, self._fleet.alert_variables).items():
                if general.setdefault(name, str(value)) != str(value):
                    what = (
                        f"differs between the hosts of the group {PROMETHEUS}, whose value counts for all"
                        f" hosts; set it in group_vars/{PROMETHEUS}"
                    )
                    for server in servers:
                        if (name, server) not in self._wrong:
                            self._report(name, what, server)
        if servers and any(settings.values()):
            for component in self._fleet.components.values():
                if component.rules and self._fleet.hosts(component.name):
                    self._check_overrides(component.rules, self._fleet.variables(servers[0]), settings)

    def _check_overrides(
        self, rules: Path, variables: HostVariables, settings: Mapping[str, dict[str, Any]]
    ) -> None:
        try:
            names = rules_variables(rules)
            values = {JOBS: sorted(self._fleet.jobs)} | self._values(variables, names)
            if values.keys() >= names:
                render_with_overrides(rules, values, settings)
        except OverrideError as error:
            for host in error.hosts:
                self._report(error.settings, error.what, host)
        except RulesError as error:
            raise FleetError(str(error)) from error

    def _probings(self) -> tuple[list[Probing], SettingError | None]:
        try:
            return self._fleet.probings(), None
        except SettingError as error:
            return [], error

    def _check_probes(self, variables: HostVariables, probings: Iterable[Probing], *, watched: bool) -> None:
        try:
            for probing in probings:
                list(probing.targets(variables, {}, watched=watched))
        except SettingError as error:
            self._report_setting(error, variables)
        for setting, group in self._probes_of_nobody.items():
            if setting in variables.raw:
                self._warn(f"{setting} has no effect, since the group {group} has no hosts")

    def _check_slos(self) -> None:
        for host in self._fleet.hosts(PROMETHEUS):
            values = self._values(self._fleet.variables(host), (SLOS, RETENTION))
            days = _days(str(values.get(RETENTION)))
            if values.get(SLOS) and days is not None and days < BUDGET_DAYS:
                self._warn(
                    f"{RETENTION} is less than {BUDGET_DAYS} days, so that what is left of the error budgets"
                    f" of {SLOS} is computed over that time only"
                )

    def _values(self, variables: HostVariables, names: Iterable[str]) -> dict[str, Any]:
        """Return the values of those variables that are set and can be rendered without facts."""
        found = {}
        for name in names:
            if name in variables and (name, variables.host) not in self._wrong:
                try:
                    found[name] = variables.get(name)
                except SettingError:
                    continue
        return found

    def _check_receivers(self) -> None:
        hosts = self._fleet.hosts(RECEIVER) if RECEIVER in self._fleet.components else ()
        for host in hosts:
            variables = self._fleet.variables(host)
            try:
                if CHANNELS not in variables.raw:
                    self._check_default_channel(variables)
                if len(hosts) > 1 and str(variables.get(DATABASE)).startswith("sqlite:"):
                    what = (
                        "is a file of each host's own, so that each would send every message; give all hosts"
                        f" of the group {RECEIVER} the same PostgreSQL database, or keep one host"
                    )
                    self._report(DATABASE, what, host)
            except SettingError as error:
                self._report_setting(error, variables)

    def _check_default_channel(self, variables: HostVariables) -> None:
        for name in DEFAULT_CHANNEL:
            if not variables.get(name) and (name, variables.host) not in self._wrong:
                what = f"is missing; set it {_where_to_set(name, {})}, or set {CHANNELS}"
                self._report(name, what, variables.host)

    def _check_grafana(self) -> None:
        for host in self._fleet.hosts(GRAFANA) if GRAFANA in self._fleet.components else ():
            variables = self._fleet.variables(host)
            try:
                for name in GRAFANA_SECRETS:
                    if (name, host) not in self._wrong and _is_weak(variables.get(name)):
                        what = (
                            f"must have at least {GRAFANA_SECRET_LENGTH} characters in one line and not be a"
                            " well-known one; `openssl rand -hex 32` makes a good one for the vault"
                        )
                        self._report(name, what, host, _place(variables.raw.get(name)))
                for switch, wanted, needed in (
                    ("grafana_scheme", "https", ("grafana_tls_certificate", "grafana_tls_key")),
                    ("grafana_database_type", "postgres", ("grafana_database_host",)),
                ):
                    for name in needed if variables.get(switch) == wanted else ():
                        if not variables.get(name):
                            self._report(name, f"is missing; {switch} {wanted} needs it", host)
            except SettingError as error:
                self._report_setting(error, variables)

    def _report(self, subject: str, what: str, host: str, place: str = "") -> None:
        finding = self._findings.setdefault((subject, what), Finding(subject, what, place))
        finding.hosts.append(host)
        self._wrong.add((subject, host))

    def _warn(self, text: str) -> None:
        self._warnings[text] = None


def _is_weak(secret: Any) -> bool:
    text = str(secret or "")
    too_short = len(text) < GRAFANA_SECRET_LENGTH or text != text.strip() or "\n" in text
    return too_short or text in GRAFANA_KNOWN_SECRETS


def _explain(spec: Mapping[str, Any], value: Any, error: AnsibleValidationError) -> str:
    """Return an error of Ansible's validator in fewer words and without the value."""
    message = str(error.msg)
    if " found in " not in message:  # it is about the setting itself, not about something inside it
        if isinstance(error, ArgumentTypeError):
            return f"must be {_KINDS.get(spec['type'], spec['type'])}"
        if isinstance(error, ArgumentValueError):
            choices = [str(choice) for choice in spec["choices"]]
            hint = suggest(value, choices) if isinstance(value, str) else ""
            return f"must be one of: {', '.join(choices)}{hint}"
    return f"is wrong: {_QUOTED_VALUE.sub(lambda match: match[1] or '', message)}"


def _is_misfit(kind: str, value: Any) -> bool:
    """Tell whether a value is of a type that Ansible would convert, but not to what was meant.

    YAML reads the version 1.10 as the number 1.1, and ``on`` as true.
    """
    if kind in {"str", "path"}:
        return isinstance(value, (bool, float, list, dict))
    if kind in {"int", "float"}:
        return isinstance(value, bool)
    if kind == "list":
        return not isinstance(value, list)
    return kind == "dict" and not isinstance(value, dict)


def _is_secret(name: str, spec: Mapping[str, Any]) -> bool:
    return bool(spec.get("no_log") or _SECRET.search(name))


def _where_to_set(name: str, spec: Mapping[str, Any]) -> str:
    return "in a file that ansible-vault encrypts" if _is_secret(name, spec) else "in the inventory"


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _days(duration: str) -> float | None:
    """Return the days that a duration of Prometheus takes, or None if it is none."""
    if not _DURATION.fullmatch(duration):
        return None
    days = {"y": 365, "w": 7, "d": 1, "h": 1 / 24, "m": 1 / 1440, "s": 1 / 86_400}
    parts = re.findall(r"(\d+)(ms|[ywdhms])", duration)
    return sum(int(count) * days.get(unit, 0) for count, unit in parts)


def _needs_facts(value: Any, variables: HostVariables) -> bool:
    """Tell whether a template refers, directly or through other variables, to facts."""
    seen = {"groups", "hostvars"}  # long, and without templates of their own
    todo = [value]
    while todo:
        source = todo.pop()
        if not isinstance(source, (str, list, dict)):
            continue
        for name in set(_IDENTIFIER.findall(str(source))) - seen:
            seen.add(name)
            if name == "ansible_facts" or (name.startswith("ansible_") and name not in variables):
                return True
            todo.append(variables.source(name))
    return False


def _key(mapping: Mapping[str, Any], name: str) -> str:
    """Return the key object itself, which knows where it was written."""
    return next(key for key in mapping if key == name)


def _place(value: Any) -> str:
    """Return the file and line in which Ansible read ``value``, or an empty string."""
    origin = Origin and Origin.get_tag(value)
    if not origin:
        return ""
    if not origin.path:
        return str(origin.description or "")
    path = Path(origin.path)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{shown}:{origin.line_num}" if origin.line_num else str(shown)
