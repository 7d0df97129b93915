"""What services use, read from files in the kernel's formats, and from real processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from fleetwatch.collector.collectors import build, cgroups
from fleetwatch.collector.collectors.units import LIMITS_FOR, Units
from fleetwatch.collector.rounds import Rounds
from tests.collector.conftest import IO_STAT, MEMORY_EVENTS, Host, counted, write
from tests.collector.test_collectors import Clock, Values, clock, settings, values
from tests.common.services import wait_until

__all__ = ["clock"]
PAGE = os.sysconf("SC_PAGE_SIZE")
WEB = "web.service"


def collect(**changes: object) -> Callable[[], Values]:
    units = Units(settings(**changes))
    return lambda: values(units())


def names(found: Values) -> set[str]:
    return {key[1] for key in found if key[0] == "host_unit_tasks"}


def test_cgroup_v2(host: Host) -> None:
    web = counted(host.unified() / "system.slice/web.service")
    write(web.parent, memory_events=MEMORY_EVENTS.format(kills=0))
    write(web, io_stat=IO_STAT, cpu_max="150000 100000\n", memory_max="268435456\n")
    (host.block / "253:0/slaves/sdb").mkdir(parents=True)
    (host.block / "8:0/slaves").mkdir(parents=True)
    found = collect()()
    assert found["host_unit_cpu_seconds_total", WEB] == pytest.approx(1.5)
    assert found["host_unit_cpu_limit_cores", WEB] == 1.5
    assert found["host_unit_memory_bytes", WEB] == 80_000_000, "what the kernel may take away does not count"
    assert found["host_unit_memory_limit_bytes", WEB] == 1 << 28
    assert found["host_unit_tasks", WEB] == 5
    assert found["host_unit_io_read_bytes_total", WEB] == 90_431_464, "253:0 lies on 8:16"
    assert found["host_unit_io_written_bytes_total", WEB] == 299_011_000
    assert found["host_unit_oom_kills_total", WEB] == 0
    resources = ("cpu", "memory", "tasks", "io")
    assert {resource: found["host_unit_sources", resource, "cgroup2"] for resource in resources} == (
        dict.fromkeys(resources, 1)
    )


def test_what_has_no_limit_and_no_accounting_has_no_series(host: Host) -> None:
    web = counted(host.unified() / "system.slice/web.service")
    write(web.parent, cgroup_subtree__control="cpu\n")
    for file in ("memory.current", "memory.stat", "memory.max", "memory.events", "pids.current"):
        (web / file).unlink()
    (web / "cgroup.procs").write_text("42\n")
    host.process(42, cpu=9, resident=10, shared=4, threads=3)
    found = collect()()
    assert {key[0] for key in found} == {
        "host_unit_cpu_seconds_total",
        "host_unit_memory_bytes",
        "host_unit_tasks",
        "host_unit_sources",
    }
    assert found["host_unit_cpu_seconds_total", WEB] == pytest.approx(1.5), "the kernel counts it always"
    assert found["host_unit_memory_bytes", WEB] == 10 * PAGE
    assert found["host_unit_tasks", WEB] == 3
    assert found["host_unit_sources", "memory", "proc"] == 1


def test_services_at_any_depth_but_no_scopes_and_no_units_of_users(host: Host) -> None:
    root = host.unified()
    user = root / "user.slice/user-1000.slice"
    for folder in (
        root / "system.slice/web.service",
        root / r"system.slice/system-api.slice/api@1.service",
        root / "system.slice/_cpu.service",
        root / "system.slice/docker-0123.scope/system.slice/of_the_container.service",
        root / "system.slice/web.service/payload.service",
        root / "init.scope",
        user / "user@1000.service",
        user / "user@1000.service/app.slice/editor.service",
        user / "session-1.scope",
    ):
        counted(folder)
    assert names(collect()()) == {WEB, "api@1.service", "cpu.service", "user@1000.service"}


def test_filters(host: Host) -> None:
    root = host.unified()
    for name in ("web", "api@1", "run-u12", "run-p7-i8", f"run-r{'0a' * 16}", "run-backup", "modprobe@fuse"):
        counted(root / f"system.slice/{name}.service")
    assert names(collect()()) == {WEB, "api@1.service", "run-backup.service"}
    assert names(collect(units_include="api@.+", units_exclude="")()) == {"api@1.service"}
    assert "run-u12.service" in names(collect(units_exclude="web.*")())
    assert WEB not in names(collect(units_exclude="web.*")())


@pytest.mark.parametrize(
    "unit",
    [
        "ssh@4-10.0.0.1:22-10.0.0.2:55512",
        "ssh@0-fe80::1:22-fe80::a2:55512",
        "ssh@0-10.0.0.1:22-::ffff:a00:2:55512",
        "systemd-coredump@3-12345-0",
        "systemd-coredump@3-12345_6789-0",
        "varlink@1-unknown",
        "guest@2-3:1024-2:55512",
        "ssh@4-8191-10.0.0.1:22-10.0.0.2:55512",  # with a cookie, since systemd 258
        "systemd-coredump@3-8191-12345_6789-0",
        "varlink@1-8191-unknown",
    ],
)
def test_services_of_a_single_connection_are_left_out(unit: str, host: Host) -> None:
    for name in (unit, "web"):
        counted(host.unified() / f"system.slice/{name}.service")
    assert names(collect()()) == {WEB}


def test_instances_that_stay_are_told_of(host: Host) -> None:
    units = {
        "postgresql@17-main.service",
        "postgresql@9.6-1.service",
        "transactions-api@1.service",
        "getty@tty1.service",
        "serial-getty@ttyS0.service",
        "user@1000.service",
        "openvpn@10.0.0.1:1194.service",
        "relay@10.0.0.1:22-10.0.0.2:22.service",
        "redis-server@6379-1.service",
        "unknown.service",
        "vpn@unknown.service",
    }
    for unit in units:
        counted(host.unified() / "system.slice" / unit)
    assert names(collect()()) == units


def test_in_a_container_units_begin_where_process_1_is(host: Host) -> None:
    root = host.unified(base="/machine/one")
    counted(root / "system.slice/web.service", usage=7_000_000)
    counted(host.cgroups / "system.slice/of_the_host.service")
    found = collect()()
    assert names(found) == {WEB}
    assert found["host_unit_cpu_seconds_total", WEB] == 7


def test_cgroup_v1(host: Host) -> None:
    tree = host.legacy("cpu,cpuacct", "memory", "pids", "blkio")
    path = "system.slice/web.service"
    write(tree["name=systemd"] / path, cgroup_procs="42\n")
    write(
        tree["cpu,cpuacct"] / path,
        cpuacct_usage="1500000000\n",
        cpu_cfs__quota__us="50000\n",
        cpu_cfs__period__us="100000\n",
    )
    write(
        tree["memory"] / path,
        memory_usage__in__bytes="100000000\n",
        memory_stat="cache 5\ninactive_file 1\ntotal_cache 30000000\ntotal_inactive_file 20000000\n",
        memory_limit__in__bytes="9223372036854771712\n",
        memory_oom__control="oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    )
    write(tree["pids"] / path, pids_current="5\n")
    write(
        tree["blkio"] / path,
        blkio_throttle_io__service__bytes__recursive="8:0 Read 1000\n8:0 Write 3000\n8:0 Sync 4000\n"
        "8:0 Total 4000\n8:16 Read 1\n8:16 Write 2\nTotal 4003\n",
    )
    collector = collect()
    found = collector()
    assert found["host_unit_cpu_seconds_total", WEB] == pytest.approx(1.5)
    assert found["host_unit_cpu_limit_cores", WEB] == 0.5
    assert found["host_unit_memory_bytes", WEB] == 80_000_000
    assert ("host_unit_memory_limit_bytes", WEB) not in found
    assert found["host_unit_tasks", WEB] == 5
    assert found["host_unit_io_read_bytes_total", WEB] == 1001
    assert found["host_unit_io_written_bytes_total", WEB] == 3002
    assert found["host_unit_oom_kills_total", WEB] == 0
    assert found["host_unit_sources", "cpu", "cgroup1"] == 1
    write(tree["memory"] / path, memory_oom__control="oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
    assert collector()["host_unit_oom_kills_total", WEB] == 3
    write(tree["memory"] / path, memory_limit__in__bytes="1000\n")
    assert collect()()["host_unit_memory_limit_bytes", WEB] == 1000


def test_a_container_without_controllers_but_with_the_tree_of_cgroup_v2_beside(host: Host) -> None:
    base = "/libpod-0123"
    tree = host.legacy("memory", "cpu", base=base)
    write(tree["name=systemd"] / "system.slice/web.service", cgroup_procs="42\n")
    unified = host.unified(base=base, under="unified")
    write(unified / "system.slice/web.service", cpu_stat="usage_usec 2500000\n", cgroup_procs="42\n")
    host.process(42, cpu=1, resident=3)
    found = collect()()
    assert found["host_unit_cpu_seconds_total", WEB] == 2.5
    assert found["host_unit_memory_bytes", WEB] == 3 * PAGE
    assert found["host_unit_sources", "cpu", "cgroup2"] == found["host_unit_sources", "memory", "proc"] == 1
    assert ("host_unit_memory_limit_bytes", WEB) not in found


class Service:
    """One whose processes are all that tells."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.folder = host.legacy()["name=systemd"] / "system.slice/web.service"
        self._collect = collect()

    def look(self, *pids: int) -> Values:
        write(self.folder, cgroup_procs="".join(f"{pid}\n" for pid in pids))
        return self._collect()

    def cpu(self, *pids: int) -> float:
        return self.look(*pids)["host_unit_cpu_seconds_total", WEB]


