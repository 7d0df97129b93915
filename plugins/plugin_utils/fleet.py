# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""The fleet as the inventory describes it: components, jobs, and where each host serves them.

Everything that one component must know about another (addresses, ports, URLs, scrape targets) is
computed here, from the inventory and from the folder ``monitoring/`` of the roles.

A *component* is a role with a folder ``monitoring/``; its group of hosts has the role's name. Its file
``scrape.yml`` lists its *jobs*. For a job ``J`` each host may set ``J_port``, ``J_scheme``,
``J_metrics_path`` and ``J_scrape``; what it does not set comes from the defaults of the roles.

A program that runs several times on a host is one job with *instances*: its entry names the variable that
says how many there are, and instance n is served at ``J_port`` + n.

A job with a *prober* is about hosts that serve nothing for it themselves; see ``probes.py``.
"""

from __future__ import annotations

import difflib
import json
import multiprocessing
import re
from collections import ChainMap
from dataclasses import dataclass, field, replace
from functools import cached_property
from ipaddress import IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.template import Templar, is_trusted_as_template

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ansible.parsing.dataloader import DataLoader
    from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.probes import Probing

DEFAULT_SCHEME = "http"
ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - the default is that of the programs themselves
DEFAULT_METRICS_PATH = "/metrics"
ADDRESS = "fleetwatch_address"
TARGET_LABELS = "fleetwatch_target_labels"
JOB_SETTINGS = ("port", "scheme", "metrics_path", "scrape")
"""What a host can set for each job: the variable is the job's name, an underscore and one of these."""

_COLLECTION_ROLES = Path(__file__).parents[2] / "roles"
_RESERVED_LABELS = frozenset({"host", "instance", "job"})
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_JOB = re.compile(r"[a-z_][a-z0-9_]*")
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?\.?")
_MAX_PORT = 65535
_MAX_INSTANCES = 64
_MAX_HOPS = 10
# The two kinds of expression that make up nearly all templates in inventories. To follow them by hand
# saves the third of a millisecond that Ansible takes to compile a template: seconds in a large fleet.
_SIMPLE_TEMPLATE = re.compile(r"{{\s*([a-zA-Z_]\w*)\s*(?:\|\s*default\(\s*([a-zA-Z_]\w*)\s*\)\s*)?}}")


class FleetError(AnsibleError):  # type: ignore[misc] # ansible-core is not typed
    """The inventory or a component's folder is wrong; the message names the place and the cure."""


class SettingError(FleetError):
    """A host's setting is wrong."""

    def __init__(self, setting: str, host: str, what: str) -> None:
        """Take the name of the variable, the host, and what is wrong with the value."""
        super().__init__(f"{setting} of host {host} {what}")
        self.setting = setting
        self.host = host
        self.what = what


class HostVars(Protocol):
    """What is used of Ansible's ``hostvars``: iteration over the hosts and untemplated variables."""

    def raw_get(self, host_name: str) -> dict[str, Any]:
        """Return the untemplated variables of a host."""

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of all hosts in the inventory."""


@dataclass(frozen=True, slots=True)
class Job:
    """A scrape job of a component."""

    name: str
    group: str
    """Inventory group whose hosts are the targets."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of Prometheus' ``scrape_config``, as the component wrote them."""
    instances: str | None = None
    """Variable that says how often a host runs it; None for once, at the job's port itself."""
    prober: str = ""
    """Job whose hosts ask others for this one; empty for a job that its hosts serve themselves."""


@dataclass(frozen=True, slots=True)
class Component:
    """A role that can be monitored."""

    name: str
    path: Path
    jobs: tuple[Job, ...]

    @property
    def rules(self) -> Path | None:
        """The template of the component's alert rules, if it has one."""
        return self._monitoring("rules.yml")

    @property
    def recording_rules(self) -> Path | None:
        """The template of the component's recording rules, if it has one."""
        return self._monitoring("recording_rules.yml")

    @property
    def slos(self) -> Path | None:
        """The template of the component's service level objectives, if it has any."""
        return self._monitoring("slos.yml")

    def _monitoring(self, name: str) -> Path | None:
        path = self.path / "monitoring" / name
        return path if path.is_file() else None


