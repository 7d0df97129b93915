# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""Probes: what is asked from outside, by whom, as the inventory says.

A job with the key ``prober`` in its ``scrape.yml`` has no metrics of its own hosts. The hosts of the job
that it names (the *probers*) ask other hosts for it. For a job ``J`` with the prober ``P``:

- ``J_probes`` of any host lists the probes of that host; ``J_scrape: false`` exempts a host from all;
- ``P_probes`` of a prober lists what belongs to no host, or to each host that serves an endpoint;
- ``P_probe_hosts`` of a prober lists modules with which every host of the fleet is probed;
- ``P_modules`` and ``P_extra_modules`` of a prober are the ways to probe, by name.

Of probes of one host with the same name, the one said for that host counts, then the one in ``P_probes``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ansible.errors import AnsibleError
from ansible.template import is_trusted_as_template
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.fleet import (
    LABEL,
    Endpoint,
    FleetError,
    SettingError,
    join_port,
    suggest,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.fleet import (
        Fleet,
        HostVariables,
        Job,
    )

KINDS = ("dns", "grpc", "http", "icmp", "tcp")
"""What a module may have as ``prober``."""
RESERVED_LABELS = frozenset({"host", "instance", "job", "module", "name", "prober", "target"})
SSH_PORT = 22
SCRAPED_BY = "prometheus"
"""The component whose hosts ask the probers, and whose ``prometheus_scrape_timeout`` a probe has to keep."""

_KEYS = {"name", "module", "target", "endpoint", "path", "interval", "labels"}
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_DURATION = re.compile(r"(?=\d)(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?")
# Text with nothing but names of variables in it, as most targets are: Ansible would compile it for each host.
_NAME = re.compile(r"{{\s*([a-zA-Z_]\w*)\s*}}")
_NAMES_IN_TEXT = re.compile(rf"[^{{}}]*(?:{_NAME.pattern}[^{{}}]*)+")
_PORT = re.compile(r".+:\d+")


class ProbeError(ValueError):
    """A list of probes is wrong; the message goes on after the name of the setting."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One entry of a list of probes."""

    name: str
    module: str
    target: str = ""
    """URL, ``host:port`` or address, as the module needs it."""
    endpoint: str = ""
    """Component or job from whose endpoint the target is made."""
    path: str = ""
    """Path of the URL that is made of an endpoint."""
    interval: str = ""
    """Duration between two probes; that of all scrapes if empty."""
    labels: Mapping[str, str] = field(default_factory=dict)


def seconds(duration: str) -> float:
    """Return the seconds of a Prometheus duration, or 0 if it is none."""
    if not _DURATION.fullmatch(duration):
        return 0
    return sum(int(count) * _UNITS[unit] for count, unit in re.findall(r"(\d+)(ms|[ywdhms])", duration))


def read_modules(value: Any) -> dict[str, str]:
    """Return the kind of each module: name -> one of ``KINDS``.

    :raises ProbeError: the value is no dictionary of modules.
    """
    if not isinstance(value, dict) or not all(isinstance(module, dict) for module in value.values()):
        raise ProbeError("must map the name of each module to its settings, as {icmp: {prober: icmp}}")
    for name, module in value.items():
        if module.get("prober") not in KINDS:
            raise ProbeError(f"has the module {name} with a prober that is none of {', '.join(KINDS)}")
    return {str(name): str(module["prober"]) for name, module in value.items()}


def read_probes(value: Any, modules: Mapping[str, str], where: str) -> list[Probe]:
    """Return the probes of a list from the inventory.

    :param modules: what :func:`read_modules` returned.
    :param where: name of the variables that have the modules.
    :raises ProbeError: something in it is wrong.
    """
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ProbeError("must be a list of probes, each with name, module and mostly target or endpoint")
    probes: dict[str, Probe] = {}
    for entry in value:
        probe = _read_probe(entry, modules, where)
        if probe.name in probes:
            raise ProbeError(f"has two probes with the name {probe.name!r}; give each its own")
        probes[probe.name] = probe
    return list(probes.values())


def _read_probe(entry: Mapping[Any, Any], modules: Mapping[str, str], where: str) -> Probe:
    name = entry.get("name")
    if not isinstance(name, str) or not name.strip():
        raise ProbeError("has a probe without a name; alerts need one, such as health")
    for key in entry:
        if key not in _KEYS:
            raise ProbeError(
                f"has the key {key!r} in the probe {name!r}, which no probe has{suggest(key, _KEYS)}"
            )
    for key in _KEYS - {"labels"}:
        if not isinstance(entry.get(key, ""), str):
            raise ProbeError(f"has a value of {key} in the probe {name!r} that is not text; put it in quotes")
    module = entry.get("module", "")
    if module not in modules:
        hint = suggest(module, modules) or f"; there are {', '.join(sorted(modules))}"
        raise ProbeError(f"has the module {module!r} in the probe {name!r}, which is not in {where}{hint}")
    values = {key: str(entry.get(key, "")) for key in _KEYS - {"labels"}}
    probe = Probe(**values, labels=_read_labels(name, entry.get("labels") or {}))
    _check_target(probe, modules[module])
    if probe.interval and not seconds(probe.interval):
        raise ProbeError(f"has in the probe {name!r} an interval that is no duration such as 30s or 5m")
    return probe


def _read_labels(name: str, labels: Any) -> dict[str, str]:
    if not isinstance(labels, dict):
        raise ProbeError(f"has labels in the probe {name!r} that are no dictionary")
    for label, value in labels.items():
        if not isinstance(label, str) or not LABEL.fullmatch(label) or label.startswith("__"):
            raise ProbeError(f"has the label {label!r} in the probe {name!r}, which is no label name")
        if label in RESERVED_LABELS:
            raise ProbeError(f"has the label {label} in the probe {name!r}, which every probe has; rename it")
        if isinstance(value, (dict, list)):
            raise ProbeError(f"has a value of the label {label} in the probe {name!r} that is not text")
    return {label: str(value) for label, value in labels.items()}


def _check_target(probe: Probe, kind: str) -> None:
    if probe.target and probe.endpoint:
        raise ProbeError(f"has target and endpoint in the probe {probe.name!r}; keep one")
    if probe.path and not (probe.endpoint and kind == "http" and probe.path.startswith("/")):
        raise ProbeError(
            f"has a path in the probe {probe.name!r} that is not for an endpoint asked by HTTP, or without /"
        )
    if not probe.target:
        if not probe.endpoint and kind not in {"icmp", "tcp"}:
            raise ProbeError(f"has neither target nor endpoint in the probe {probe.name!r}")
        return
    fits, form = {
        "http": (probe.target.startswith(("http://", "https://")), "a URL with http:// or https://"),
        "icmp": ("/" not in probe.target, "a host name or address"),
        "tcp": (bool(_PORT.fullmatch(probe.target)) and "/" not in probe.target, "host:port"),
    }.get(kind, (True, "one without blanks"))
    if not fits or any(character.isspace() for character in probe.target):
        raise ProbeError(
            f"has in the probe {probe.name!r} a target that the module cannot ask: {form} is needed"
        )


def host_of(target: str) -> str:
    """Return the host name or address in a target, which stands for the host where the fleet has none."""
    if "//" in target:
        return urlsplit(target).hostname or target
    if target.count(":") > 1 and not target.startswith("["):
        return target  # a bare IPv6 address
    return urlsplit(f"//{target}").hostname or target


def _rendered(setting: str, variables: HostVariables) -> Any:
    """Return the value of a list of probes on one host, as ``variables.get`` does and many times as fast.

    :raises SettingError: it cannot be rendered.
    """

    def render(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: render(item) for key, item in value.items()}
        if isinstance(value, list):
            return [render(item) for item in value]
        if isinstance(value, str) and _NAMES_IN_TEXT.fullmatch(value) and is_trusted_as_template(value):
            names = {name: variables.get(name) for name in _NAME.findall(value)}
            if all(isinstance(found, str) for found in names.values()):
                return _NAME.sub(lambda match: str(names[match[1]]), value)
        return variables.render(value)

    raw = variables.source(setting)
    if not isinstance(raw, list):
        return variables.get(setting, [])
    try:
        return render(raw)
    except AnsibleError as error:
        if isinstance(error, SettingError):
            raise
        raise SettingError(setting, variables.host, f"cannot be rendered: {error}") from error


def _may_have_template(value: Any) -> bool:
    """Tell whether a value may be another on each host.

    ``Templar.is_template`` does not look into lists while it renders a template, as for a lookup.
    """
    if isinstance(value, dict):
        return any(map(_may_have_template, value.values()))
    if isinstance(value, list):
        return any(map(_may_have_template, value))
    return isinstance(value, str) and "{" in value


class Probing:
    """The probes of one job."""

    def __init__(self, fleet: Fleet, job: Job) -> None:
        """Read what the probers say.

        :raises FleetError: a setting of a prober is wrong, or there is no such prober.
        """
        self._fleet, self.job = fleet, job
        through = fleet.job(job.prober)
        if through.prober:
            raise FleetError(f"the prober {job.prober} of the job {job.name} has a prober itself")
        self.own_setting = f"{job.name}_probes"
        """The variable with the probes of a host."""
        self.setting = f"{job.prober}_probes"
        self.modules_settings = (f"{job.prober}_modules", f"{job.prober}_extra_modules")
        self._static: dict[int, tuple[Any, list[Probe]]] = {}  # id -> (the value, kept alive; its probes)
        self.kinds: dict[str, str] = {}
        self._probers: list[tuple[Endpoint, list[Probe], list[Probe]]] = []
        for host in fleet.hosts(through.group):
            variables = fleet.variables(host)
            self._read_modules(variables)
            every_host = self._every_host(variables)
            probes = self._read(self.setting, variables)
            for probe in probes:
                if not probe.target and not probe.endpoint:
                    what = f"has neither target nor endpoint in the probe {probe.name!r}, which is of no host"
                    raise SettingError(self.setting, host, what)
            self._probers.append((fleet.endpoint(through, variables), every_host, probes))
        timeouts = (
            fleet.variables(host).get("prometheus_scrape_timeout") for host in fleet.hosts(SCRAPED_BY)
        )
        self._timeout = next((str(timeout) for timeout in timeouts if timeout), "10s")
        self._wide = self._expand()

    def targets(self, variables: HostVariables, labels: Mapping[str, str], *, watched: bool) -> Iterator[Any]:
        """Yield the file_sd groups of one host.

        :param labels: those that the host's targets have from its groups.
        :param watched: whether the host is one of the fleet, which are all probed.
        :raises FleetError: a setting of the host is wrong.
        """
        if not self._fleet.is_scraped(self.job, variables):
            return
        host = str(variables.host)
        own = self.probes_of(variables)
        for prober, every_host, _ in self._probers:
            probes = {probe.name: self._resolved(probe, variables) for probe in every_host if watched}
            probes |= self._wide.get((prober.host, host), {})
            probes |= own
            for name in sorted(probes):
                yield self._target(probes[name], host, prober, labels)

    def targets_elsewhere(self, known: set[str]) -> Iterator[Any]:
        """Yield the file_sd groups of the probes of hosts that the inventory does not have.

        :param known: the names of all hosts of the inventory.
        """
        probers = {prober.host: prober for prober, *_ in self._probers}
        for (prober, host), probes in sorted(self._wide.items()):
            if host not in known:
                for name in sorted(probes):
                    yield self._target(probes[name], host, probers[prober], {})

    def probes_of(self, variables: HostVariables) -> dict[str, Probe]:
        """Return the probes that a host has of its own, each with its target.

        :raises FleetError: they are wrong.
        """
        probes = self._read(self.own_setting, variables)
        return {probe.name: self._resolved(probe, variables) for probe in probes}

    def _read_modules(self, variables: HostVariables) -> None:
        kinds: dict[str, str] = {}
        for name in self.modules_settings:
            try:
                kinds |= read_modules(variables.get(name, {}))
            except ProbeError as error:
                raise SettingError(name, variables.host, str(error)) from error
        if self.kinds and kinds != self.kinds:
            what = f"differs between the hosts of the group {self.job.group}, and each host has all probes"
            raise SettingError(self.modules_settings[-1], variables.host, what)
        self.kinds = kinds

    def _every_host(self, variables: HostVariables) -> list[Probe]:
        name = f"{self.job.prober}_probe_hosts"
        modules = variables.get(name, [])
        for module in modules if isinstance(modules, list) else [modules]:
            if self.kinds.get(module) not in {"icmp", "tcp"}:
                fit = ", ".join(
                    sorted(module for module, kind in self.kinds.items() if kind in {"icmp", "tcp"})
                )
                what = f"must be a list of modules that need no more than a host; there are {fit}"
                raise SettingError(name, variables.host, what)
        return [Probe(module, module) for module in modules]

    def _read(self, setting: str, variables: HostVariables) -> list[Probe]:
        raw = variables.source(setting)
        if id(raw) in self._static:
            return self._static[id(raw)][1]
        try:
            probes = read_probes(
                _rendered(setting, variables), self.kinds, " or ".join(self.modules_settings)
            )
        except ProbeError as error:
            raise SettingError(setting, variables.host, str(error)) from error
        if not _may_have_template(raw):  # hosts of one group share the list
            self._static[id(raw)] = (raw, probes)
        return probes

    def _expand(self) -> dict[tuple[str, str], dict[str, Probe]]:
        """Return the probes of the probers by prober and host."""
        result: dict[tuple[str, str], dict[str, Probe]] = {}
        for prober, _, probes in self._probers:
            for probe in probes:
                for host, resolved in self._hosts_of(probe, prober.host):
                    result.setdefault((prober.host, host), {})[probe.name] = resolved
        return result

    def _hosts_of(self, probe: Probe, prober: str) -> Iterator[tuple[str, Probe]]:
        if not probe.endpoint:
            yield host_of(probe.target), probe
            return
        for host in self._fleet.hosts(self._endpoint_job(probe, self.setting, prober).group):
            yield host, self._resolved(probe, self._fleet.variables(host), self.setting)

    def _endpoint_job(self, probe: Probe, setting: str, host: str) -> Job:
        try:
            return self._fleet.job(probe.endpoint)
        except FleetError as error:
            raise SettingError(setting, host, f"has the probe {probe.name!r}, but {error}") from None

    def _resolved(self, probe: Probe, variables: HostVariables, setting: str = "") -> Probe:
        """Return the probe with its target on a host."""
        if probe.target:
            return probe
        kind = self.kinds[probe.module]
        if not probe.endpoint:
            address = self._fleet.address(variables)
            ssh = variables.get("ansible_port") or SSH_PORT
            return replace(probe, target=address if kind == "icmp" else join_port(address, ssh))
        job = self._endpoint_job(probe, setting or self.own_setting, variables.host)
        if variables.host not in self._fleet.hosts(job.group):
            what = (
                f"has the endpoint {probe.endpoint} in the probe {probe.name!r}, but the host is not in the"
                f" group {job.group}"
            )
            raise SettingError(self.own_setting, variables.host, what)
        if job.instances:
            what = (
                f"has the endpoint {probe.endpoint} in the probe {probe.name!r}, of which a host has several"
            )
            raise SettingError(setting or self.own_setting, variables.host, what)
        endpoint = self._fleet.endpoint(job, variables)
        target = {"http": endpoint.url + (probe.path or "/"), "icmp": endpoint.address}.get(
            kind, endpoint.netloc
        )
        return replace(probe, target=target)

    def _target(self, probe: Probe, host: str, prober: Endpoint, labels: Mapping[str, str]) -> dict[str, Any]:
        merged = {
            **labels,
            **probe.labels,
            "host": host,
            "module": probe.module,
            "name": probe.name,
            "prober": prober.host,
            "target": probe.target,
            "__param_module": probe.module,
            "__param_target": probe.target,
        }
        if prober.scheme != self.job.config.get("scheme", "http"):
            merged["__scheme__"] = prober.scheme
        if probe.interval:
            merged["__scrape_interval__"] = probe.interval
            merged["__scrape_timeout__"] = min(probe.interval, self._timeout, key=seconds)
        return {"targets": [prober.netloc], "labels": merged}
