"""Finds Grafana's archive, or packs the stand-in in the layout of one.

``pack.py DIRECTORY`` leaves ``grafana.json`` in DIRECTORY: the variables of the role that install it, and
whether it is Grafana. It says on standard output which of the two it is.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

from lab import grafana
from lab.console import Console

HERE = Path(__file__).resolve().parent
VERSION = "0.0.1"
# Enough of Grafana's list of settings for the tests, with one key commented out as there.
DEFAULTS = """app_mode = production
[server]
protocol = http
;http_addr =
http_port = 3000
[smtp]
enabled = false
host =
"""


def stand_in(directory: Path) -> dict[str, Any]:
    """Pack the stand-in as Grafana's archives are packed: one top folder with bin, conf and public."""
    archive = directory / f"grafana-stand-in-{VERSION}.tar.gz"
    top = f"grafana-stand-in-{VERSION}"
    program = (HERE / "standin.py").read_bytes()
    files = {"bin/grafana": program, "conf/defaults.ini": DEFAULTS.encode(), "public/img/a.svg": b"<svg/>"}
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size, member.mode = len(content), 0o755 if name.startswith("bin/") else 0o644
            tar.addfile(member, io.BytesIO(content))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    return {
        "grafana_version": VERSION,
        "grafana_release_url": str(archive),
        "grafana_release_checksums": dict.fromkeys(grafana.ARCHITECTURES.values(), digest),
    }


def main() -> None:
    """Run the command line."""
    directory, given = Path(sys.argv[1]), os.environ.get("GRAFANA_RELEASE", "")
    found = grafana.from_archive(given, Console()) if given else stand_in(directory)
    (directory / "grafana.json").write_text(json.dumps({**found, "real": bool(given)}), encoding="utf-8")
    what = (
        f"Grafana {found['grafana_version']}"
        if given
        else "a stand-in, not Grafana (GRAFANA_RELEASE is not set)"
    )
    print(f"This run tests the role with {what}.")  # noqa: T201 - the scenario's answer


if __name__ == "__main__":
    main()
