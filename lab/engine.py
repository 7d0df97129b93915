"""Podman as this machine can run it, and the names that keep checkouts apart."""

from __future__ import annotations

import hashlib
import json
import os
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab import CACHE, ROOT
from lab.console import output

OWNER = "fleetwatch.checkout"
"""Label that carries the checkout on everything Podman keeps for it."""

ROOT_LABEL = "fleetwatch.root"
"""Label that carries the path of the checkout."""

_UNIFIED_CGROUPS = Path("/sys/fs/cgroup/cgroup.controllers")
_OPEN_FILES = 65_536
_PROCESSES = 32_768


def checkout_id(root: Path = ROOT) -> str:
    """Return the short name of a checkout: different for every path."""
    return hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]


def prefix(purpose: str) -> str:
    """Return what the names of a purpose's containers and network start with."""
    return f"fleetwatch-{checkout_id()}-{purpose}"


def runtime() -> str:
    """Return the OCI runtime for this machine: crun refuses the older layout of control groups."""
    return "crun" if _UNIFIED_CGROUPS.exists() else "runc"


def configuration(soft_runtime: str, files: int, processes: int) -> str:
    """Return the text of a containers.conf that asks for no more than this machine allows.

    Args:
        soft_runtime: name of the OCI runtime.
        files: hard limit of open files here, -1 for none.
        processes: hard limit of processes here, -1 for none.

    """
    nofile = _OPEN_FILES if files < 0 else min(files, _OPEN_FILES)
    nproc = _PROCESSES if processes < 0 else min(processes, _PROCESSES)
    return (
        f'[engine]\nruntime = "{soft_runtime}"\n\n'
        f'[containers]\ndefault_ulimits = ["nofile={nofile}:{nofile}", "nproc={nproc}:{nproc}"]\n'
    )


def as_root(command: Sequence[str | Path], **variables: str) -> list[str]:
    """Return the command, with sudo in front unless this is root already."""
    words = [str(part) for part in command]
    if variables:
        words = ["env", *(f"{name}={value}" for name, value in variables.items()), *words]
    return words if os.geteuid() == 0 else ["sudo", "-n", *words]


def podman(*arguments: str | Path) -> list[str]:
    """Return a podman command line that leaves the machine's own configuration alone."""
    text = configuration(
        runtime(),
        resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        resource.getrlimit(resource.RLIMIT_NPROC)[1],
    )
    path = CACHE / "containers.conf"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        CACHE.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return as_root(["podman", *arguments], CONTAINERS_CONF=str(path))


def podman_json(*arguments: str) -> Any:
    """Return what a podman command prints as JSON.

    Raises:
        LabError: the command failed.

    """
    return json.loads(output(podman(*arguments, "--format", "json")) or "null")