def join_port(address: str, port: int) -> str:
    """Return ``address:port``, an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one host serves one job, as the other hosts reach it."""

    host: str
    """Name in the inventory."""
    address: str
    """Host name or IP address; an IPv6 address has no brackets."""
    port: int
    scheme: str
    path: str
    """Path of the metrics."""
    listen_address: str = ANY_ADDRESS
    """Address on which the host listens for it."""
    number: int | None = None
    """Which of the job's instances it is, from 1; None for a job without instances."""

    @property
    def netloc(self) -> str:
        """The address and the port, as in a URL and as Prometheus' ``__address__``."""
        return join_port(self.address, self.port)

    @property
    def listener(self) -> str:
        """The listen address and the port, as on a command line."""
        return join_port(self.listen_address, self.port)

    @property
    def local_url(self) -> str:
        """The URL without a path, for use on the host itself."""
        loopback = {ANY_ADDRESS: "127.0.0.1", "::": "::1"}
        return (
            f"{self.scheme}://{join_port(loopback.get(self.listen_address, self.listen_address), self.port)}"
        )

    @property
    def url(self) -> str:
        """The URL without a path."""
        return f"{self.scheme}://{self.netloc}"

    def as_dict(self) -> dict[str, Any]:
        """Return the endpoint as the lookup ``endpoints`` shows it."""
        return {
            "host": self.host,
            "address": self.address,
            "port": self.port,
            "scheme": self.scheme,
            "path": self.path,
            "netloc": self.netloc,
            "url": self.url,
        }


@dataclass(frozen=True, slots=True)
class ScrapeJob:
    """A job with its targets, in the form of Prometheus' file-based service discovery."""

    name: str
    config: Mapping[str, Any]
    targets: Sequence[Mapping[str, Any]]

    def file_sd(self) -> str:
        """Return the text of the file_sd file: the same inventory gives the same bytes."""
        groups = ",\n".join(json.dumps(target, sort_keys=True, ensure_ascii=False) for target in self.targets)
        return f"[\n{groups}\n]\n"


