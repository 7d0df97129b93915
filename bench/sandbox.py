"""Measure how far systemd units are locked down: ``systemd-analyze security`` for each of ours.

Looks at the running lab, or else at hosts of its own with everything on them. Beside ours stands what the
Debian package's own unit reaches, measured on the same host. The last line is the worst figure and its
goal; exit code 1 when it is missed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench import end_properly, say, verdict
from bench.fleet import BenchError, site
from lab import ROOT, STATE, image
from lab.console import Console, LabError, output
from lab.hosts import Fleet, Spec

MAX_EXPOSURE = 2.0
SPECS = [Spec("monitor"), Spec("receiver"), Spec("simulator")]
GROUPS = {
    "prometheus": ["monitor"],
    "alertmanager": ["monitor"],
    "pushgateway": ["monitor"],
    "alert_receiver": ["receiver"],
    "lab_mailbox": ["receiver"],
    "metrics_simulator": ["simulator"],
    "metrics_collector": ["monitor"],
    "metrics_api": ["monitor"],
    "node_exporter": ["monitor", "receiver", "simulator"],
}
OPTIONAL = {"grafana.service"}
"""What cannot be had on every network."""
PACKAGE_UNITS = {
    "prometheus.service": "prometheus.service",
    "alertmanager.service": "prometheus-alertmanager.service",
    "pushgateway.service": "prometheus-pushgateway.service",
    "node_exporter.service": "prometheus-node-exporter.service",
}


@dataclass(frozen=True)
class Row:
    """A unit on a host.

    Attributes:
        host: name of the host.
        unit: name of the unit.
        exposure: from 0, locked down, to 10.
        package: exposure of the Debian package's unit for the same program, if it is installed.

    """

    host: str
    unit: str
    exposure: float
    package: float | None


def our_units() -> set[str]:
    """Return the units that the roles set up."""
    found = set()
    for path in ROOT.glob("roles/*/monitoring/verify.yml"):
        found |= {entry["unit"] for entry in yaml.safe_load(path.read_text(encoding="utf-8"))}
    return found


def exposure(ssh: list[str], *arguments: str) -> float:
    """Return the overall exposure level of one unit."""
    text = output([*ssh, "systemd-analyze", "security", "--no-pager", *arguments])
    line = next(line for line in text.splitlines() if "Overall exposure level" in line)
    return float(line.partition(": ")[2].split()[0])


def look(name: str, ssh_config: Path) -> Iterator[Row]:
    """Measure the units of ours on a host."""
    ssh = ["ssh", "-F", str(ssh_config), name]
    known = output([*ssh, "systemctl", "list-units", "--plain", "--no-legend", "--type=service"])
    running = {line.split()[0] for line in known.splitlines() if line}
    packaged = output([*ssh, "ls", "/usr/lib/systemd/system"]).split()
    for unit in sorted(our_units() & running):
        theirs = PACKAGE_UNITS.get(unit)
        yield Row(
            name,
            unit,
            exposure(ssh, unit),
            exposure(ssh, "--offline=true", f"/usr/lib/systemd/system/{theirs}")
            if theirs in packaged
            else None,
        )


@contextmanager
def hosts() -> Iterator[tuple[str, list[str], Path]]:
    """Give what is measured, the names of its hosts and how ssh reaches them."""
    lab = Fleet("lab", Console()).hosts()
    if lab and all(host.running for host in lab.values()):
        releases = ", ".join(sorted({host.spec.release for host in lab.values()}))
        yield f"the running lab, Debian {releases}", list(lab), STATE / "ssh_config"
        return
    with site("bench-sandbox", SPECS, GROUPS) as own:
        own.run()
        yield f"hosts of its own, Debian {image.DEFAULT_RELEASE}", list(own.addresses), own.fleet.ssh_config


def main() -> int:
    """Run the benchmark and return the exit code."""
    end_properly()
    try:
        with hosts() as (what, names, ssh_config):
            say(f"systemd-analyze security on {what}; 0 is locked down, 10 is open")
            rows = [row for name in names for row in look(name, ssh_config)]
    except (BenchError, LabError) as error:
        say(str(error))
        return 1
    say(f"{'host':<12} {'unit':<28} {'exposure':>8} {'Debian package':>15}")
    for row in rows:
        package = "-" if row.package is None else f"{row.package:.1f}"
        say(f"{row.host:<12} {row.unit:<28} {row.exposure:>8.1f} {package:>15}")
    missing = our_units() - {row.unit for row in rows}
    if missing:
        say(f"not running, so not measured: {', '.join(sorted(missing))}")
    worst = max((row.exposure for row in rows), default=10.0)
    good = worst <= MAX_EXPOSURE and missing <= OPTIONAL
    return verdict(
        f"exposure of the worst of {len(rows)} units: {worst:.1f} (goal: at most {MAX_EXPOSURE})",
        reached=good,
    )


if __name__ == "__main__":
    sys.exit(main())
