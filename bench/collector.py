"""Measure what a scrape of the metrics collector costs, beside node_exporter with the same things to collect.

Both run as in production, on this machine, and are asked in turns as Prometheus asks: what counts is the CPU
time of the process for one scrape, user and system. node_exporter is Debian's, unpacked and not installed,
with only those of its collectors that read what ours read; it compresses its answer, as Prometheus asks, and
ours does not. Goal: at most ten times its CPU time. Shown beside it: the same without the states of
processes, which cost most on a host with many, and which node_exporter counts by thread too; node_exporter
with its usual collectors; the time until the answer; and memory.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, Popen

import psutil
import yaml

from bench import end_properly, say, verdict
from bench.receiver import SOURCE, UNIT_ENVIRONMENT, _port
from fleetwatch.collector.plan import COLLECTORS
from lab import CACHE, apt
from lab.console import Console, output

MAX_TIMES = 10.0
PACKAGE = "prometheus-node-exporter"
PROGRAM = CACHE / "bench" / PACKAGE
SAME = {
    "cpu": ["cpu", "cpufreq", "stat"],
    "memory": ["meminfo"],
    "swap": ["vmstat"],
    "filesystem": ["filesystem"],
    "disk": ["diskstats"],
    "network": ["netdev", "netclass"],
    "load": ["loadavg"],
    "processes": ["processes"],
    "system": ["time"],
    "units": [],  # it has nothing like it, and where systemd does not run there are none
    "unit_states": [],
    "temperature": ["hwmon"],
    "battery": ["powersupplyclass"],
}
"""Collector of ours to those of node_exporter that read the same."""
HEADERS = {
    "Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.3",
    "Accept-Encoding": "gzip",
}
"""As Prometheus sends them."""
TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Exporter:
    """A process that is scraped.

    Attributes:
        name: how it is called here.
        port: where it listens.
        process: that runs it.
        cpu: seconds of CPU for one scrape, of each series of scrapes.
        took: seconds until the answer, of each scrape.
        size: bytes of the last answer.

    """

    name: str
    port: int
    process: Popen[bytes]
    cpu: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    size: int = 0

    def used(self) -> float:
        """Return the seconds of CPU since its start, of all its threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def scrape(self) -> bytes:
        """Ask once."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/metrics", headers=HEADERS)
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own URL
            body: bytes = answer.read()
        return body

    def series(self, scrapes: int) -> None:
        """Measure some scrapes one after the other."""
        before = self.used()
        for _ in range(scrapes):
            began = time.perf_counter()
            self.size = len(self.scrape())
            self.took.append(time.perf_counter() - began)
        self.cpu.append((self.used() - before) / scrapes)

    @property
    def milliseconds(self) -> float:
        """Return the CPU time of one scrape: the median of the series."""
        return 1000 * statistics.median(self.cpu)

    @property
    def line(self) -> str:
        """Return what was measured."""
        p50, p99 = (1000 * statistics.quantiles(self.took, n=100)[rank] for rank in (49, 98))
        memory = psutil.Process(self.process.pid).memory_info().rss / 1e6
        return (
            f"  {self.name:44} {self.milliseconds:6.2f} ms CPU ({1000 * min(self.cpu):.2f} to "
            f"{1000 * max(self.cpu):.2f})   answer p50 {p50:5.1f} ms, p99 {p99:5.1f} ms   "
            f"{self.size / 1000:5.1f} kB   {memory:3.0f} MB resident"
        )


def node_exporter() -> Path:
    """Return Debian's program, fetched once."""
    if not PROGRAM.exists():
        PROGRAM.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=PROGRAM.parent) as directory:
            tree = Path(directory) / "tree"
            for package in apt.download((PACKAGE,), Path(directory), Console()):
                output(["dpkg-deb", "--extract", package, tree])
            shutil.move(tree / "usr/bin" / PACKAGE, PROGRAM)
    return PROGRAM


@contextmanager
def _running(name: str, port: int, argv: list[str]) -> Iterator[Exporter]:
    environment = os.environ | {"PYTHONPATH": str(SOURCE)} | UNIT_ENVIRONMENT
    process = Popen(argv, env=environment, stdout=DEVNULL, stderr=DEVNULL)  # noqa: S603 - our own arguments
    exporter = Exporter(name, port, process)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                exporter.scrape()
                break
            except OSError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{name} does not start: {' '.join(argv)}") from error
                time.sleep(0.1)
        yield exporter
    finally:
        process.terminate()
        process.wait(30)


def _ours(folder: Path, name: str, collectors: list[str]) -> tuple[str, int, list[str]]:
    port = _port()
    file = folder / f"{port}.yml"
    file.write_text(
        yaml.safe_dump({"port": port, "listen_address": "127.0.0.1", "collectors": collectors}),
        encoding="utf-8",
    )
    return name, port, [sys.executable, "-m", "fleetwatch.collector", "--config", str(file)]


def _theirs(name: str, collectors: list[str] | None) -> tuple[str, int, list[str]]:
    port = _port()
    flags = [f"--web.listen-address=127.0.0.1:{port}"]
    if collectors is not None:
        flags.append("--collector.disable-defaults")
        flags += [f"--collector.{each}" for ours in collectors for each in SAME[ours]]
    return name, port, [str(node_exporter()), *flags]


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scrapes", type=int, default=100, help="in a series")
    parser.add_argument("--series", type=int, default=7, help="of each exporter")
    options = parser.parse_args()
    end_properly()
    every = list(COLLECTORS)
    fewer = [name for name in every if name != "processes"]
    with tempfile.TemporaryDirectory(prefix="bench-collector-") as directory, ExitStack() as stack:
        folder = Path(directory)
        ours, theirs, ours_fewer, theirs_fewer, usual = exporters = [
            stack.enter_context(_running(*each))
            for each in (
                _ours(folder, "metrics_collector", every),
                _theirs("node_exporter, the same", every),
                _ours(folder, "metrics_collector without processes", fewer),
                _theirs("node_exporter, the same without processes", fewer),
                _theirs("node_exporter as it comes", None),
            )
        ]
        say(
            f"{options.series} series of {options.scrapes} scrapes each, in turns; {os.cpu_count()} cores, "
            f"{len(psutil.pids())} processes, {len(psutil.net_if_stats())} interfaces, load "
            f"{os.getloadavg()[0]:.1f}; {output([str(node_exporter()), '--version']).splitlines()[0]}"
        )
        for exporter in exporters:
            exporter.series(10)  # warm
            exporter.cpu.clear()
            exporter.took.clear()
        for _ in range(options.series):
            for exporter in exporters:
                exporter.series(options.scrapes)
        for exporter in exporters:
            say(exporter.line)
        times = ours.milliseconds / theirs.milliseconds
        say(
            f"without processes {ours_fewer.milliseconds / theirs_fewer.milliseconds:.1f} times; of "
            f"node_exporter as it comes {ours.milliseconds / usual.milliseconds:.1f} times"
        )
        return verdict(
            f"{ours.milliseconds:.1f} ms CPU for a scrape, {times:.1f} times node_exporter's for the same "
            f"(goal {MAX_TIMES:.0f})",
            reached=times <= MAX_TIMES,
        )


if __name__ == "__main__":
    sys.exit(main())