@pytest.fixture
def service(host: Host) -> Service:
    return Service(host)


def test_processes_are_summed_and_what_they_share_counts_once(service: Service) -> None:
    service.host.process(42, cpu=2, resident=100, shared=80, threads=3)
    service.host.process(43, cpu=3, parent=42, resident=110, shared=90)
    write(service.folder / "worker", cgroup_procs="44\n")
    service.host.process(44, cpu=4, resident=50)
    found = service.look(42, 43)
    assert found["host_unit_cpu_seconds_total", WEB] == 9
    assert found["host_unit_memory_bytes", WEB] == (20 + 20 + 50 + 90) * PAGE
    assert found["host_unit_tasks", WEB] == 5
    assert found["host_unit_sources", "cpu", "proc"] == 1


def test_cpu_of_what_ended_is_kept_and_never_counted_twice(service: Service) -> None:
    service.host.process(42, cpu=2)
    service.host.process(43, cpu=3, parent=42)
    service.host.process(50, cpu=10)  # its parent is process 1
    assert service.cpu(42, 43, 50) == 15
    service.host.ends(43)
    assert service.cpu(42, 50) == 15, "its parent has not waited for it yet"
    service.host.process(42, cpu=2, children=4)  # it used one second more before its end
    assert service.cpu(42, 50) == 16
    service.host.ends(50)
    assert service.cpu(42) == 16
    service.host.process(42, cpu=5, children=4)
    assert service.cpu(42) == 19
    service.host.process(50, cpu=1)  # a new process with an old number
    assert service.cpu(42, 50) == 20


