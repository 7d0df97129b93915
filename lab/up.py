"""``make lab``, ``make lab-status`` and ``make lab-down``."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import CACHE, ROOT, STATE, VENV, grafana, image, inventory, prepare, tools, venv
from lab.components import ENDPOINTS, NotYetError, simulated, targets
from lab.console import HEARTBEAT, Console, LabError, Watcher
from lab.hosts import Fleet, Host, Spec, plan
from lab.settings import Settings, ensure_secrets

LIVE_SECONDS = 180
"""How long the whole path may take to come alive after the playbook."""

NEXT = """
Try next:
  make lab-alert                      play an incident and follow it to the mailbox
  open http://127.0.0.1:8025          read the mail; http://127.0.0.1:9090 has metrics and rules
  open http://127.0.0.1:5001          the incidents: log in as lab, with lab_password of .lab/secrets.yml
  add `web1:` below node_exporter in inventory/lab/hosts.yml and run make lab again
"""


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        what: the component.
        where: its URL.
        state: in words.
        fine: whether it is as it should be.

    """

    what: str
    where: str
    state: str
    fine: bool


class Playbook(Watcher):
    """Shows the plays of ``ansible-playbook`` and, in its heartbeat, the task; counts changes."""

    changed = 0

    def show(self, line: str) -> str | None:
        """Return the name of a play."""
        if found := re.match(r"\S+\s+: ok=\d+\s+changed=(\d+)", line):
            self.changed += int(found[1])
        play = re.match(r"PLAY \[(.+?)\]", line)
        return play[1] if play else None

    def state(self, line: str) -> str | None:
        """Return the name of a task."""
        task = re.match(r"TASK \[(?:fleetwatch\.monitoring\.)?(.+?)\]", line)
        return task[1] if task else None


def up(console: Console) -> None:
    """Make the lab run and wait until the whole alert path is live.

    Raises:
        LabError: something stands in the way, or failed.

    """
    with _alone():
        settings = Settings.load(os.environ)
        fleet = Fleet("lab", console)
        missing = _check(settings, fleet, console)
        prepare.install(missing, console)
        venv.ensure(console)
        tools.ensure(console)
        settings.save()
        ensure_secrets()
        wanted = inventory.read()
        specs = inventory.specs(wanted, settings.release)
        changes = _hosts(fleet, specs, console) + _site(console) + _departed(fleet, specs, console)
        with console.phase("The whole path: scrape, rules, Alertmanager, receiver, mailbox"):
            rows = wait(lambda: look(wanted, fleet.hosts()), console, seconds=LIVE_SECONDS)
    show(rows, console)
    said = f"Changes made: {changes}." if changes else "Nothing had to be changed."
    console.say(f"\nThe lab runs. It took {time.monotonic() - console.started:.0f} s. {said}\n{NEXT}")


def status(console: Console) -> bool:
    """Print the table of what runs now.

    Returns:
        Whether everything is as it should be.

    """
    hosts = Fleet("lab", console).hosts() if venv.current() and shutil.which("podman") else {}
    if not hosts:
        console.say("There is no lab. Start it: make lab")
        return False
    rows = look(inventory.read(), hosts)
    show(rows, console)
    return all(row.fine for row in rows)


def down(console: Console) -> None:
    """Remove the lab's hosts, network, images and state, also when only half of it is there."""
    removed, existed = 0, STATE.exists()
    stayed: list[str] = []
    with _alone():
        if shutil.which("podman"):
            removed = Fleet("lab", console).remove()
            stayed = image.remove()
        shutil.rmtree(STATE, ignore_errors=True)
    if existed or removed:
        console.say(f"Removed: {removed} hosts, their network, the host images, and .lab with its secrets.")
    else:
        console.say("There was no lab.")
    for name in stayed:
        console.say(f"Kept: the image {name}, because hosts of a test run on it.")
    console.say("Kept: Debian packages, .venv and .cache (make clean removes the latter two).")


def look(wanted: dict[str, Any], hosts: dict[str, Host]) -> list[Row]:
    """Look at everything that the lab serves, and at its containers.

    Args:
        wanted: the inventory, as ``ansible-inventory --list`` prints it.
        hosts: the hosts that exist.

    """
    stopped = [name for name, host in hosts.items() if not host.running]
    state = f"stopped: {', '.join(stopped)}" if stopped else f"{len(hosts)} run"
    return [*services(wanted), Row("hosts", "ssh -F .lab/ssh_config <host>", state, fine=not stopped)]


