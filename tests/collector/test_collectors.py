"""Each collector, with what psutil says put in its mouth, and once with the real psutil."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from fleetwatch.collector.collectors import build, cpu, memory, network, sensors, storage, system
from fleetwatch.collector.plan import COLLECTORS, Plan
from fleetwatch.collector.rounds import Rounds
from fleetwatch.collector.settings import Settings

Values = dict[tuple[str, ...], float]
Fake = Callable[..., None]


def settings(**values: object) -> Plan:
    return Settings.model_validate(values).plan()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Let functions of psutil return these values."""

    def replace(**answers: Any) -> None:
        for name, answer in answers.items():
            function = answer if callable(answer) else lambda *_, answer=answer, **__: answer
            monkeypatch.setattr(psutil, name, function)

    return replace


def values(metrics: Iterable[Metric]) -> Values:
    """Return the samples: name and values of the labels, sorted by the labels' names, to value."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for metric in metrics
        for sample in metric.samples
    }


def core(busy: float, idle: float, **modes: float) -> SimpleNamespace:
    every = dict.fromkeys([*cpu.MODES, *cpu.GUEST_MODES.values()], 0.0)
    return SimpleNamespace(**(every | {"user": busy, "idle": idle} | modes))


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def processor(fake: Fake) -> Callable[..., None]:
    stats = SimpleNamespace(ctx_switches=7, interrupts=8, soft_interrupts=9)
    fake(cpu_stats=stats, cpu_freq=[])
    return lambda *cores: fake(cpu_times=list(cores))


def test_cpu_by_core_and_mode(processor: Callable[..., None], fake: Fake) -> None:
    processor(core(10, 20, iowait=3, guest=4, steal=2), core(30, 40))
    fake(cpu_freq=[SimpleNamespace(current=2400.0, min=800.0, max=3000.0)])
    found = values(cpu.Cpu()())
    assert found["host_cpu_seconds_total", "0", "user"] == 10
    assert found["host_cpu_seconds_total", "0", "iowait"] == 3
    assert found["host_cpu_seconds_total", "1", "idle"] == 40
    assert found["host_cpu_guest_seconds_total", "0", "user"] == 4
    assert found["host_cpu_logical_cores",] == 2
    assert found["host_cpu_frequency_hertz", "0"] == 2.4e9
    assert found["host_cpu_frequency_max_hertz", "0"] == 3e9
    assert [found[f"host_{name}_total",] for name in ("context_switches", "interrupts")] == [7, 8]


def test_cpu_in_use_since_the_round_before(processor: Callable[..., None], clock: Clock) -> None:
    collect = cpu.Cpu()
    processor(core(10, 20), core(30, 40))
    assert ("host_cpu_usage_ratio",) not in values(collect()), "of one round nothing can be said"
    clock.now += 15
    processor(core(16, 24, iowait=2), core(32, 48))  # 6 of 12, and 2 of 10; waiting is idle
    found = values(collect())
    assert found["host_cpu_usage_ratio",] == pytest.approx(8 / 22)
    assert found["host_cpu_core_usage_ratio", "0"] == pytest.approx(0.5)
    assert found["host_cpu_core_usage_ratio", "1"] == pytest.approx(0.2)
    assert found["gauge_cpu_usage", "CPU"] == pytest.approx(100 * 8 / 22)


def test_cpu_use_of_a_second_prometheus_is_not_that_of_a_moment(
    processor: Callable[..., None], clock: Clock
) -> None:
    collect = cpu.Cpu()
    processor(core(0, 0))
    collect()
    clock.now += 15
    processor(core(3, 12))
    assert values(collect())["host_cpu_usage_ratio",] == pytest.approx(0.2)
    clock.now += 0.01
    processor(core(3.01, 12))
    assert values(collect())["host_cpu_usage_ratio",] == pytest.approx(0.2, abs=0.01)


def test_cpu_use_when_cores_come_and_go_and_counters_step_back(
    processor: Callable[..., None], clock: Clock
) -> None:
    collect = cpu.Cpu()
    processor(core(10, 10), core(10, 10))
    collect()
    clock.now += 15
    processor(core(12, 12))
    assert ("gauge_cpu_usage", "CPU") not in values(collect())
    clock.now += 15
    processor(core(13, 11))  # some kernels correct the time spent idle
    assert values(collect())["host_cpu_usage_ratio",] == 1
    clock.now += 15
    processor(core(13, 11))  # the clock of the kernel stands still
    assert ("host_cpu_usage_ratio",) not in values(collect())


def test_memory(fake: Fake) -> None:
    fake(virtual_memory=SimpleNamespace(total=1000, available=250, used=600, free=100, cached=200))
    found = values(memory.memory())
    assert found["host_memory_size_bytes",] == 1000
    assert found["host_memory_available_bytes",] == 250
    assert found["host_memory_usage_ratio",] == 0.75
    assert found["gauge_mem_usage", "Memory"] == 75
    assert ("host_memory_slab_bytes",) not in found, "this kernel does not say"


def test_swap(fake: Fake) -> None:
    fake(swap_memory=SimpleNamespace(total=100, used=25, free=75, percent=25.0, sin=1, sout=2))
    found = values(memory.swap())
    assert found["host_swap_usage_ratio",] == 0.25
    assert found["host_swap_in_bytes_total",] == 1
    assert found["host_swap_out_bytes_total",] == 2
    fake(swap_memory=SimpleNamespace(total=0, used=0, free=0, percent=0, sin=0, sout=0))
    assert values(memory.swap())["host_swap_usage_ratio",] == 0


MOUNTS = r"""proc /proc proc rw,relatime 0 0
/dev/vda1 / ext4 rw,relatime 0 0
/dev/vdb1 /srv/my\040data\134x xfs ro,relatime 0 0
tmpfs /run tmpfs rw 0 0
overlay /var/lib/docker/overlay2/abc/merged overlay rw 0 0
server:/export /mnt/nfs nfs4 rw 0 0
"""
BLOCKS = {"f_bsize": 4096, "f_frsize": 1024, "f_blocks": 100, "f_bfree": 40, "f_bavail": 30}
STATVFS = os.statvfs_result((*BLOCKS.values(), 50, 20, 20, 0, 255))


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    (tmp_path / "1").mkdir()
    monkeypatch.setattr(storage, "PROC", tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda _: STATVFS)

    def write(text: str) -> None:
        (tmp_path / storage.HOST).write_bytes(os.fsencode(text))

    return write


def test_filesystems_of_the_host(mounts: Callable[[str], None]) -> None:
    mounts(MOUNTS)
    found = values(storage.Filesystems(settings())())
    root = ("/dev/vda1", "ext4", "/")
    assert {key[3] for key in found if key[0] == "host_filesystem_size_bytes"} == {
        "/",
        r"/srv/my data\x",
        "/mnt/nfs",
    }
    assert found["host_filesystem_size_bytes", *root] == 102400
    assert found["host_filesystem_used_bytes", *root] == 61440
    assert found["host_filesystem_available_bytes", *root] == 30720
    assert found["host_filesystem_usage_ratio", *root] == pytest.approx(60 / 90)
    assert found["host_filesystem_files_free", *root] == 20
    assert found["host_filesystem_readonly", *root] == 0
    assert found["host_filesystem_readonly", "/dev/vdb1", "xfs", r"/srv/my data\x"] == 1
    assert found["gauge_disk_usage", "Disk"] == pytest.approx(100 * 60 / 90)


def test_filters_of_filesystems_and_the_mount_point_of_the_old_gauge(mounts: Callable[[str], None]) -> None:
    mounts(MOUNTS)
    filters = settings(
        mount_points_exclude="/run|/", filesystem_types_exclude="proc|nfs.?", disk_usage_mount_point="/mnt"
    )
    found = values(storage.Filesystems(filters)())
    assert {key[3] for key in found if key[0] == "host_filesystem_error"} == {
        r"/srv/my data\x",
        "/var/lib/docker/overlay2/abc/merged",
    }
    assert ("gauge_disk_usage", "Disk") not in found


def test_a_file_system_that_hangs_is_told_of_and_left_alone(
    mounts: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts(MOUNTS)
    server_is_back, asked = Event(), []

    def statvfs(point: str) -> os.statvfs_result:
        asked.append(point)
        if point == "/mnt/nfs":
            server_is_back.wait()
        return STATVFS

    monkeypatch.setattr(os, "statvfs", statvfs)
    collect = storage.Filesystems(settings(collector_timeout=0.25))
    nfs = ("server:/export", "nfs4", "/mnt/nfs")
    try:
        for _ in range(3):
            found = values(collect())
            assert found["host_filesystem_error", *nfs] == 1
            assert ("host_filesystem_size_bytes", *nfs) not in found
            assert found["host_filesystem_error", "/dev/vda1", "ext4", "/"] == 0
            assert ("gauge_disk_usage", "Disk") in found
        assert asked.count("/mnt/nfs") == 1
    finally:
        server_is_back.set()


def test_a_file_system_that_refuses_is_told_of(
    mounts: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts("/dev/vda1 / ext4 rw 0 0\n/dev/vdb /secret ext4 rw 0 0\n")

    def statvfs(point: str) -> os.statvfs_result:
        if point == "/secret":
            raise PermissionError(13, "Permission denied")
        return STATVFS

    monkeypatch.setattr(os, "statvfs", statvfs)
    found = values(storage.Filesystems(settings())())
    assert found["host_filesystem_error", "/dev/vdb", "ext4", "/secret"] == 1
    assert found["host_filesystem_error", "/dev/vda1", "ext4", "/"] == 0


def test_without_leave_to_see_the_hosts_mounts_it_takes_its_own(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / storage.OWN).write_text("/dev/vda1 / ext4 ro 0 0\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "PROC", tmp_path)
        assert storage.mounts() == [storage.Mount("/dev/vda1", "/", "ext4", read_only=True)]


def test_disks_without_partitions_and_loops(fake: Fake) -> None:
    disk = SimpleNamespace(
        read_count=1,
        write_count=2,
        read_bytes=3,
        write_bytes=4,
        read_time=5,
        write_time=6,
        read_merged_count=7,
        write_merged_count=8,
        busy_time=9,
    )
    names = ["sda", "sda1", "nvme0n1", "nvme0n1p2", "loop3", "dm-0", "vda", "mmcblk0p1", "zram0"]
    fake(disk_io_counters=dict.fromkeys(names, disk))
    found = values(storage.Disks(settings().disk_devices_exclude)())
    assert {device for _, device in found} == {"sda", "nvme0n1", "dm-0", "vda"}
    assert found["host_disk_reads_total", "sda"] == 1
    assert found["host_disk_written_bytes_total", "sda"] == 4
    assert found["host_disk_read_seconds_total", "sda"] == pytest.approx(0.005)
    assert found["host_disk_busy_seconds_total", "sda"] == pytest.approx(0.009)
    fake(disk_io_counters=None)  # no disk at all, says psutil
    assert values(storage.Disks("")()) == {}


def test_interfaces(fake: Fake) -> None:
    traffic = SimpleNamespace(
        bytes_sent=1, bytes_recv=2, packets_sent=3, packets_recv=4, errin=5, errout=6, dropin=7, dropout=8
    )
    up, down = (
        SimpleNamespace(isup=isup, mtu=1500, speed=speed) for isup, speed in ((True, 1000), (False, 0))
    )
    fake(
        net_io_counters=dict.fromkeys(["lo", "eth0", "wlan0", "veth12ab"], traffic),
        net_if_stats={"lo": up, "eth0": up, "wlan0": down, "veth12ab": up},
    )
    found = values(network.Interfaces(settings().network_devices_exclude)())
    assert {device for _, device in found} == {"eth0", "wlan0"}
    assert found["host_network_receive_bytes_total", "eth0"] == 2
    assert found["host_network_transmit_bytes_total", "eth0"] == 1
    assert found["host_network_receive_errors_total", "eth0"] == 5
    assert found["host_network_transmit_drops_total", "eth0"] == 8
    assert found["host_network_up", "eth0"] == 1
    assert found["host_network_up", "wlan0"] == 0
    assert found["host_network_speed_bytes", "eth0"] == 125_000_000
    assert ("host_network_speed_bytes", "wlan0") not in found, "0 means that it is not known"


def test_load(fake: Fake) -> None:
    fake(getloadavg=(1.5, 2.5, 3.5))
    found = values(system.load())
    assert found == {("host_load1",): 1.5, ("host_load5",): 2.5, ("host_load15",): 3.5}


def test_processes_by_state_although_one_has_just_ended(fake: Fake) -> None:
    def ended() -> str:
        raise psutil.NoSuchProcess(1)

    states = ["sleeping", "sleeping", "running", "disk-sleep", "waking"]
    fake(
        process_iter=[
            *(SimpleNamespace(status=lambda state=state: state) for state in states),
            SimpleNamespace(status=ended),
        ]
    )
    found = values(system.processes())
    assert found["host_processes", "sleeping"] == 2
    assert found["host_processes", "disk_sleep"] == 1
    assert found["host_processes", "waking"] == 1
    assert found["host_processes", "zombie"] == 0


def thermometer(name: str, current: float, high: float | None = None) -> SimpleNamespace:
    return SimpleNamespace(label=name, current=current, high=high, critical=None)


def test_thermometers_of_the_same_name_are_told_apart(fake: Fake) -> None:
    fake(
        sensors_temperatures={
            "nvme": [thermometer("Composite", 40, 80), thermometer("Composite", 50)],
            "acpitz": [thermometer("", 30)],
        }
    )
    found = values(sensors.temperatures())
    assert found["host_temperature_celsius", "nvme", "Composite"] == 40
    assert found["host_temperature_celsius", "nvme", "Composite 2"] == 50
    assert found["host_temperature_celsius", "acpitz", "temp1"] == 30
    assert found["host_temperature_high_celsius", "nvme", "Composite"] == 80
    assert len(found) == 4


@pytest.mark.parametrize(
    ("left", "plugged", "expected"),
    [
        (3600, False, {"charge_ratio": 0.5, "power_plugged": 0, "remaining_seconds": 3600}),
        (psutil.POWER_TIME_UNLIMITED, True, {"charge_ratio": 0.5, "power_plugged": 1}),
        (psutil.POWER_TIME_UNKNOWN, None, {"charge_ratio": 0.5}),
    ],
)
def test_battery(fake: Fake, left: int, plugged: bool | None, expected: dict[str, float]) -> None:
    fake(sensors_battery=SimpleNamespace(percent=50, secsleft=left, power_plugged=plugged))
    assert values(sensors.battery()) == {(f"host_battery_{key}",): value for key, value in expected.items()}


def test_no_battery(fake: Fake) -> None:
    fake(sensors_battery=lambda: None)
    assert sensors.battery() == []


def test_what_this_machine_says_agrees_with_psutil_itself() -> None:
    collectors = build(settings())
    assert tuple(collectors) == COLLECTORS
    found = values([metric for collect in collectors.values() for metric in collect()])
    assert found["host_memory_size_bytes",] == psutil.virtual_memory().total
    assert found["host_cpu_logical_cores",] == psutil.cpu_count()
    assert found["host_boot_time_seconds",] == psutil.boot_time()
    assert found["gauge_disk_usage", "Disk"] == pytest.approx(psutil.disk_usage("/").percent, abs=1)
    assert found["gauge_mem_usage", "Memory"] == pytest.approx(psutil.virtual_memory().percent, abs=10)
    assert sum(value for key, value in found.items() if key[0] == "host_processes") > 1


NAMES = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=12)


@pytest.mark.slow
@given(names=st.lists(NAMES, max_size=4), raw=st.binary(max_size=60))
def test_whatever_mounts_and_devices_are_called_the_page_can_be_read(names: list[str], raw: bytes) -> None:
    """Names may be any bytes; a page that cannot be encoded or parsed would lose every metric."""
    lines = os.fsencode("".join(f"{name} /{name} ext4 rw 0 0\n" for name in names if name.isprintable()))

    def collect() -> list[Metric]:
        return [*filesystems(), *interfaces()]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda _: lines + raw)
        patch.setattr(os, "statvfs", lambda _: STATVFS)
        link = SimpleNamespace(isup=True, mtu=1, speed=1)
        patch.setattr(psutil, "net_if_stats", lambda: dict.fromkeys([*names, os.fsdecode(raw)], link))
        filesystems, interfaces = storage.Filesystems(settings()), network.Interfaces("")
        registry = CollectorRegistry()
        registry.register(Rounds({"all": collect}, lambda _: 60, 60))
        page = generate_latest(registry).decode("utf-8")
    samples = [
        (sample.name, *sorted(sample.labels.items()))
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    ]
    assert len(samples) == len(set(samples)), "Prometheus refuses a page with the same series twice"
    assert 'metrics_collector_success{collector="all"} 1.0' in page