def test_cpu_of_a_whole_line_that_ended_is_counted_once(service: Service) -> None:
    service.host.process(42, cpu=1)
    service.host.process(43, cpu=1, parent=42)
    service.host.process(44, cpu=10, parent=43)
    assert service.cpu(42, 43, 44) == 12
    for pid in (43, 44):
        service.host.ends(pid)
    service.host.process(42, cpu=1, children=11)  # 43 had waited for 44, and this one for 43
    assert service.cpu(42) == 12


def test_cpu_of_a_whole_line_that_ended_with_nobody_left_to_wait_is_kept(service: Service) -> None:
    service.host.process(42, cpu=1)
    service.host.process(43, cpu=1)
    service.host.process(44, cpu=10, parent=43)
    assert service.cpu(42, 43, 44) == 12
    for pid in (43, 44):
        service.host.ends(pid)
    assert service.cpu(42) == 12
    service.host.process(42, cpu=3)
    assert service.cpu(42) == 14


def test_a_service_that_starts_anew_starts_at_0(service: Service) -> None:
    service.host.process(42, cpu=9)
    assert service.cpu(42) == 9
    held = service.folder.rename(service.folder.with_name("gone"))  # so that the inode is not taken again
    service.host.process(43, cpu=1)
    assert service.cpu(43) == 1
    shutil.rmtree(held)


