# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""Bundles: the Python services and all their dependencies, for one Python version and architecture.

A bundle is a ``.tar.gz`` of one directory, ``lib``, to be named in PYTHONPATH. It is a function of its
inputs: the same lock file and sources give the same bytes, on any controller with the same zlib. Nothing of
what is downloaded is run, so a bundle can be built for a Python and an architecture that are not at hand.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ansible_collections.fleetwatch.monitoring.plugins.module_utils.release import GO_ARCH
from packaging.requirements import Requirement

FORMAT = b"1"  # of the bundle; another number gives every bundle another name
GLIBC_MINOR = range(36, 16, -1)  # 2.36 of Debian 12, the oldest supported target, down to manylinux2014's
LEFT_OUT = {"test", "tests", "__pycache__"}  # directories no service needs
KEPT = 5  # bundles, and sets of wheels, per target that stay in the cache


class BundleError(Exception):
    """What went wrong and the cure, in one line for the user."""


@dataclass(frozen=True)
class Target:
    """What a bundle is for."""

    python: str  # X.Y
    machine: str  # as uname -m says it

    def __post_init__(self) -> None:
        """Refuse what cannot be a target."""
        if not re.fullmatch(r"3\.\d+", self.python):
            raise BundleError(f"python_version: '{self.python}' must be like '3.13' (in quotes).")
        if self.machine not in GO_ARCH:
            raise BundleError(
                f"machine: '{self.machine}' is not known; known are {', '.join(sorted(GO_ARCH))}."
            )

    @property
    def arch(self) -> str:
        """Go's name of the architecture, as release archives use it."""
        return GO_ARCH[self.machine]

    @property
    def tag(self) -> str:
        """The end of the names of everything that is for this target."""
        return f"linux-{self.arch}-py{self.python}"

    @property
    def pip_options(self) -> list[str]:
        """The options that have pip choose wheels for the target instead of for itself."""
        platforms = [f"manylinux_2_{minor}_{self.machine}" for minor in GLIBC_MINOR]
        platforms += [f"manylinux2014_{self.machine}", f"linux_{self.machine}"]
        options = ["--only-binary=:all:", "--implementation=cp", f"--python-version={self.python}"]
        return options + [f"--platform={platform}" for platform in platforms]

    @property
    def markers(self) -> dict[str, str]:
        """The target's values of environment markers; pip would take those of its own Python."""
        return {
            "implementation_name": "cpython",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }


@dataclass(frozen=True)
class Bundle:
    """A bundle in the cache."""

    path: Path
    sha256: str
    version: str
    built: bool  # in this run


@dataclass(frozen=True)
class Tree:
    """What a bundle is made from, read once, so that an edit during a build cannot split it."""

    release: str  # the package's version
    lock: str  # requirements/services.txt
    files: Mapping[str, bytes]  # of the package, by their path in it

    @classmethod
    def read(cls, source: Path) -> Tree:
        """Read the tree whose top directory is `source`."""
        package = source / "src"
        files = {
            str(path.relative_to(package)): path.read_bytes()
            for path in sorted(package.glob("fleetwatch/**/*"))
            if path.is_file() and not LEFT_OUT & set(path.relative_to(package).parts)
        }
        try:
            project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
            lock = (source / "requirements" / "services.txt").read_text()
        except FileNotFoundError as error:
            raise BundleError(
                f"source: there is no {error.filename}; is {source} the Fleetwatch tree?"
            ) from error
        return cls(project["version"], lock, files)

    @property
    def version(self) -> str:
        """The package's version and, as its local part, eight digits that stand for all of the tree."""
        digest = hashlib.sha256(FORMAT)
        for name, content in [*self.files.items(), ("lock", self.lock.encode())]:
            digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
        return f"{self.release}+{digest.hexdigest()[:8]}"