class HostVariables:
    """The variables of one host over the defaults of all roles, rendered one by one on demand."""

    def __init__(
        self, host: str, raw: Mapping[str, Any], defaults: Mapping[str, Any], templar: Templar
    ) -> None:
        """Take the untemplated variables ``raw`` and ``defaults``; ``templar`` is borrowed."""
        self.host = host
        self.raw = raw
        self._all: Mapping[str, Any] = ChainMap(raw, defaults)  # type: ignore[arg-type] # only read
        self._templar = templar

    def __contains__(self, name: str) -> bool:
        """Tell whether the host or a role's defaults set the variable."""
        return name in self._all

    def source(self, name: str) -> Any:
        """Return the untemplated value of a variable, or None."""
        return self._all.get(name)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the rendered value of a variable, or ``default`` when nothing sets it.

        :raises FleetError: the value is a template that cannot be rendered.
        """
        if name not in self._all:
            return default
        try:
            return self.render(self._all[name])
        except AnsibleError as error:
            raise SettingError(name, self.host, f"cannot be rendered: {error}") from error

    def render(self, value: Any) -> Any:
        """Return ``value`` with its templates rendered in the context of this host.

        :raises AnsibleError: it cannot be rendered.
        """
        followed = value
        for _hop in range(_MAX_HOPS):
            if followed is None or isinstance(followed, (int, float)):
                return followed
            if not isinstance(followed, str):
                break
            if "{" not in followed:
                return followed
            match = _SIMPLE_TEMPLATE.fullmatch(followed)
            name = match and next((name for name in match.groups() if name in self._all), None)
            if not name or not is_trusted_as_template(followed):
                break
            followed = self._all[name]
        self._templar.available_variables = self._all
        return self._templar.template(value)


class Fleet:
    """The components, and the hosts that the inventory gives them."""

    def __init__(
        self,
        hostvars: HostVars,
        groups: Mapping[str, Sequence[str]],
        loader: DataLoader,
        roles_path: Iterable[str | Path] = (_COLLECTION_ROLES,),
    ) -> None:
        """Describe the fleet.

        :param hostvars: Ansible's magic variable of that name.
        :param groups: Ansible's magic variable of that name: group to hosts, in inventory order.
        :param loader: Ansible's loader of YAML files.
        :param roles_path: folders of roles; of two roles with one name the first counts.
        """
        self.hostvars = hostvars
        self.groups = groups
        self._loader = loader
        self._templar = Templar(loader=loader)
        self._scrape_jobs: dict[str, list[ScrapeJob]] = {}
        self._alert_settings: dict[str, dict[str, Any]] = {}
        self.roles: dict[str, Path] = {}
        for folder in roles_path:
            for path in sorted(Path(folder).iterdir()) if Path(folder).is_dir() else ():
                if path.is_dir():
                    self.roles.setdefault(path.name, path)

    @classmethod
    def of(
        cls, variables: Mapping[str, Any], loader: DataLoader, roles_path: Sequence[str] | None = None
    ) -> Fleet:
        """Return the fleet that a plugin sees through its ``variables``.

        Roles beside the playbook count too, so that a site can add components of its own.
        """
        own = Path(variables.get("playbook_dir", ".")) / "roles"
        folders = tuple(map(str, roles_path or (_COLLECTION_ROLES, own)))
        hostvars, groups = variables["hostvars"], variables["groups"]
        if multiprocessing.parent_process() is None:
            return cls(hostvars, groups, loader, folders)
        # This process runs one task for one host, so nothing that it has read can be out of date. Ansible
        # renders a role's variables anew at each use, and each may ask for the same ten thousand targets.
        if (folders, id(hostvars)) not in _fleets_of_worker:
            _fleets_of_worker[folders, id(hostvars)] = cls(hostvars, groups, loader, folders)
        return _fleets_of_worker[folders, id(hostvars)]

    @cached_property
    def components(self) -> dict[str, Component]:
        """All components, by name."""
        return {
            name: Component(name, path, tuple(self._read_jobs(name, path)))
            for name, path in self.roles.items()
            if (path / "monitoring").is_dir()
        }

    @cached_property
    def jobs(self) -> dict[str, Job]:
        """The jobs of all components, by name.

        :raises FleetError: two components have a job of the same name.
        """
        jobs: dict[str, Job] = {}
        for component in self.components.values():
            for job in component.jobs:
                if job.name in jobs:
                    raise FleetError(
                        f"{component.path}/monitoring/scrape.yml: the job {job.name} exists twice"
                    )
                jobs[job.name] = job
        return jobs

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """The defaults of all roles, untemplated, and what their templates may refer to."""
        defaults: dict[str, Any] = {"hostvars": self.hostvars}
        for path in self.roles.values():
            defaults |= self.read_yaml(path / "defaults" / "main.yml", trusted=True) or {}
        return defaults

    @cached_property
    def alert_variables(self) -> frozenset[str]:
        """The variables of the components' alerts: thresholds, durations and the like."""
        prefixes = tuple(f"{component}_alert_" for component in self.components)
        return frozenset(name for name in self.defaults if name.startswith(prefixes))

    def read_yaml(self, path: Path, *, trusted: bool = False) -> Any:
        """Return the content of a YAML file, or None when there is no such file.

        :param trusted: whether templates in it may be rendered.
        """
        if not path.is_file():
            return None
        return self._loader.load_from_file(str(path), unsafe=True, trusted_as_template=trusted)

    def hosts(self, group: str) -> Sequence[str]:
        """Return the hosts of a group, in inventory order; none if the inventory has no such group."""
        return self.groups.get(group, ())

    def variables(self, host: str) -> HostVariables:
        """Return the variables of a host. Not cached: one host of ten thousand is small, all are not."""
        return HostVariables(host, self.hostvars.raw_get(host), self.defaults, self._templar)

    def job(self, name: str) -> Job:
        """Return the job, or for a role without jobs an equivalent whose group has the role's name.

        :raises FleetError: there is no such job and no such role.
        """
        if job := self.jobs.get(name):
            return job
        if name in self.roles:
            return Job(name, name)
        raise FleetError(f"there is no component or job {name!r}{suggest(name, {*self.jobs, *self.roles})}")

    def endpoints(self, name: str) -> list[Endpoint]:
        """Return the endpoints of a job (or component) on the hosts of its group, in inventory order.

        :raises FleetError: there is no such job, or a host's settings of it are wrong.
        """
        job = self.job(name)
        return [
            endpoint
            for host in self.hosts(job.group)
            for endpoint in self.endpoints_of(job, self.variables(host))
        ]

    def endpoints_of(self, job: Job, variables: HostVariables) -> list[Endpoint]:
        """Return where a host serves ``job``: once, or once for each of its instances.

        :raises FleetError: a setting of the host is wrong.
        """
        endpoint = self.endpoint(job, variables)
        if job.instances is None:
            return [endpoint]
        count = _instances(job.instances, variables)
        if endpoint.port + count > _MAX_PORT:
            what = f"must leave room for {count} instances below {_MAX_PORT + 1}"
            raise SettingError(f"{job.name}_port", variables.host, what)
        return [
            replace(endpoint, port=endpoint.port + number, number=number) for number in range(1, count + 1)
        ]

    def endpoint(self, job: Job, variables: HostVariables) -> Endpoint:
        """Return where a host serves ``job``; of one with instances, the port that theirs follow.

        :raises FleetError: a setting of the host is wrong.
        """
        scheme = variables.get(f"{job.name}_scheme")
        if scheme is None:
            scheme = job.config.get("scheme") or variables.get("fleetwatch_scheme") or DEFAULT_SCHEME
        path = variables.get(f"{job.name}_metrics_path")
        if path is None:
            path = job.config.get("metrics_path") or DEFAULT_METRICS_PATH
        if scheme not in {"http", "https"}:
            raise SettingError(f"{job.name}_scheme", variables.host, "must be http or https")
        if not isinstance(path, str) or not path.startswith("/"):
            raise SettingError(f"{job.name}_metrics_path", variables.host, "must begin with /")
        return Endpoint(
            host=str(variables.host),
            address=self.address(variables),
            port=_port(f"{job.name}_port", variables),
            scheme=str(scheme),
            path=str(path),
            listen_address=str(variables.get(f"{job.name}_listen_address") or ANY_ADDRESS),
        )

    def address(self, variables: HostVariables) -> str:
        """Return the address at which the other hosts reach this one, without brackets.

        :raises FleetError: it is not a host name or an IP address.
        """
        value = variables.get(ADDRESS)
        if value is None:
            value = variables.get("ansible_host") or variables.host
        address = str(value)
        if address.startswith("[") and address.endswith("]"):
            address = address[1:-1]
        if ":" in address:
            try:
                return str(IPv6Address(address))
            except ValueError:
                pass
        elif _HOST_NAME.fullmatch(address):
            return address
        what = f"is {address!r}, not a host name or an IP address; a port belongs in the variable <job>_port"
        raise SettingError(ADDRESS, variables.host, what)

    def is_scraped(self, job: Job, variables: HostVariables) -> bool:
        """Tell whether Prometheus scrapes ``job`` on this host.

        :raises FleetError: the setting is neither true nor false.
        """
        value = variables.get(f"{job.name}_scrape", True)
        try:
            return bool(boolean(value))
        except TypeError as error:
            raise SettingError(f"{job.name}_scrape", variables.host, "must be true or false") from error

    def scrape_jobs(self, target_labels: Any = None) -> list[ScrapeJob]:
        """Return each job that has targets, sorted by name, with one file_sd group per target.

        :param target_labels: the rendered value of ``fleetwatch_target_labels``; None for none.
        :raises FleetError: the labels or a host's settings are wrong.
        """
        key = repr(target_labels)
        if key not in self._scrape_jobs:
            self._scrape_jobs[key] = self._compute_scrape_jobs(host_labels(self.groups, target_labels))
        return self._scrape_jobs[key]

    def alert_settings(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what hosts that Prometheus scrapes set of the alert variables: host, name, value.

        :raises FleetError: a host's settings are wrong.
        """
        if not self._scrape_jobs:  # the same walk over all hosts finds both
            self.scrape_jobs()
        return self._alert_settings

    def alert_settings_of(self, variables: HostVariables) -> dict[str, Any]:
        """Return what a host sets of the alert variables.

        :raises FleetError: a value cannot be rendered.
        """
        return {name: variables.get(name) for name in variables.raw.keys() & self.alert_variables}

    def scrape_jobs_of(self, variables: Mapping[str, Any], templar: Templar) -> list[ScrapeJob]:
        """Return the scrape jobs with the labels that a plugin sees in its ``variables``."""
        labels = variables.get(TARGET_LABELS, self.defaults.get(TARGET_LABELS))
        return self.scrape_jobs(templar.template(labels))

    def probings(self) -> list[Probing]:
        """Return the probes of each job whose prober has hosts.

        :raises FleetError: a setting of a host that probes is wrong.
        """
        from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.probes import (  # noqa: PLC0415
            Probing,  # its file needs this one
        )

        fleet: Any = self  # mypy knows the classes of this file by two names
        return [Probing(fleet, job) for job in fleet.jobs.values() if job.prober and self.hosts(job.group)]

    def _compute_scrape_jobs(self, labels: Mapping[str, Mapping[str, str]]) -> list[ScrapeJob]:
        jobs_of_host: dict[str, list[Job]] = {}
        for job in self.jobs.values():
            for host in () if job.prober else self.hosts(job.group):
                jobs_of_host.setdefault(host, []).append(job)
        probings: list[Any] = self.probings()
        probed = set(self.hostvars) if probings else set()
        targets: dict[str, list[Mapping[str, Any]]] = {}
        for host in sorted(probed.union(jobs_of_host)):
            variables = self.variables(host)
            watched = host in jobs_of_host
            if watched and (settings := self.alert_settings_of(variables)):
                self._alert_settings[host] = settings
            for probing in probings:
                found = probing.targets(variables, labels.get(host, {}), watched=watched)
                targets.setdefault(probing.job.name, []).extend(found)
            for job in jobs_of_host.get(host, ()):
                if self.is_scraped(job, variables):
                    targets.setdefault(job.name, []).extend(
                        _target(job, endpoint, labels.get(host, {}))
                        for endpoint in self.endpoints_of(job, variables)
                    )
        for probing in probings:
            targets[probing.job.name].extend(probing.targets_elsewhere(probed))
        return [
            ScrapeJob(name, self.jobs[name].config, targets[name])
            for name in sorted(targets)
            if targets[name]
        ]

    def _read_jobs(self, component: str, path: Path) -> Iterator[Job]:
        file = path / "monitoring" / "scrape.yml"
        jobs = self.read_yaml(file) or []
        if not isinstance(jobs, list) or not all(isinstance(job, dict) for job in jobs):
            raise FleetError(f"{file} must be a list of jobs")
        for entry in jobs:
            config = dict(entry)
            name = config.pop("job", None)
            group = config.pop("group", component)
            instances = config.pop("instances", None)
            prober = config.pop("prober", "")
            if not isinstance(name, str) or not _JOB.fullmatch(name):
                raise FleetError(f"{file}: each entry needs a `job` of small letters, digits and underscores")
            if not isinstance(group, str):
                raise FleetError(f"{file}: the `group` of the job {name} must be the name of a group")
            if instances is not None and not isinstance(instances, str):
                raise FleetError(
                    f"{file}: the `instances` of the job {name} must be the name of the variable that says"
                    " how many there are"
                )
            if not isinstance(prober, str):
                raise FleetError(f"{file}: the `prober` of the job {name} must be the name of a job")
            yield Job(str(name), str(group), config, instances and str(instances), str(prober))


_fleets_of_worker: dict[tuple[tuple[str, ...], int], Fleet] = {}


def host_labels(groups: Mapping[str, Sequence[str]], target_labels: Any) -> dict[str, dict[str, str]]:
    """Return for each host the labels that ``fleetwatch_target_labels`` takes from its groups.

    :param groups: group to hosts.
    :param target_labels: label name to list of groups; None for none.
    :raises FleetError: a label's name is not allowed, or a host is in two groups of one label.
    """
    if target_labels is None:
        return {}
    if not isinstance(target_labels, dict):
        raise FleetError(
            f"{TARGET_LABELS} must map each label to a list of groups, as {{env: [production, staging]}}"
        )
    result: dict[str, dict[str, str]] = {}
    for label, names in target_labels.items():
        if not isinstance(label, str) or not LABEL.fullmatch(label) or label.startswith("__"):
            raise FleetError(f"{TARGET_LABELS}: {label!r} is not a label name (letters, digits, underscores)")
        if label in _RESERVED_LABELS:
            raise FleetError(
                f"{TARGET_LABELS}: every target has the label {label} already; choose another name"
            )
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise FleetError(f"{TARGET_LABELS}: {label} must be a list of group names")
        for group in names:
            for host in groups.get(group, ()):
                labels = result.setdefault(host, {})
                if labels.setdefault(str(label), str(group)) != group:
                    raise FleetError(
                        f"{TARGET_LABELS}: host {host} would have two values of the label {label},"
                        f" because it is in the groups {labels[label]} and {group}; take it out of one"
                    )
    return result


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean …?`` with the name in ``known`` nearest to ``name``, or an empty string."""
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"; did you mean {matches[0]}?" if matches else ""


def _port(name: str, variables: HostVariables) -> int:
    value = variables.get(name)
    if value is None:
        raise SettingError(name, variables.host, "is not set, and no role has a default for it")
    try:
        port = 0 if isinstance(value, (bool, float)) else int(value)
    except (TypeError, ValueError):
        port = 0
    if not 0 < port <= _MAX_PORT:
        raise SettingError(name, variables.host, f"must be a port number from 1 to {_MAX_PORT}")
    return port


def _instances(name: str, variables: HostVariables) -> int:
    value = variables.get(name)
    if value is None:
        raise SettingError(name, variables.host, "is not set, and no role has a default for it")
    try:
        count = 0 if isinstance(value, (bool, float)) else int(value)
    except (TypeError, ValueError):
        count = 0
    if not 0 < count <= _MAX_INSTANCES:
        raise SettingError(name, variables.host, f"must be a number of instances from 1 to {_MAX_INSTANCES}")
    return count


def _target(job: Job, endpoint: Endpoint, labels: Mapping[str, str]) -> dict[str, Any]:
    labels = {"host": endpoint.host, **labels}
    if endpoint.scheme != job.config.get("scheme", DEFAULT_SCHEME):
        labels["__scheme__"] = endpoint.scheme
    if endpoint.path != job.config.get("metrics_path", DEFAULT_METRICS_PATH):
        labels["__metrics_path__"] = endpoint.path
    return {"targets": [endpoint.netloc], "labels": labels}
