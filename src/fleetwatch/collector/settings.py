"""Settings of the collector."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from fleetwatch.common.settings import Port, Seconds, ServiceSettings, StringList

from .plan import COLLECTORS, Plan


def _compile(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is not a regular expression ({error})") from None
    return pattern


Pattern = Annotated[str, AfterValidator(_compile)]
"""A regular expression that must match the whole name; an empty one matches none."""

# Of mount points, so that a host's disks remain, and not what systemd and containers mount over and over.
_PSEUDO_MOUNT_POINTS = (
    r"/(dev|proc|sys|run)(/.*)?|/var/lib/(docker|containers|kubelet)/.+|/etc/(hosts|hostname|resolv\.conf)"
)
_PSEUDO_TYPES = (
    "autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|efivarfs|erofs|fuse.lxcfs|"
    "fuse.portal|fusectl|hugetlbfs|iso9660|mqueue|nsfs|proc|pstore|ramfs|rpc_pipefs|securityfs|selinuxfs|"
    "squashfs|sysfs|tracefs"
)
_PARTITIONS_AND_PSEUDO_DISKS = r"(ram|zram|loop|fd|sr)\d+|(h|s|v|xv)d[a-z]+\d+|(nvme\d+n|mmcblk)\d+p\d+"
_PSEUDO_INTERFACES = r"lo|veth.+|cali.+|lxc.+|tap.+"
# Services with names that never come again, of systemd-run and D-Bus, those of a moment, and those of a
# single connection to a socket (Accept=yes): systemd names them "<number>-<address>-<peer's address>" or
# "<number>-<peer's process>-<user>", since version 258 with a second number after the first.
_TRANSIENT_UNITS = (
    r"run-(u\d+|r[0-9a-f]{32}|p\d+-i\d+)\.service|dbus-:.+|(modprobe|systemd-fsck|user-runtime-dir)@.+"
    r"|.+@\d+-(\d+-)?([\da-f.:]+:\d+-[\da-f.:]+:\d+|\d+(_\d+)?-\d+|unknown)\.service"
)


class Settings(ServiceSettings):
    """What can be set, in ``--config FILE`` or as ``METRICS_COLLECTOR_<SETTING>``."""

    model_config = SettingsConfigDict(env_prefix="METRICS_COLLECTOR_")

    interval: float = Field(
        0, ge=0, le=3600, allow_inf_nan=False, description="Seconds between two rounds; 0 = at each scrape"
    )
    collectors: StringList = Field(
        list(COLLECTORS), min_length=1, description=f"Collectors that run; all are {', '.join(COLLECTORS)}"
    )
    collector_timeout: Seconds = Field(2, description="Seconds that a collector may take")
    collector_timeouts: dict[str, Seconds] = Field({}, description="Collectors that may take other times")
    round_timeout: Seconds = Field(
        3, description="Seconds that all collectors may take together; less than Prometheus waits"
    )

    mount_points_exclude: Pattern = Field(
        _PSEUDO_MOUNT_POINTS, description="Mount points that are left out, as a regular expression"
    )
    filesystem_types_exclude: Pattern = Field(
        _PSEUDO_TYPES, description="Types of file systems that are left out, as a regular expression"
    )
    disk_devices_exclude: Pattern = Field(
        _PARTITIONS_AND_PSEUDO_DISKS, description="Disks that are left out, as a regular expression"
    )
    network_devices_exclude: Pattern = Field(
        _PSEUDO_INTERFACES, description="Network interfaces that are left out, as a regular expression"
    )
    disk_usage_mount_point: str = Field(
        "/", pattern="^/", description="Mount point that gauge_disk_usage is about"
    )

    units_include: Pattern = Field(
        ".+", description="systemd services that are told of, as a regular expression"
    )
    units_exclude: Pattern = Field(
        _TRANSIENT_UNITS, description="systemd services of these that are left out, as a regular expression"
    )

    listen_address: str = Field("0.0.0.0", description="Address to listen on")  # noqa: S104 - Prometheus scrapes it
    port: Port = Field(8080, description="TCP port of /metrics, /healthz and /readyz")

    @field_validator("collectors")
    @classmethod
    def _are_known(cls, names: list[str]) -> list[str]:
        for name in names:
            _known(name)
        return [name for name in COLLECTORS if name in names]

    @field_validator("collector_timeouts")
    @classmethod
    def _are_of_collectors(cls, timeouts: dict[str, float]) -> dict[str, float]:
        for name in timeouts:
            _known(name)
        return timeouts

    @model_validator(mode="after")
    def _a_round_is_long_enough(self) -> Settings:
        plan = self.plan()
        longest = max(plan.timeout(name) for name in plan.collectors)
        if longest > self.round_timeout:
            raise ValueError(
                f'setting "round_timeout": {self.round_timeout:g} is less than the {longest:g} that a single '
                "collector may take: raise it, or lower collector_timeout or collector_timeouts"
            )
        return self

    def plan(self) -> Plan:
        """Return the settings as plain values."""
        return Plan(**self.model_dump())


def _known(name: str) -> None:
    if name not in COLLECTORS:
        raise ValueError(f'"{name}" is no collector; there are {", ".join(COLLECTORS)}')
