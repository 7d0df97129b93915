"""Measure the usage API: 30 days of 200 hosts, minute by minute, streamed as CSV and JSON and averaged.

A real Prometheus has a sample of each host every five minutes; the API asks for every minute, so Prometheus
computes, and the API sends, 8.6 million points. What counts is the peak memory of the API's processes, which
must not grow with the time that is asked for: it is compared with an answer of an hour.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import yaml

from bench import end_properly, nodes, say, verdict
from lab import tools
from lab.console import Console

HOSTS, DAYS, STEP, SAMPLE = 200, 30, 60, 300
MAX_GROWTH = 1.5
"""How many times as much memory the large answers may take as the small ones."""
PORT = 15000
URL = f"http://127.0.0.1:{PORT}"
START_SECONDS = 60.0


def _write(begin: int, hosts: int, data: Path) -> None:
    """Make the block of two hours."""
    with tempfile.TemporaryDirectory(dir=data.parent) as name:
        text, blocks = Path(name) / "metrics", Path(name) / "blocks"
        with text.open("w", encoding="utf-8") as file:
            for host in range(hosts):
                for at in range(begin, begin + nodes.BLOCK, SAMPLE):
                    percent = 50 + 40 * math.sin(at / 9000 + host)
                    file.write(f'gauge_cpu_usage{{type="CPU",host="web{host:04d}"}} {percent:.4f} {at}\n')
            file.write("# EOF\n")
        blocks.mkdir()
        command = [str(tools.BIN / "promtool"), "tsdb", "create-blocks-from", "openmetrics"]
        subprocess.run([*command, str(text), str(blocks)], check=True, capture_output=True)  # noqa: S603 - ours
        for block in blocks.iterdir():
            block.rename(data / block.name)


def _memory(pid: int) -> int:
    """Return the peak memory of a process and its children, in KiB."""
    total = 0
    for process in [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]:
        status = Path(f"/proc/{process}/status").read_text()
        total += int(status.partition("VmHWM:")[2].split()[0])
    return total


@contextmanager
def _api(prometheus: str, folder: Path) -> Iterator[int]:
    """Run the API as in production, and yield its process id."""
    config = folder / "api.yml"
    settings = {"listen_address": "127.0.0.1", "port": PORT, "prometheus_urls": [prometheus]}
    config.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "fleetwatch.collector.usage", "--config", str(config)]
    environment = os.environ | {"PYTHONPATH": "src", "PYTHONOPTIMIZE": "2", "MALLOC_ARENA_MAX": "2"}
    process = subprocess.Popen(command, env=environment)  # noqa: S603 - ours
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{URL}/readyz", timeout=5).close()  # noqa: S310 - our own URL
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def _ask(path: str) -> tuple[float, int]:
    """Return the seconds until the first byte, and the number of lines."""
    started = time.monotonic()
    first = 0.0
    lines = 0
    with urllib.request.urlopen(URL + path, timeout=600) as answer:  # noqa: S310 - our own URL
        while part := answer.read1(1 << 20):
            first = first or time.monotonic() - started
            lines += part.count(b"\n")
    say(
        f"{path}: first byte after {first:.2f} s, all after {time.monotonic() - started:.1f} s, {lines} lines"
    )
    return first, lines


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", type=int, default=HOSTS)
    parser.add_argument("--days", type=int, default=DAYS)
    options = parser.parse_args()
    end_properly()
    tools.ensure(Console())
    end = int(time.time()) // nodes.BLOCK * nodes.BLOCK
    begins = range(end - options.days * nodes.DAY, end, nodes.BLOCK)
    with tempfile.TemporaryDirectory(prefix="bench-usage-", dir="/var/tmp") as name:  # not tmpfs
        data = Path(name) / "data"
        data.mkdir()
        started = time.monotonic()
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(_write, begins, [options.hosts] * len(begins), [data] * len(begins)))
        say(f"{options.hosts} hosts, {options.days} days, written in {time.monotonic() - started:.0f} s")
        with nodes.prometheus(nodes.Fleet(0, 0, 0), data) as url, _api(url, Path(name)) as pid:
            return _measure(pid, end, options.days, options.hosts)


def _measure(pid: int, end: int, days: int, hosts: int) -> int:
    def window(seconds: int) -> str:
        times = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)) for at in (end - seconds, end)]
        return f"resource=cpu&step={STEP}&start={times[0]}&end={times[1]}"

    def ask(seconds: int) -> list[int]:
        return [
            _ask(f"/avg_usage?{window(seconds)}")[1],
            _ask(f"/metrics_usage?format=csv&{window(seconds)}")[1],
            _ask(f"/metrics_usage?{window(seconds)}")[1],
        ]

    ask(3600)
    small = _memory(pid)
    say(f"peak memory after answers of an hour: {small / 1024:.1f} MiB")
    _, rows, _ = ask(days * nodes.DAY)
    large = _memory(pid)
    complete = rows == hosts * days * nodes.DAY // STEP + 1
    return verdict(
        f"{days} days of {hosts} hosts, {rows - 1} points: peak memory of the API {large / 1024:.1f} MiB, "
        f"{large / small:.2f} times that for an hour (goal: at most {MAX_GROWTH})",
        reached=complete and large <= MAX_GROWTH * small,
    )


if __name__ == "__main__":
    sys.exit(main())
