"""Everything that is checked before anything is changed. Each problem is one line with its cure."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab import ROOT, apt, engine, image, venv
from lab.console import Console, LabError, output

_SYS_ADMIN = 21
_NET_ADMIN = 12

GIB = 1 << 30
VENV_BYTES = int(0.9 * GIB)
PACKAGES_BYTES = int(0.8 * GIB)
IMAGE_BYTES = int(0.7 * GIB)
HOST_BYTES = int(0.3 * GIB)
BUILD_BYTES = int(1.2 * GIB)


def platform_problem() -> str | None:
    """Tell whether this machine is of the kind that the lab can run on."""
    if sys.platform != "linux" or not (shutil.which("apt-get") and shutil.which("dpkg-query")):
        return "this is no Debian-like system with apt: use a Debian 12 or 13 machine (a virtual one will do)"
    return None


def root_problem() -> str | None:
    """Tell whether commands can be run as root."""
    if os.geteuid() == 0:
        return None
    cure = "run it as root, or allow your user sudo without a password"
    if not shutil.which("sudo"):
        return f"you are not root and there is no sudo: {cure}"
    done = subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False)  # noqa: S607 (sudo of PATH)
    return None if done.returncode == 0 else f"you are not root and sudo asks for a password: {cure}"


def capability_problem(status: Path = Path("/proc/self/status")) -> str | None:
    """Tell whether the kernel lets root start containers here."""
    found = re.search(r"^CapBnd:\s*([0-9a-f]+)", status.read_text(encoding="utf-8"), re.MULTILINE)
    bounding = int(found[1], 16) if found else 0
    if all(bounding >> number & 1 for number in (_SYS_ADMIN, _NET_ADMIN)):
        return None
    return "root may not start containers here (no CAP_SYS_ADMIN): leave this container, or run it privileged"


def port_problem(port: int) -> str | None:
    """Tell whether a port on 127.0.0.1 is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            return None  # a privileged port: Podman binds it as root
        except OSError:
            return f"port {port} is taken{_holder(port)}: stop what listens there"
    return None


def _holder(port: int) -> str:
    """Return who listens on a port, if that can be told."""
    containers: list[dict[str, Any]] = []
    if shutil.which("podman"):
        with contextlib.suppress(
            LabError
        ):  # a Podman that does not work must not hide that the port is taken
            containers = engine.podman_json("ps") or []
    for container in containers:
        ranges = [(entry["host_port"], entry["range"]) for entry in container.get("Ports") or []]
        if any(first <= port < first + number for first, number in ranges):
            checkout = container["Labels"].get(engine.ROOT_LABEL)
            lab = f" (make lab-down in {checkout} removes it)" if checkout else ""
            return f" by the container {container['Names'][0]}{lab}"
    if not shutil.which("ss"):
        return ""
    command = ["ss", "--no-header", "--listening", "--tcp", "--numeric", "--processes", f"sport = :{port}"]
    names = re.findall(r'\("([^"]+)",pid=(\d+)', output(command))
    return " by " + ", ".join(sorted({f"{name} (pid {pid})" for name, pid in names})) if names else ""


def disk_problems(needed: Mapping[Path, int]) -> list[str]:
    """Tell which file systems have too little room.

    Args:
        needed: bytes needed below each path; paths on one file system are added up.

    """
    places: dict[int, list[Path]] = {}
    for path in needed:
        places.setdefault(_existing(path).stat().st_dev, []).append(path)
    found = []
    for paths in places.values():
        total = sum(needed[path] for path in paths)
        free = shutil.disk_usage(_existing(paths[0])).free
        if free < total:
            where = " and ".join(str(path) for path in paths)
            found.append(
                f"too little disk space: {where} need {total / GIB:.1f} GiB, "
                f"but only {free / GIB:.1f} GiB are free there: make room"
            )
    return found


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def disk_needed(*, packages: bool, environment: bool, images: int, hosts: int) -> dict[Path, int]:
    """Return the bytes still needed, by place.

    Args:
        packages: whether Debian packages are still to be installed.
        environment: whether the virtual environment is still to be made.
        images: how many host images are still to be built.
        hosts: how many hosts are still to be made.

    """
    storage = Path("/var/lib/containers")
    wanted = {
        ROOT: VENV_BYTES if environment else 0,
        Path("/usr"): PACKAGES_BYTES if packages else 0,
        storage: images * IMAGE_BYTES + hosts * HOST_BYTES,
        image.BUILD: BUILD_BYTES if images else 0,
    }
    return {path: size for path, size in wanted.items() if size}


def podman_problem() -> str | None:
    """Tell whether Podman works, if it is there at all."""
    if not shutil.which("podman"):
        return None
    try:
        output(engine.podman("info", "--format", "{{.Host.OCIRuntime.Name}}"))
    except LabError as error:
        return f"podman is installed but does not work: {error}"
    return None


def package_problem(packages: Sequence[str]) -> str | None:
    """Tell whether apt can install the packages, whose lists it fetches if it has none yet."""
    if not apt.unknown(packages):
        return None
    try:
        apt.update(Console())
    except LabError as error:
        return f"apt cannot fetch its package lists: {error}"
    if not (unknown := apt.unknown(packages)):
        return None
    return f"apt offers no {', '.join(unknown)}: add Debian's main archive to the apt sources of this machine"


def mirror_problem() -> str | None:
    """Tell whether apt's transport reaches the Debian archive."""
    try:
        uri = apt.archive().main
    except LabError as error:
        return str(error)
    if apt.reachable(uri, image.DEFAULT_RELEASE):
        return None
    return f"no network: apt cannot reach {uri}: check the connection, apt's proxy, or the apt sources"


def index_problem() -> str | None:
    """Tell whether pip reaches its package index.

    A Debian without python3-venv has no pip at all to ask; there, reaching the mirror has to do.
    """
    pip = _pip()
    if pip is None:
        return None
    with tempfile.TemporaryDirectory() as directory:
        quick = ["--quiet", "--no-deps", "--no-cache-dir", "--retries=1", "--timeout=15"]
        done = subprocess.run(  # noqa: S603 (fixed program, no shell)
            [*pip, "download", *quick, f"--dest={directory}", "wheel"],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode == 0:
        return None
    words = done.stderr.strip().splitlines() or ["no answer"]
    return f"no network: pip cannot reach its package index: check its settings ({words[-1]})"


def _pip() -> list[str] | None:
    python = venv.base_python()
    if subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0:  # noqa: S603
        return [python, "-m", "pip"]
    if venv.can_be_made():
        import ensurepip  # noqa: PLC0415 (Debian has it in a package of its own)

        folders = [Path(ensurepip.__file__).parent / "_bundled", Path("/usr/share/python-wheels")]
        bundled = sorted(wheel for folder in folders for wheel in folder.glob("pip-*.whl"))
        if bundled:
            return [python, f"{bundled[-1]}/pip"]
    return None
