"""Whether the lab has Grafana: from GRAFANA_RELEASE, else from Grafana's own packages, else it is left out.

What was decided is remembered in ``.lab/grafana.json`` as the variables of the inventory's group ``grafana``;
without that file the group is empty.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
import tarfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from lab import CACHE, STATE, apt
from lab.console import Console, LabError
from lab.settings import Settings, write_private

HOST = "monitor"
"""Host of the lab that runs it."""
REPOSITORY, SUITE = "https://apt.grafana.com", "stable"
NONE = "none"
"""Value of GRAFANA_RELEASE that takes Grafana out again."""
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armv7"}
TIMEOUT = 30
CHUNK = 1 << 20

LEFT_OUT = (
    f"Grafana is left out, since {REPOSITORY} cannot be reached from here. "
    "To add it: make lab GRAFANA_RELEASE=<file or URL of grafana-<version>.linux-<arch>.tar.gz>"
)

_TOP = re.compile(r"grafana(?:-enterprise)?-v?(\d[A-Za-z0-9.+-]*)")


def variables(state: Path = STATE) -> dict[str, Any] | None:
    """Return the variables of the group ``grafana``, or None when the lab has no Grafana."""
    path = state / "grafana.json"
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def choose(settings: Settings, console: Console, state: Path = STATE) -> None:
    """Decide whether the lab has Grafana and where it comes from, and remember it.

    Once there, it stays, also when what it was installed from cannot be reached any more.

    Raises:
        LabError: GRAFANA_RELEASE is not a release archive of Grafana, or cannot be had.

    """
    path = state / "grafana.json"
    given, known = settings.grafana, variables(state)
    if given == NONE:
        path.unlink(missing_ok=True)
        return
    if given:
        if known and known.get("lab_grafana_release") == given:
            return
        write_private(path, json.dumps(from_archive(given, console)) + "\n")
    elif known is None:
        if apt.reachable(REPOSITORY, SUITE):
            write_private(path, json.dumps({"grafana_install_method": "package"}) + "\n")
        else:
            console.say(LEFT_OUT)


def from_archive(given: str, console: Console) -> dict[str, Any]:
    """Return the variables that install an archive, fetched first if it is given as a URL.

    Raises:
        LabError: it is not a release archive of Grafana, or cannot be had.

    """
    archive = _fetched(given, console) if "://" in given else Path(given)
    if not archive.is_file():
        raise LabError(f"GRAFANA_RELEASE is {given!r}: there is no such file")
    arch = ARCHITECTURES.get(platform.machine(), platform.machine())
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "lab_grafana_release": given,
        "grafana_install_method": "release",
        "grafana_version": version(archive),
        "grafana_release_url": str(archive.absolute()),
        "grafana_release_download": "controller",
        # The lab trusts the file that it was given; it is what is unpacked, on each host.
        "grafana_release_checksums": {arch: digest},
    }


def version(archive: Path) -> str:
    """Return the version of a release archive of Grafana, from its top folder.

    Raises:
        LabError: it is no such archive.

    """
    try:
        with tarfile.open(archive) as tar:
            first = tar.next()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise LabError(f"GRAFANA_RELEASE: {archive} is no tar archive: {error}") from error
    top = first.name.removeprefix("./").split("/")[0] if first else ""
    found = _TOP.fullmatch(top)
    if not found:
        raise LabError(
            f"GRAFANA_RELEASE: {archive} is no release archive of Grafana: it holds {top!r}, "
            "not grafana-<version>; take grafana-<version>.linux-<arch>.tar.gz"
        )
    return found[1]


def _fetched(url: str, console: Console) -> Path:
    """Return a copy of what a URL names; fetched once."""
    folder = CACHE / "grafana"
    copy = folder / (url.partition("?")[0].rstrip("/").rpartition("/")[2] or "archive")
    if copy.exists():
        return copy
    folder.mkdir(parents=True, exist_ok=True)
    part = copy.with_name(f".{copy.name}.part")
    with console.phase(f"Grafana: {url}"):
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, part.open("wb") as file:  # noqa: S310 - the user's own
                shutil.copyfileobj(answer, file, CHUNK)
        except (OSError, ValueError, urllib.error.URLError) as error:
            part.unlink(missing_ok=True)
            raise LabError(f"GRAFANA_RELEASE: cannot fetch {url}: {error}") from error
        part.replace(copy)
    return copy
