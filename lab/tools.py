"""promtool, amtool and the programs they belong to, and the blackbox exporter, in ``.cache/tools/bin``.

They are unpacked from this machine's own Debian packages and not installed, since installing
them would start their services here.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from lab import CACHE, apt
from lab.console import Console, output

PACKAGES = ("prometheus", "prometheus-alertmanager", "prometheus-blackbox-exporter")
PROGRAMS = ("promtool", "prometheus", "amtool", "prometheus-alertmanager", "prometheus-blackbox-exporter")
BIN = CACHE / "tools" / "bin"
SHARE = CACHE / "tools" / "share"
"""What stands for /usr/share to Alertmanager, whose templates are there."""
TEMPLATES = "prometheus/alertmanager"


def complete() -> bool:
    """Tell whether the programs are there."""
    return (SHARE / TEMPLATES).exists() and all((BIN / program).exists() for program in PROGRAMS)


def ensure(console: Console) -> Path:
    """Make the programs present and return the directory to put on PATH.

    Raises:
        LabError: the packages cannot be fetched.

    """
    if complete():
        return BIN
    with console.phase(f"Programs for checks and tests, unpacked to {BIN.relative_to(CACHE.parent)}"):
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as directory:
            tree = Path(directory) / "tree"
            for package in apt.download(PACKAGES, Path(directory), console):
                output(["dpkg-deb", "--extract", package, tree])
            BIN.mkdir(parents=True, exist_ok=True)
            for program in PROGRAMS:
                shutil.move(tree / "usr/bin" / program, BIN / program)
            shutil.copytree(tree / "usr/share" / TEMPLATES, SHARE / TEMPLATES, dirs_exist_ok=True)
    return BIN


if __name__ == "__main__":
    ensure(Console())
