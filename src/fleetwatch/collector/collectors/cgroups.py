"""Control groups: where those of systemd's services are, and the kernel's files in them.

- cgroup v2: https://docs.kernel.org/admin-guide/cgroup-v2.html
- cgroup v1: https://docs.kernel.org/admin-guide/cgroup-v1/index.html
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")
BOOTED = Path("/run/systemd/system")
"""Is there if systemd runs the host: sd_booted(3)."""
SERVICE, SLICE = ".service", ".slice"


class Wanted:
    """Which services are told of."""

    def __init__(self, include: str, exclude: str) -> None:
        """Take the patterns; each must match a whole name."""
        self._include, self._exclude = re.compile(include), re.compile(exclude)

    def __call__(self, unit: str) -> bool:
        """Return whether a service is told of."""
        return bool(self._include.fullmatch(unit)) and not self._exclude.fullmatch(unit)


class Group(NamedTuple):
    """The control group of a service."""

    unit: str
    path: str
    """Below the root of systemd's tree, such as ``/system.slice/nginx.service``."""
    inode: int
    """Is another when the group is made anew, as at each start of the service."""

    @property
    def top(self) -> str:
        """Return the outermost slice that it is in."""
        return self.path.split("/", 2)[1]


@dataclass(frozen=True)
class Tree:
    """Where the control groups are.

    Attributes:
        units: directory of the hierarchy in which systemd sorts processes by unit.
        unified: the same place in cgroup v2, or None.
        controllers: the same place in those of cgroup v1 in which systemd sorts processes too, by controller.

    """

    units: str
    unified: str | None
    controllers: Mapping[str, str]

    @classmethod
    def find(cls) -> Tree | None:
        """Return the tree of this host, or None when systemd does not sort its processes.

        Where process 1 is tells where systemd's units begin: in a container that need not be the root.
        """
        if not BOOTED.exists():
            return None
        unified: str | None = None
        named: str | None = None
        controllers: dict[str, str] = {}
        for line in (read(f"{PROC}/1/cgroup") or b"").decode("utf-8", "replace").splitlines():
            _, names, path = line.split(":", 2)
            base = path.removesuffix("/init.scope").rstrip("/")
            if names == "":
                root = next((root for root in (CGROUPS, CGROUPS / "unified") if is_unified(root)), None)
                unified = f"{root}{base}" if root else None
            elif names == "name=systemd":
                named = f"{CGROUPS}/systemd{base}"
            elif os.path.isdir(directory := f"{CGROUPS}/{names}{base}/system.slice"):  # noqa: PTH112 - quicker
                controllers |= dict.fromkeys(names.split(","), directory.removesuffix("/system.slice"))
        units = named or unified
        return cls(units, unified, controllers) if units else None

    def services(self) -> list[Group]:
        """Return the services that run, at any depth of slices; those of a user are part of user@.service."""
        return list({group.unit: group for group in self._below("")}.values())

    def _below(self, path: str) -> Iterator[Group]:
        try:
            entries = list(os.scandir(self.units + path))
        except OSError:  # it ended just now
            return
        for entry in entries:
            name = entry.name
            if name.endswith(SERVICE):
                # systemd puts a _ before what could be taken for a file of the kernel's, as in _cpu.service.
                yield Group(name.removeprefix("_"), f"{path}/{name}", entry.inode())
            elif name.endswith(SLICE):
                yield from self._below(f"{path}/{name}")

    def enabled(self, slice_path: str) -> list[bytes]:
        """Return the controllers of cgroup v2 that are on for what is in a slice."""
        return (read(f"{self.unified}{slice_path}/cgroup.subtree_control") or b"").split()

    def pids(self, group: Group) -> list[int] | None:
        """Return the processes of a service, or None when it has ended."""
        return _pids(self.units + group.path)


def is_unified(root: Path) -> bool:
    """Return whether cgroup v2 is mounted there."""
    return (root / "cgroup.controllers").exists()


def read(path: str) -> bytes | None:
    """Return the content of a file of the kernel's, or None when it is not there, or not any more.

    Quicker than by a file object, and these are hundreds at each scrape.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    except OSError:  # the control group was removed
        return None
    finally:
        os.close(descriptor)


def keyed(text: bytes | None, key: bytes) -> int:
    """Return the number of a key in lines of key and number; 0 if it is not there."""
    for line in (text or b"").splitlines():
        name, _, number = line.partition(b" ")
        if name == key:
            return int(number)
    return 0


def words(text: bytes) -> list[list[str]]:
    """Return the words of each line."""
    return [line.split() for line in text.decode().splitlines() if line.strip()]


def _pids(directory: str) -> list[int] | None:
    try:
        below = [entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return None
    found = [int(pid) for pid in (read(f"{directory}/cgroup.procs") or b"").split()]
    for path in below:
        found += _pids(path) or ()
    return found