def test_a_process_that_ends_while_it_is_read_is_left_out(service: Service) -> None:
    service.host.process(42, cpu=9)
    assert service.cpu(42, 77) == 9


@pytest.fixture
def burner() -> Iterator[Popen[bytes]]:
    """Use a processor, in a child that ends over and over."""
    once = "sum(range(300_000))"
    forever = f"import os\nwhile 1:\n if not (p := os.fork()): {once}; os._exit(0)\n os.waitpid(p, 0)"
    process = Popen([sys.executable, "-c", forever])  # noqa: S603 - our own text
    yield process
    process.kill()
    process.wait(60)


@pytest.mark.slow
def test_real_processes(
    service: Service, burner: Popen[bytes], monkeypatch: pytest.MonkeyPatch, clock_ticks: float
) -> None:
    real = Path("/proc")

    def used() -> float:
        """As the kernel counts it: children that ended are in it."""
        fields = (real / f"{burner.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / clock_ticks

    (service.host.proc / str(burner.pid)).symlink_to(real / str(burner.pid))
    wait_until(lambda: used() > 0.3, what="it used the processor")
    before = used()
    found = service.look(burner.pid)
    assert before <= found["host_unit_cpu_seconds_total", WEB] <= used()
    assert before > 0.3, "most of it is that of its children"
    resident = int((real / f"{burner.pid}/statm").read_text().split()[1]) * PAGE
    assert found["host_unit_memory_bytes", WEB] == pytest.approx(resident, rel=0.2)


@pytest.fixture
def clock_ticks() -> float:
    return float(os.sysconf("SC_CLK_TCK"))


class Killer:
    """Services of cgroup v2 of which processes are killed."""

    def __init__(self, host: Host) -> None:
        self.root = host.unified()
        self._kills = 0
        self._parked = 0
        self.units = Units(settings())
        for unit in ("web", "db"):
            counted(self.group(unit))
        self.in_slice(0)

    def group(self, unit: str) -> Path:
        return self.root / f"system.slice/{unit}.service"

    def in_slice(self, kills: int) -> None:
        self._kills += kills
        write(self.root / "system.slice", memory_events=MEMORY_EVENTS.format(kills=self._kills))

    def kill(self, unit: str, kills: int) -> None:
        """Let a service have had this many kills, and live on."""
        write(self.group(unit), memory_events=MEMORY_EVENTS.format(kills=kills))

    def end(self, unit: str) -> None:
        """Let a service end; its number as a file is not given away while the test runs."""
        self._parked += 1
        parked = self.root.parent / f"parked-{self._parked}"
        self.group(unit).rename(parked)

    def counts(self) -> dict[str, float]:
        return {
            key[1]: value for key, value in values(self.units()).items() if key[0].endswith("oom_kills_total")
        }


@pytest.fixture
def killer(host: Host) -> Killer:
    return Killer(host)


NONE = {"system.slice": 0, WEB: 0, "db.service": 0}


def test_kills_that_a_service_survives(killer: Killer) -> None:
    assert killer.counts() == NONE
    killer.kill("web", 2)
    killer.in_slice(2)
    assert killer.counts() == killer.counts() == NONE | {WEB: 2}
    killer.kill("web", 3)
    killer.kill("db", 1)
    killer.in_slice(2)
    assert killer.counts() == NONE | {WEB: 3, "db.service": 1}


def test_a_kill_that_ends_the_service_is_counted_although_its_control_group_is_gone(killer: Killer) -> None:
    assert killer.counts() == NONE
    killer.end("web")
    killer.in_slice(1)
    assert killer.counts() == NONE | {WEB: 1}
    counted(killer.group("web"))  # started again, and killed again, between two scrapes
    assert killer.counts() == NONE | {WEB: 1}
    killer.end("web")
    counted(killer.group("web"))
    killer.in_slice(1)
    assert killer.counts() == NONE | {WEB: 2}
    killer.kill("web", 1)  # the count of the new control group is its own
    killer.in_slice(1)
    assert killer.counts() == NONE | {WEB: 3}


def test_a_kill_of_nobody_known_is_of_the_slice(killer: Killer) -> None:
    assert killer.counts() == NONE
    killer.end("web")
    killer.end("db")
    killer.in_slice(1)
    assert killer.counts()["system.slice"] == 1, "of which one cannot be said"


def test_kills_before_the_collector_began(killer: Killer) -> None:
    killer.kill("web", 4)
    killer.in_slice(9)
    assert killer.counts() == NONE, "they would look as if they were new"
    killer.kill("web", 5)
    killer.in_slice(1)
    assert killer.counts() == NONE | {WEB: 1}


def test_a_service_that_was_killed_is_forgotten_in_the_end(
    killer: Killer,
    clock: Clock,
) -> None:
    assert killer.counts() == NONE
    killer.end("web")
    killer.in_slice(1)
    assert killer.counts()[WEB] == 1
    clock.now += 1800
    assert killer.counts()[WEB] == 1
    clock.now += 1801
    assert killer.counts() == {"system.slice": 0, "db.service": 0}
    assert killer.units._kills._at == {}, "nothing is left of names that may never come again"


def test_a_limit_that_changes_is_seen_within_a_minute(
    host: Host,
    clock: Clock,
) -> None:
    web = counted(host.unified() / "system.slice/web.service")
    collector = collect()
    assert ("host_unit_memory_limit_bytes", WEB) not in collector()
    write(web, memory_max="1000\n")
    clock.now += LIMITS_FOR
    assert collector()["host_unit_memory_limit_bytes", WEB] == 1000


def test_a_service_that_ends_while_it_is_read_has_no_series(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = host.unified()
    counted(root / "system.slice/web.service")
    gone = counted(root / "system.slice/gone.service")
    services = cgroups.Tree.services

    def then_it_ends(tree: cgroups.Tree) -> list[cgroups.Group]:
        found = services(tree)
        shutil.rmtree(gone, ignore_errors=True)
        return found

    monkeypatch.setattr(cgroups.Tree, "services", then_it_ends)
    found = collect()()
    assert found["host_unit_cpu_seconds_total", WEB] > 0
    assert ("host_unit_cpu_seconds_total", "gone.service") not in found
    assert ("host_unit_memory_bytes", "gone.service") not in found


def test_without_systemd_there_is_nothing_to_tell(host: Host) -> None:
    counted(host.unified() / "system.slice/web.service")
    host.booted.rmdir()
    assert collect()() == {}


def test_the_page_is_well_formed(host: Host, promtool: str) -> None:
    root = host.unified()
    for number in range(3):
        counted(root / f"system.slice/api@{number}.service")
    host.says(("api@1.service", "active", 2), ("api@2.service", "failed", 0))
    registry = CollectorRegistry()
    collectors = build(settings(collectors=["units", "unit_states"]))
    registry.register(Rounds(collectors, lambda _: 60, 60))
    page = generate_latest(registry)
    checked = subprocess.run(  # noqa: S603 - all arguments are ours
        [promtool, "check", "metrics"], input=page, capture_output=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
    assert b'host_unit_restarts_total{unit="api@1.service"} 2.0' in page
