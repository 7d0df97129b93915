"""Apt on this machine: its Debian archive, its settings and its packages."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.console import Console, LabError, output
from lab.engine import as_root

_QUIET = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
_WAIT_FOR_LOCK = ("-o", "DPkg::Lock::Timeout=300")

_TARGETS = ("$(REPO_URI)", "$(RELEASE)", "$(COMPONENT)", "$(ORIGIN)", "$(LABEL)")

_INHERITED = re.compile(
    r"Acquire::(Check-Date|Check-Valid-Until|https?::(Proxy|Verify-Peer|Verify-Host)(::.+)?)$", re.IGNORECASE
)
"""Settings that a host needs as well to reach the same archive."""


@dataclass(frozen=True)
class Archive:
    """A Debian archive.

    Attributes:
        main: URI of the archive.
        security: URI of the security archive, or None.
        updates: whether this machine uses the suite of stable updates.

    """

    main: str
    security: str | None
    updates: bool

    def sources(self, release: str) -> list[str]:
        """Return the one-line sources of a release."""
        lines = [f"deb {self.main} {release} main"]
        if self.updates:
            lines.append(f"deb {self.main} {release}-updates main")
        if self.security:
            lines.append(f"deb {self.security} {release}-security main")
        return lines


def archive() -> Archive:
    """Return the Debian archive that this machine uses.

    ``LAB_MIRROR`` and ``LAB_SECURITY_MIRROR`` override it.

    Raises:
        LabError: the sources name none.

    """
    if mirror := os.environ.get("LAB_MIRROR"):
        return Archive(mirror, os.environ.get("LAB_SECURITY_MIRROR"), updates=False)
    wanted = "\t".join(_TARGETS)
    targets = output(["apt-get", "indextargets", "--format", wanted, "Created-By: Packages"])
    return parse_archive(
        targets if targets.strip() else parse_uris(output(["apt-get", "update", "--print-uris"]))
    )


def parse_uris(uris: str) -> str:
    """Turn what ``apt-get update`` would fetch into index targets of unknown origin.

    Before the first update, apt lists no targets.
    """
    found = re.findall(r"^'(.+/)dists/(.+)/([^/]+)/binary-[^/]+/Packages", uris, re.MULTILINE)
    return "\n".join(f"{uri}\t{suite}\t{component}\t\t" for uri, suite, component in dict.fromkeys(found))


def parse_archive(targets: str) -> Archive:
    r"""Find the Debian archive among apt's index targets.

    apt itself has read both formats of its sources, so what is disabled is not there. Archives of
    others are told by their origin or, where it is unknown, by their path.

    Args:
        targets: lines of URI, suite, component, origin and label, separated by tabs.

    Raises:
        LabError: there is none.

    """
    main = security = None
    updates = False
    for line in targets.splitlines():
        uri, suite, component, origin, label = line.split("\t")
        unknown = origin == ""
        path = uri.rstrip("/").rpartition("/")[2]
        if component != "main" or not (
            path in ("debian", "debian-security") if unknown else origin == "Debian"
        ):
            continue
        if suite.endswith(("-security", "/updates")) or label == "Debian-Security":
            security = security or uri
        elif suite.endswith("-updates"):
            updates = True
        elif "-" not in suite:
            main = main or uri
    if main is None:
        raise LabError(
            "this machine's apt sources name no Debian archive to build hosts from. "
            "Give one: make lab LAB_MIRROR=http://<mirror>/debian"
        )
    return Archive(main, security, updates)


def inherited_settings() -> list[str]:
    """Return the lines of this machine's apt configuration that its hosts need as well."""
    found = []
    for line in output(["apt-config", "dump"]).splitlines():
        name = line.partition(" ")[0]
        if _INHERITED.match(name) and not line.endswith('"";'):
            found.append(line)
    return found


def missing(packages: Iterable[str]) -> list[str]:
    """Return those packages that are not installed, in the order given."""
    known = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n"],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    installed = {line.split()[0] for line in known if line.endswith(" installed")}
    return [package for package in packages if package not in installed]


def update(console: Console) -> None:
    """Fetch the package lists."""
    console.run(as_root(["apt-get", *_WAIT_FOR_LOCK, "update"], **_QUIET), log="apt")


def unknown(packages: Sequence[str]) -> list[str]:
    """Return those packages of which apt knows no version that it could install."""
    known = output(["apt-cache", "policy", *packages], env={"LC_ALL": "C.UTF-8"})
    candidates = dict(re.findall(r"^(\S+):\n.+\n  Candidate: (.+)$", known, re.MULTILINE))
    return [package for package in packages if candidates.get(package, "(none)") == "(none)"]


def install(packages: Sequence[str], console: Console) -> None:
    """Install packages of this machine's own release, without recommendations.

    Raises:
        LabError: apt refused.

    """
    command = ["apt-get", *_WAIT_FOR_LOCK, "install", "-y", "--no-install-recommends", *packages]
    update(console)
    console.run(as_root(command, **_QUIET), log="apt")


def download(packages: Sequence[str], directory: Path, console: Console) -> list[Path]:
    """Fetch packages, verified by apt, without installing them.

    Returns:
        The ``.deb`` files in ``directory``.

    Raises:
        LabError: apt refused.

    """
    if unknown(packages):
        update(console)
    # Root would otherwise drop to a user who may not write into the directory.
    user = ("-o", "APT::Sandbox::User=root") if os.geteuid() == 0 else ()
    console.run(["apt-get", *user, "download", *packages], log="apt", env=_QUIET, cwd=directory)
    return sorted(directory.glob("*.deb"))


def reachable(uri: str, release: str) -> bool:
    """Tell whether apt's own transport, with its proxies and keys, can read a suite."""
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(  # noqa: S603 (fixed program, no shell)
            [
                "/usr/lib/apt/apt-helper",
                "-o",
                "Acquire::Retries=1",
                "-o",
                "Acquire::http::Timeout=15",
                "-o",
                "Acquire::https::Timeout=15",
                "download-file",
                f"{uri.rstrip('/')}/dists/{release}/InRelease",
                f"{directory}/InRelease",
            ],
            capture_output=True,
            check=False,
        )
    return done.returncode == 0
