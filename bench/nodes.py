"""What node_exporter tells of many hosts, as a Prometheus data directory.

The series are those that dashboards read, with the labels and numbers of a usual virtual machine. They are
written as OpenMetrics and made into blocks by promtool, and so are the recording rules, by their own
expressions.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from lab import tools
from lab.console import Console
from lab.panels import Prometheus, PrometheusError

ROOT = Path(__file__).parents[1]
RULES = ROOT / "roles/node_exporter/monitoring/recording_rules.yml"
BLOCK = 7200
"""Seconds of one block of the TSDB."""
DAY = 86400
CPUS = 4
MODES = {
    "idle": 0.0,
    "user": 0.6,
    "system": 0.25,
    "iowait": 0.08,
    "softirq": 0.04,
    "steal": 0.02,
    "nice": 0.01,
    "irq": 0.0,
}
"""Modes of a CPU, and their parts of the time that is not idle."""
FILE_SYSTEMS = (
    ("/dev/vda1", "ext4", "/", 40e9),
    ("/dev/vdb1", "xfs", "/srv", 200e9),
    ("tmpfs", "tmpfs", "/run", 8e8),
)
DEVICES = {"eth0": 1.0, "lo": 0.1, "docker0": 0.3}
UNITS = 40
GIB = 2.0**30
START_SECONDS = 60.0
FAMILIES = ("cron", "dbus", "ssh", "nginx", "postgresql", "rsyslog", "chrony", "getty")
SHAPES = 16


Values = Callable[[Sequence[int]], Iterator[float]]
"""Gives a series' values at some times."""


@dataclass(frozen=True)
class Fleet:
    """Hosts, and the time for which there are samples.

    Attributes:
        hosts: how many.
        detailed: how many of them, from the first, have all that the host's dashboard reads; the others have
            what the fleet's overview and the recording rules read.
        begin: of the first sample, in seconds; a multiple of ``BLOCK``.
        seconds: until the last sample; a multiple of ``BLOCK`` too.
        interval: seconds between two scrapes.

    """

    hosts: int
    detailed: int
    begin: int
    seconds: int = DAY
    interval: int = 60

    @property
    def end(self) -> int:
        """The time of the last sample."""
        return self.begin + self.seconds - self.interval

    def name(self, number: int) -> str:
        """Return the name of a host."""
        return f"web{number:04d}"


@dataclass(frozen=True)
class Series:
    """One series: its text up to the value, and its values at the times of a window."""

    text: str
    values: Values