def services(wanted: dict[str, Any], state: Path = STATE) -> list[Row]:
    """Look at everything that the lab serves.

    Args:
        wanted: the inventory, as ``ansible-inventory --list`` prints it.
        state: directory of the lab's state.

    """
    secrets = state.relative_to(ROOT) / "secrets.yml"
    served = inventory.published(wanted)
    rows = [_row(entry.endpoint.title, entry.url, entry.endpoint.check) for entry in served]
    urls = {entry.endpoint.group: entry.url for entry in reversed(served)}
    if prometheus := urls.get("prometheus"):
        watched = inventory.watched(wanted)
        rows.append(_row("targets", f"{prometheus}/targets", lambda _: targets(prometheus, watched)))
        if "metrics_simulator" in urls:
            where = f"{prometheus}/graph?g0.expr=custom_cpu_usage"
            rows.append(_row("simulated metrics", where, lambda _: simulated(prometheus)))
    if receiver := urls.get("alert_receiver"):
        rows.append(Row("incidents", receiver, f"log in as lab; lab_password in {secrets}", fine=True))
    if address := urls.get("grafana"):
        login = f"log in as admin; grafana_admin_password in {secrets}"
        rows.append(Row("dashboards", address, login, fine=True))
    return rows


def show(rows: list[Row], console: Console) -> None:
    """Print a table."""
    table = [("what", "where", "state"), *((row.what, row.where, row.state) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in (0, 1)]
    console.say()
    for what, where, state in table:
        console.say(f"  {what:<{widths[0]}}  {where:<{widths[1]}}  {state}")


@contextmanager
def _alone() -> Iterator[None]:
    """Refuse to work on one lab twice at a time."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lab.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LabError("another make lab or lab-down of this checkout is at work: wait for it") from error
        yield


def _check(settings: Settings, fleet: Fleet, console: Console) -> list[str]:
    """Check everything before anything is changed; return the missing Debian packages."""
    prepare.check_basics()
    grafana.choose(settings, console)
    existing = fleet.hosts() if shutil.which("podman") else {}
    mine = {port for host in existing.values() if host.running for port in host.spec.ports}
    if venv.current():
        found = inventory.read()
        ports = {entry.port for entry in inventory.published(found)}
        create = plan(inventory.specs(found, settings.release), existing).create
        hosts, releases = len(create), {spec.release for spec in create}
    else:
        ports = {endpoint.default for endpoint in ENDPOINTS}
        hosts, releases = 3 + settings.nodes, {settings.release}
    return prepare.check(hosts=hosts, releases=releases, ports=sorted(ports - mine))


def _hosts(fleet: Fleet, wanted: list[Spec], console: Console) -> int:
    """Make the hosts and return the number of changes."""
    for release in sorted({spec.release for spec in plan(wanted, fleet.hosts()).create}):
        image.ensure(release, console)
    with console.phase(f"Hosts: {', '.join(spec.name for spec in wanted)}"):
        done = fleet.apply(wanted, prune=False)
        made = [f"{spec.name} (Debian {spec.release})" for spec in done.create]
        for verb, names in (("removed", done.remove), ("made", made), ("started", done.start)):
            if names:
                console.note(f"{verb}: {', '.join(names)}")
    return len(done.remove) + len(done.create) + len(done.start)


def _departed(fleet: Fleet, wanted: list[Spec], console: Console) -> int:
    """Remove hosts that left the inventory, now that nothing watches them; return their number."""
    gone = plan(wanted, fleet.hosts()).remove
    if gone:
        with console.phase(f"Hosts that left the inventory: {', '.join(gone)}"):
            fleet.apply(wanted)
    return len(gone)


def _site(console: Console) -> int:
    """Run the playbook and return the number of changes."""
    playbook = Playbook()
    with console.phase("Fleetwatch: ansible-playbook site.yml -i inventory/lab"):
        console.run(
            [VENV / "bin" / "ansible-playbook", "site.yml", "-i", "inventory/lab"],
            log="site",
            watcher=playbook,
            env={"PATH": f"{VENV / 'bin'}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"},
            cwd=ROOT,
        )
    return playbook.changed


def wait(see: Callable[[], list[Row]], console: Console, *, seconds: float, state: Path = STATE) -> list[Row]:
    """Wait until everything is as it should be.

    Args:
        see: looks at it.
        console: where it is said what is waited for.
        seconds: how long it may take.
        state: directory of the lab's state.

    Returns:
        What was seen last.

    Raises:
        LabError: it took longer.

    """
    began = said = time.monotonic()
    while True:
        rows = see()
        waiting = [f"{row.what}: {row.state}" for row in rows if not row.fine]
        if not waiting:
            return rows
        now = time.monotonic()
        if now - began > seconds:
            raise LabError(
                f"after {seconds:.0f} s the lab is not live:\n"
                + "\n".join(f"    {line}" for line in waiting)
                + f"\nLook into a host: ssh -F {state.relative_to(ROOT)}/ssh_config <host> journalctl -e"
            )
        if now - said > HEARTBEAT:
            said = now
            console.note(f"... {now - began:.0f} s: {waiting[0]}")
        time.sleep(0.5)


def _row(what: str, url: str, check: Callable[[str], str]) -> Row:
    try:
        return Row(what, url, check(url), fine=True)
    except NotYetError as reason:
        return Row(what, url, str(reason), fine=False)