def build(source: Path, target: Target, cache_dir: Path, wheel_dir: Path | None = None) -> Bundle:
    """Return the bundle of the tree `source`, building it if the cache does not hold it.

    With `wheel_dir`, wheels are taken from this directory and no package index is asked.
    """
    tree = Tree.read(source)
    path = cache_dir / "bundles" / f"fleetwatch-{tree.version}.{target.tag}.tar.gz"
    if sha256 := _verified(path):
        return Bundle(path, sha256, tree.version, built=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (cache_dir / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if sha256 := _verified(path):  # by the run that held the lock
            return Bundle(path, sha256, tree.version, built=False)
        wheels = _wheels(locked_requirements(tree.lock, target), target, cache_dir / "wheels", wheel_dir)
        archive = _archive({**_own_files(tree), **dict(_wheel_files(wheels))})
        sha256 = hashlib.sha256(archive).hexdigest()
        _write(_sum_file(path), f"{sha256}  {path.name}\n".encode())
        _write(path, archive)
        _prune(path.parent, f"*.{target.tag}.tar.gz")
    return Bundle(path, sha256, tree.version, built=True)


def locked_requirements(lock: str, target: Target) -> str:
    """Return the entries of a universal lock file that hold for `target`, without their markers."""
    entries = []
    for line in lock.replace("\\\n", " ").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        text, *hashes = line.split(" --hash=")
        requirement = Requirement(text.strip())
        if requirement.marker is None or requirement.marker.evaluate(target.markers):
            entries.append(" --hash=".join([text.partition(";")[0].strip(), *map(str.strip, hashes)]))
    return "\n".join(entries) + "\n"


def _own_files(tree: Tree) -> dict[str, bytes]:
    # Copied rather than built: the package is pure Python, and what another version of the build backend
    # writes into a wheel would give another controller another bundle.
    metadata = f"Metadata-Version: 2.1\nName: fleetwatch\nVersion: {tree.version}\n"
    return {**tree.files, f"fleetwatch-{tree.version}.dist-info/METADATA": metadata.encode()}


def _wheel_files(wheels: Path) -> Iterator[tuple[str, bytes]]:
    """Yield what the wheels install where Python imports from; scripts are not of use to a service."""
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as content:
            for info in content.infolist():
                parts = PurePosixPath(info.filename).parts
                if parts[0].endswith(".data"):
                    parts = parts[2:] if parts[1] in ("purelib", "platlib") else ()
                if parts and not info.is_dir() and not LEFT_OUT & set(parts):
                    yield "/".join(parts), content.read(info)


def _wheels(requirements: str, target: Target, cache: Path, wheel_dir: Path | None) -> Path:
    """Return a directory with the wheels of `requirements`, from the cache, `wheel_dir` or pip's index."""
    place = cache / f"{hashlib.sha256(requirements.encode()).hexdigest()[:16]}.{target.tag}"
    if place.is_dir():
        return place
    if wheel_dir and not wheel_dir.is_dir():
        raise BundleError(f"wheel_dir: there is no directory {wheel_dir} on the controller.")
    new = cache / ".new"
    shutil.rmtree(new, ignore_errors=True)  # of a run that was killed
    new.mkdir(parents=True)
    listed = new / "requirements.txt"
    listed.write_text(requirements)
    _pip(
        "download",
        *(["--no-index", f"--find-links={wheel_dir}"] if wheel_dir else []),
        *target.pip_options,
        "--require-hashes",
        "--no-deps",
        f"--requirement={listed}",
        f"--dest={new}",
        what=f"the wheels of {target.tag} from {wheel_dir or 'the package index'}",
    )
    new.rename(place)
    _prune(cache, f"*.{target.tag}")
    return place


def _pip(*arguments: str, what: str) -> None:
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    command = [sys.executable, "-m", "pip", *arguments, "--quiet"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
    if run.returncode == 0:
        return
    if "No module named pip" in run.stderr:
        raise BundleError(
            f"{sys.executable}, which runs Ansible, has no pip; install it there (python3-pip), "
            "or run Ansible from the project's virtual environment."
        )
    lines = run.stderr.splitlines()
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines[-3:]
    reason = " ".join(" ".join(errors).split()).rstrip(".")
    raise BundleError(
        f"pip could not collect {what}: {reason}. Without internet, set wheel_dir "
        "to a directory of the wheels that requirements/services.txt lists, or pip's index to a mirror."
    )


def _archive(files: dict[str, bytes]) -> bytes:
    """Pack `files` below lib/, the same bytes for the same files."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=buffer, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, content in sorted(files.items()):
            info = tarfile.TarInfo(f"lib/{name}")
            info.size, info.mode = len(content), 0o644
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _sum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _verified(path: Path) -> str | None:
    """Return the SHA-256 of a bundle if it is in the cache and undamaged."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
        actual = hashlib.file_digest(stream, "sha256").hexdigest()
        if _sum_file(path).read_text().split()[:1] == [actual]:
            return actual
    return None


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(content)
    temporary.replace(path)


def _prune(directory: Path, pattern: str) -> None:
    """Leave the newest few of what matches."""
    found = sorted(directory.glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found[KEPT:]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
            _sum_file(path).unlink(missing_ok=True)