def _shape(number: int) -> Callable[[int], float]:
    """Return a load over the day between 0 and 1: a wave, and noise that is the same in each run."""
    noise = random.Random(number).random  # noqa: S311 - no secret
    table = [noise() for _ in range(997)]

    def shape(at: int) -> float:
        wave = 0.5 - 0.4 * math.cos(2 * math.pi * (at % DAY) / DAY + number)
        return min(max(wave + 0.2 * (table[at // 60 % 997] - 0.5), 0.0), 1.0)

    return shape


def _gauge(base: float, swing: float, number: int) -> Values:
    shape = _shape(number % SHAPES)
    return lambda times: (base + swing * shape(at) for at in times)


def _counter(rate: float, swing: float, number: int) -> Values:
    """Return a counter that grows by ``rate`` and up to ``swing`` more a second."""
    shape = _shape(number % SHAPES)

    def values(times: Sequence[int]) -> Iterator[float]:
        # Near enough to the integral, and never falling within a step.
        for at in times:
            yield rate * (at % (30 * DAY)) + swing * (0.5 * (at % (30 * DAY)) + 15 * shape(at))

    return values


def _constant(value: float) -> Values:
    return lambda times: (value for _ in times)


def series(fleet: Fleet) -> Iterator[Series]:
    """Yield all series, those of one metric together, as OpenMetrics wants them."""
    families: dict[str, list[Series]] = {}

    def add(metric: str, host: str, values: Values, /, **labels: str) -> None:
        pairs = {
            "job": "node_exporter",
            "host": host,
            "instance": f"{host}:9100",
            "env": "production",
        } | labels
        text = ",".join(f'{key}="{value}"' for key, value in pairs.items())
        families.setdefault(metric, []).append(Series(f"{metric}{{{text}}} ", values))

    url = {"job": "alert_receiver", "external_url": "http://alerts.example.org:5001"}
    add("alert_receiver_info", fleet.name(0), _constant(1), **url)
    for number in range(fleet.hosts):
        host = fleet.name(number)
        _overview(add, host, number, fleet)
        if number < fleet.detailed:
            _detail(add, host, number, fleet)
    for members in families.values():
        yield from members


Add = Callable[..., None]


def _overview(add: Add, host: str, number: int, fleet: Fleet) -> None:
    down = number % 200 == 7  # noqa: PLR2004 - a few
    begin = fleet.end - 1800
    add("up", host, (lambda times: (0.0 if at > begin else 1.0 for at in times)) if down else _constant(1))
    # It was started again once.
    started = fleet.begin + fleet.seconds // 2 + number
    add("process_start_time_seconds", host, lambda times: (float(at > started) * started for at in times))
    busy = 0.05 + 0.9 * (number * 37 % 100) / 100
    for cpu in range(CPUS):
        for mode, part in MODES.items():
            rate = busy * part if part or mode == "irq" else 1 - busy
            add(
                "node_cpu_seconds_total",
                host,
                _counter(rate * 0.8, rate * 0.4, number + cpu),
                cpu=str(cpu),
                mode=mode,
            )
    add("node_memory_MemTotal_bytes", host, _constant(16 * GIB))
    add("node_memory_MemAvailable_bytes", host, _gauge(2 * GIB, (number % 12) * GIB, number))
    add("node_load1", host, _gauge(0.1, 6 * busy, number))
    for device, kind, mountpoint, size in FILE_SYSTEMS:
        labels = {"device": device, "fstype": kind, "mountpoint": mountpoint, "device_error": ""}
        free = size * (0.05 + 0.9 * (number * 13 % 100) / 100)
        add("node_filesystem_avail_bytes", host, _gauge(free * 0.9, free * 0.1, number), **labels)
        add("node_filesystem_size_bytes", host, _constant(size), **labels)
    for device, share in DEVICES.items():
        for way in ("receive", "transmit"):
            rate = 1e6 * share * (1 + number % 20)
            add(f"node_network_{way}_bytes_total", host, _counter(rate, rate, number), device=device)
    for severity, every in (("critical", 100), ("warning", 25)):
        if number % every == 0:
            alert = {"alertname": f"Example{severity.title()}", "severity": severity}
            add("ALERTS", host, _constant(1), alertstate="firing", **alert)
            add("ALERTS_FOR_STATE", host, _constant(fleet.begin), **alert)


def _detail(add: Add, host: str, number: int, fleet: Fleet) -> None:
    gauges = {
        "node_boot_time_seconds": fleet.begin - 3e6,
        "node_load5": 1.5,
        "node_load15": 1.2,
        "node_procs_running": 3,
        "node_procs_blocked": 1,
        "node_memory_Buffers_bytes": 0.2 * GIB,
        "node_memory_Cached_bytes": 4 * GIB,
        "node_memory_SReclaimable_bytes": 0.3 * GIB,
        "node_memory_MemFree_bytes": 2 * GIB,
        "node_memory_SwapTotal_bytes": 2 * GIB,
        "node_memory_SwapFree_bytes": 1.9 * GIB,
        "node_netstat_Tcp_CurrEstab": 120,
        "node_sockstat_TCP_tw": 40,
        "node_nf_conntrack_entries": 900,
        "node_nf_conntrack_entries_limit": 65536,
        "node_filefd_allocated": 2000,
        "node_filefd_maximum": 9e5,
        "node_timex_offset_seconds": 1e-5,
        "node_timex_sync_status": 1,
        "node_textfile_scrape_error": 0,
        "scrape_duration_seconds": 0.03,
        "scrape_samples_scraped": 1200,
    }
    for name, value in gauges.items():
        add(name, host, _gauge(value, 0, number))
    add("node_time_seconds", host, lambda times: (at + 0.01 for at in times))
    add("node_uname_info", host, _constant(1), nodename=host, release="6.1.0-30-amd64", machine="x86_64",
        sysname="Linux")  # fmt: skip
    counters = {
        "node_context_switches_total": 3000,
        "node_forks_total": 5,
        "node_vmstat_pgmajfault": 0.5,
        "node_vmstat_pswpin": 0.1,
        "node_vmstat_pswpout": 0.1,
        "node_vmstat_oom_kill": 0,
        "node_netstat_Tcp_RetransSegs": 0.5,
        "node_netstat_Tcp_OutSegs": 800,
        "node_pressure_cpu_waiting_seconds_total": 0.05,
        "node_pressure_memory_waiting_seconds_total": 0.01,
        "node_pressure_io_waiting_seconds_total": 0.03,
    }
    for name, rate in counters.items():
        add(name, host, _counter(rate, rate, number))
    for device, kind, mountpoint, _ in FILE_SYSTEMS:
        labels = {"device": device, "fstype": kind, "mountpoint": mountpoint, "device_error": ""}
        add("node_filesystem_files", host, _constant(2.5e6), **labels)
        add("node_filesystem_files_free", host, _gauge(2e6, 1e5, number), **labels)
        add("node_filesystem_readonly", host, _constant(0), **labels)
    disk = {"io_time_seconds": 0.1, "io_time_weighted_seconds": 0.3, "read_bytes": 2e5, "written_bytes": 1e6,
            "reads_completed": 10, "writes_completed": 40, "read_time_seconds": 0.02,
            "write_time_seconds": 0.1}  # fmt: skip
    for device in ("vda", "vdb"):
        for name, rate in disk.items():
            add(f"node_disk_{name}_total", host, _counter(rate, rate, number), device=device)
    for device, share in DEVICES.items():
        for way in ("receive", "transmit"):
            for kind, rate in (("packets", 900), ("errs", 0), ("drop", 0.001)):
                add(
                    f"node_network_{way}_{kind}_total",
                    host,
                    _counter(rate * share, rate, number),
                    device=device,
                )
    for unit in range(UNITS):
        name = f"{FAMILIES[unit % len(FAMILIES)]}{unit}.service"
        for state in ("active", "failed", "inactive"):
            value = float(state == ("active" if unit else "failed"))
            add("node_systemd_unit_state", host, _constant(value), name=name, state=state, type="simple")
        add("node_systemd_service_restart_total", host, _constant(0), name=name)


def _write_block(fleet: Fleet, begin: int, data: Path) -> int:
    """Make one block of the samples from ``begin`` on, and return how many these are."""
    times = range(begin, begin + BLOCK, fleet.interval)
    stamps = [f" {at}\n" for at in times]
    samples = 0
    with tempfile.TemporaryDirectory(dir=data.parent) as name:
        text, blocks = Path(name) / "metrics", Path(name) / "blocks"
        with text.open("w", encoding="utf-8") as file:
            for one in series(fleet):
                start = one.text
                file.write(
                    "".join(
                        [
                            f"{start}{value:.12g}{at}"
                            for value, at in zip(one.values(times), stamps, strict=True)
                        ]
                    )
                )
                samples += len(stamps)
            file.write("# EOF\n")
        blocks.mkdir()
        _promtool("tsdb", "create-blocks-from", "openmetrics", str(text), str(blocks))
        for block in blocks.iterdir():
            shutil.move(block, data / block.name)
    return samples


def _promtool(*arguments: str) -> None:
    done = subprocess.run(  # noqa: S603 - our own arguments
        [str(tools.BIN / "promtool"), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"promtool {' '.join(arguments[:3])}: {done.stderr[-2000:]}")


def write(fleet: Fleet, data: Path) -> int:
    """Make the blocks of all samples in an empty folder ``data``, and return how many samples these are."""
    tools.ensure(Console())
    begins = range(fleet.begin, fleet.begin + fleet.seconds, BLOCK)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return sum(pool.map(_write_block, [fleet] * len(begins), begins, [data] * len(begins)))


def record(fleet: Fleet, url: str, data: Path) -> None:
    """Make the blocks of the recording rules, by what a Prometheus with the samples answers at ``url``.

    Args:
        fleet: of which the samples are.
        url: of that Prometheus.
        data: folder for the blocks; that of a Prometheus takes them when it starts again.

    """
    with tempfile.TemporaryDirectory(dir=data.parent) as name:
        blocks = Path(name) / "blocks"
        _promtool(
            "tsdb",
            "create-blocks-from",
            "rules",
            f"--start={fleet.begin}",
            f"--end={fleet.end}",
            f"--eval-interval={fleet.interval}s",
            f"--url={url}",
            f"--output-dir={blocks}",
            str(RULES),
        )
        for block in blocks.iterdir():
            if (block / "meta.json").exists():
                shutil.move(block, data / block.name)


def expressions() -> dict[str, str]:
    """Return the expression of every recorded series."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return {rule["record"]: rule["expr"] for group in groups for rule in group["rules"]}


@contextlib.contextmanager
def prometheus(fleet: Fleet, data: Path) -> Iterator[str]:
    """Run a Prometheus on a data directory and yield its URL; it scrapes nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    config = data.parent / "prometheus.yml"
    config.write_text(f"global: {{scrape_interval: {fleet.interval}s}}\n", encoding="utf-8")
    url = f"http://127.0.0.1:{port}"
    log = data.parent / "prometheus.log"
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own arguments
            [
                str(tools.BIN / "prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={data}",
                "--storage.tsdb.retention.time=10y",
                # It shall not compact while it is measured.
                f"--storage.tsdb.min-block-duration={BLOCK}s",
                f"--storage.tsdb.max-block-duration={BLOCK}s",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        api = Prometheus(url)
        while True:
            with contextlib.suppress(PrometheusError):
                api.get("status/runtimeinfo")
                if api.get("query", query="vector(1)"):
                    break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Prometheus does not start: {log.read_text(encoding='utf-8')[-2000:]}")
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
