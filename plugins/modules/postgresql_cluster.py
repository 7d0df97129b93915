#!/usr/bin/python
"""Ansible module: the configuration of a PostgreSQL cluster, proved before it is live."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_cluster
short_description: Configure and run a PostgreSQL cluster of Debian, and prove each change before it is live
description:
  - Writes the settings as C(conf.d/fleetwatch.conf), all of C(pg_hba.conf), and a drop-in for the unit.
  - The server's own program reads the new settings before anything is changed, and the running server the
    new C(pg_hba.conf) before it takes it. What they refuse fails with their words.
  - The server reloads. It is restarted only when it says itself that a setting waits for it, or when the
    drop-in changed.
  - When it does not take the change, the files that were there before are put back and activated, and the
    task fails with the last lines of the server's log.
  - Settings for memory are derived from the memory to tune for; each may be set in O(settings) instead.
    C(shared_buffers) is a quarter of it, from 64 MiB to 16 GiB. C(effective_cache_size) is a half.
    C(maintenance_work_mem) is a sixteenth, from 16 MiB to 1 GiB. C(work_mem) is what C(shared_buffers)
    leaves, divided by four times C(max_connections), from 4 to 64 MiB.
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  name:
    description: Name of the cluster.
    type: str
    default: main
  version:
    description: Major version of the cluster; empty for the only one that there is.
    type: str
    default: ""
  memory:
    description: MiB of memory to tune for; 0 for those of the host.
    type: int
    default: 0
  settings:
    description: Settings of C(postgresql.conf). A list is joined with commas, V(null) drops what is derived.
    type: dict
    default: {}
  hba:
    description: Who may connect by TCP, in this order. By the local socket, users of the same name may.
    type: list
    elements: dict
    default: []
    suboptions:
      type:
        description: V(hostssl) takes only connections with TLS, V(hostnossl) only those without.
        type: str
        choices: [host, hostssl, hostnossl]
        default: host
      database:
        description: Database, or V(all), or V(replication) for standbys.
        type: str
        required: true
      user:
        description: User, or V(all).
        type: str
        required: true
      address:
        description: Network such as V(10.0.0.0/8), address, name of a host, or V(samehost), V(samenet).
        type: str
        required: true
      method:
        description: How the user proves who it is.
        type: str
        choices: [scram-sha-256, cert, reject]
        default: scram-sha-256
  drop_in:
    description: Content of a drop-in for the cluster's unit. It belongs to this cluster alone.
    type: str
    required: true
  restart:
    description: Whether a setting that needs it may restart a running server; else it waits, with a warning.
    type: bool
    default: true
  timeout:
    description: Seconds to wait until the server is ready.
    type: int
    default: 180
author:
  - Fleetwatch
"""

EXAMPLES = r"""
- name: Run PostgreSQL
  fleetwatch.monitoring.postgresql_cluster:
    settings:
      listen_addresses: [localhost, 10.0.0.7]
      log_lock_waits: true
    hba:
      - database: shop
        user: shop
        address: 10.0.0.0/24
    drop_in: |
      [Service]
      ProtectHome=true
"""

RETURN = r"""
version:
  description: Major version of the cluster.
  returned: when there is one
  type: str
unit:
  description: Its systemd unit.
  returned: when there is one
  type: str
changed_files:
  description: Paths that were written.
  returned: always
  type: list
  elements: str
activated:
  description: What was done, V(start), V(reload), V(restart), V(enable), or nothing.
  returned: always
  type: str
"""

import fnmatch  # noqa: E402 - Ansible's documentation blocks come first
import grp  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import shutil  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.fleetwatch.monitoring.plugins.module_utils.managed_file import (  # noqa: E402
    ManagedFile,
    NotAFileError,
)
from ansible_collections.fleetwatch.monitoring.plugins.module_utils.postgresql import (  # noqa: E402
    ADMINISTRATOR,
    Cluster,
    NoServerError,
    PostgresError,
    Session,
    find_cluster,
)
from ansible_collections.fleetwatch.monitoring.plugins.module_utils.systemd import (  # noqa: E402
    Systemd,
    SystemdError,
)

UNIT_DIR = Path("/etc/systemd/system")
# Marks a change that was written but not yet activated. A reboot activates it, hence /run.
PENDING_DIR = Path("/run/fleetwatch")
SETTINGS_FILE = "conf.d/fleetwatch.conf"
HBA_FILE = "pg_hba.conf"
ALL_CLUSTERS = "postgresql.service"
"""Starts, at boot, every cluster that /etc/postgresql/*/*/start.conf does not exempt."""
FILE_MODE = 0o640
UNIT_MODE = 0o644
DIR_MODE = 0o755
POLL_SECONDS = 0.2
LOG_LINES = 15
CONNECTIONS = 100
"""Of PostgreSQL itself, where max_connections is not set."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)?")
_INCLUDES = re.compile(r"^\s*include_dir\s*=?\s*'conf\.d'", re.MULTILINE)
COPY = """
umask 077
cp -L "$1/postgresql.conf" "$2" || exit
cp -RL "$1/conf.d" "$2" # what it cannot read, the server could not either
mkdir -p "$2/conf.d" && rm -rf "$2/$3" && cat >"$2/$3"
"""
"""Copies a cluster's configuration (1) to a folder (2), with other settings (3) from the standard input."""
_PASSWORD = re.compile(r"passw(?:or)?d\s*=", re.IGNORECASE)
"""As in primary_conninfo; ldap and others have their passwords elsewhere."""
_HBA_WORD = re.compile(r"[^\s\"#,]+")

HEADER = "# Written by Ansible; a change made here is undone by the next run.\n"
LOCAL_HBA = [
    "# Over the local socket, the kernel says who it is: a user of the system is the user of the same name.",
    "local all all peer",
    "local replication all peer",
]


def tuned(memory: int, connections: int) -> dict[str, str]:
    """Return the settings that depend on memory.

    :param memory: MiB to tune for.
    :param connections: max_connections.
    """
    shared = min(max(memory // 4, 64), 16384)
    work = min(max((memory - shared) // (4 * connections), 4), 64)
    return {
        "shared_buffers": f"{shared}MB",
        "effective_cache_size": f"{max(memory // 2, shared)}MB",
        "maintenance_work_mem": f"{min(max(memory // 16, 16), 1024)}MB",
        "work_mem": f"{work}MB",
    }


def host_memory() -> int:
    """Return the host's memory in MiB, rounded down by an eighth at most.

    Another kernel leaves some MiB more or less, for which PostgreSQL is not to restart.
    """
    found = re.search(
        r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE
    )
    mib = int(found[1]) // 1024 if found else 1024
    return mib - mib % max(64, 1 << max(mib.bit_length() - 4, 0))


def conf_value(value: Any) -> str:
    """Return a value as postgresql.conf writes it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int | float):
        return str(value)
    text = ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def settings_text(settings: dict[str, Any], memory: int) -> str:
    """Return the content of the file of settings.

    :raises PostgresError: a name or value that no setting can have.
    """
    for name, value in settings.items():
        if not _NAME.fullmatch(name):
            raise PostgresError(f"postgresql_settings: {name!r} is not the name of a setting")
        if isinstance(value, dict) or "\n" in str(value):
            raise PostgresError(f"postgresql_settings: {name} must be one line of text, a number, or a list")
    connections = settings.get("max_connections") or CONNECTIONS
    if not str(connections).isdigit() or not int(connections):
        raise PostgresError(f"postgresql_settings: max_connections must be a number, not {connections!r}")
    wanted = {**tuned(memory, int(connections)), **settings}
    lines = [f"{name} = {conf_value(value)}\n" for name, value in sorted(wanted.items()) if value is not None]
    return HEADER + "".join(lines)


def hba_text(entries: list[dict[str, str]]) -> str:
    """Return the content of pg_hba.conf.

    :raises PostgresError: a word that the file cannot hold.
    """
    lines = []
    for entry in entries:
        for field in ("database", "user", "address"):
            if not _HBA_WORD.fullmatch(entry[field]):
                raise PostgresError(
                    f"postgresql_hba: {field} {entry[field]!r} is not one word; use one entry each"
                )
        lines.append(" ".join(entry[field] for field in ("type", "database", "user", "address", "method")))
    return HEADER + "\n".join([*LOCAL_HBA, *lines]) + "\n"


class Configuration:
    """The cluster that the task describes."""

    def __init__(self, module: AnsibleModule, cluster: Cluster) -> None:
        """Compare what the task asks for with what the host has."""
        self.module = module
        self.params: dict[str, Any] = module.params
        self.cluster = cluster
        # PostgreSQL has a log of its own, for all units.
        self.systemctl = Systemd(module, lambda _: self._log())
        self.session = Session(module.run_command, cluster)
        gid = grp.getgrnam(ADMINISTRATOR).gr_gid
        memory = self.params["memory"] or host_memory()
        folder = cluster.config_dir
        text = settings_text(self.params["settings"], memory)
        self.settings = ManagedFile(folder / SETTINGS_FILE, text, gid, FILE_MODE)
        before = self.settings.before or ""
        self.settings.secret = _PASSWORD.search(text) is not None or _PASSWORD.search(before) is not None
        self.hba = ManagedFile(folder / HBA_FILE, hba_text(self.params["hba"]), gid, FILE_MODE)
        self.drop_in = ManagedFile(
            UNIT_DIR / f"{cluster.unit}.d" / "fleetwatch.conf", HEADER + self.params["drop_in"], 0, UNIT_MODE
        )
        self.changes = [file for file in (self.settings, self.hba, self.drop_in) if file.changed]
        self.pending = PENDING_DIR / f"postgresql-{cluster.version}-{cluster.name}.pending"

    def run(self) -> None:
        """Do the task and leave with Ansible's answer."""
        plan = self._plan()
        if self.changes or plan:
            self._validate()
        if (self.changes or plan) and not self.module.check_mode:
            plan = self._change(plan)
        self.module.exit_json(
            changed=bool(self.changes or plan),
            version=self.cluster.version,
            unit=self.cluster.unit,
            changed_files=[str(file.path) for file in self.changes],
            activated=plan,
            diff=[file.diff for file in self.changes],
        )

    # Planning

    def _plan(self) -> str:
        """Return what is to be done to the server."""
        state = self.systemctl.show(self.cluster.unit)
        if state.get("ActiveState") != "active" or self.cluster.socket() is None:
            return "restart" if state.get("ActiveState") in {"active", "activating"} else "start"
        if self.drop_in in self.changes or state.get("NeedDaemonReload") == "yes":
            return "restart"
        if self.changes or self.pending.exists():
            return "reload"
        if self.params["restart"] and self._waiting_for_restart():
            return "restart"
        return "" if self.systemctl.show(ALL_CLUSTERS).get("UnitFileState") == "enabled" else "enable"

    def _waiting_for_restart(self) -> list[str]:
        rows = self.session.rows("SELECT name FROM pg_settings WHERE pending_restart ORDER BY name")
        return [row["name"] for row in rows]

    # Checking

    def _validate(self) -> None:
        """Have the server's own program read the new settings, in a copy of the configuration."""
        folder = self.cluster.config_dir
        text = (folder / "postgresql.conf").read_text(encoding="utf-8", errors="replace")
        if not _INCLUDES.search(text):
            raise PostgresError(
                f"{folder}/postgresql.conf lacks the line include_dir = 'conf.d'; put it back"
            )
        staging = Path(tempfile.mkdtemp(prefix="postgresql-", dir="/tmp"))  # postgres must reach it
        try:
            shutil.chown(staging, ADMINISTRATOR, ADMINISTRATOR)
            # postgres may link anything into its folder, so it is copied with no more than its own rights.
            copy = ["sh", "-c", COPY, "copy", str(folder), str(staging), SETTINGS_FILE]
            code, out, err = self._as_administrator(copy, str(self.settings.content))
            if code:
                raise PostgresError(
                    f"cannot copy {folder}; nothing was changed: {err.strip() or out.strip()}"
                )
            command = [str(self.cluster.program), "-C", "max_connections", "-c"]
            command += [f"config_file={staging}/postgresql.conf"]
            code, out, err = self._as_administrator(command)
            if code:
                words = f"{out}\n{err}".replace(str(staging), str(folder)).strip()
                raise PostgresError(f"the new settings were refused; nothing was changed. It says:\n{words}")
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _check_hba(self) -> None:
        """Have the running server read the new pg_hba.conf, which it has not taken yet."""
        rows = self.session.rows("SELECT line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL")
        if rows:
            text = str(self.hba.content).splitlines()
            said = "\n".join(f"{text[row['line_number'] - 1]}: {row['error']}" for row in rows)
            raise PostgresError(f"the new pg_hba.conf was refused:\n{said}")

    # Changing

    def _change(self, plan: str) -> str:
        """Write, activate and wait; put everything back when the server does not take it."""
        PENDING_DIR.mkdir(mode=DIR_MODE, exist_ok=True)
        if plan:
            self.pending.touch()
        try:
            for file in self.changes:
                file.path.parent.mkdir(mode=DIR_MODE, exist_ok=True)
                file.apply()
            plan = self._activate(plan)
        except (PostgresError, SystemdError, OSError) as error:
            outcome = self._put_back(plan)
            self.module.fail_json(msg=f"postgresql: {error}\n{outcome}")
        self.pending.unlink(missing_ok=True)
        return plan

    def _put_back(self, plan: str) -> str:
        """Undo a change that failed and return a sentence that says how that went."""
        for file in reversed(self.changes):
            file.restore()
        if not self.changes:
            return "No file had been changed."
        try:
            self.systemctl.must("daemon-reload")
            down = self.cluster.socket() is None
            self._activate("restart" if down or plan != "reload" else "reload")
        except (PostgresError, SystemdError) as error:
            return f"The files from before are back, but the server is still not well: {error}"
        self.pending.unlink(missing_ok=True)
        return "The files from before are back and the server runs with them."

    def _activate(self, plan: str) -> str:
        """Do what is planned, and restart when the server says that a setting needs it."""
        if self.drop_in in self.changes or plan in {"start", "restart"}:
            self.systemctl.must("daemon-reload")
        if plan:
            self.systemctl.must("enable", "--quiet", ALL_CLUSTERS)
        if plan == "reload":
            self._check_hba()
            self._reload()
            waiting = self._waiting_for_restart()
            if waiting and self.params["restart"]:
                plan = "restart"
            elif waiting:
                self.module.warn(
                    f"These settings wait until {self.cluster.unit} is restarted: {', '.join(waiting)}"
                )
        if plan in {"start", "restart"}:
            self.systemctl("reset-failed", self.cluster.unit)
            self.systemctl.must("restart", self.cluster.unit)
            self.systemctl.must("start", ALL_CLUSTERS)
            self._wait_ready()
        if plan:
            self._check_taken()
        return plan

    def _reload(self) -> None:
        """Reload, and see that the server read its files again."""
        loaded = "SELECT pg_conf_load_time()::text AS at"
        before = self.session.rows(loaded)
        self.systemctl.must("reload", self.cluster.unit)
        deadline = time.monotonic() + self.params["timeout"]
        while self.session.rows(loaded) == before:
            if time.monotonic() > deadline:
                raise PostgresError(f"did not read its files again in time.\n{self._log()}")
            time.sleep(POLL_SECONDS)

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + self.params["timeout"]
        while self.cluster.socket() is None:
            self.systemctl.stays_up(self.cluster.unit)
            if time.monotonic() > deadline:
                raise PostgresError(f"not ready after {self.params['timeout']} s.\n{self._log()}")
            time.sleep(POLL_SECONDS)
        self.session.execute("SELECT 1")

    def _check_taken(self) -> None:
        """Refuse what the server could not apply, and warn of what something else overrides."""
        rows = self.session.rows(
            "SELECT f.name, f.sourcefile, f.applied, f.error, coalesce(s.pending_restart, false) AS waits "
            "FROM pg_file_settings f LEFT JOIN pg_settings s USING (name)"
        )
        ours = [row for row in rows if fnmatch.fnmatch(row["sourcefile"] or "", f"*/{SETTINGS_FILE}")]
        applied = {row["name"] for row in rows if row["applied"]}
        # What can only be set at the start is in error here too while it differs; it waits for a restart.
        bad = [row for row in ours if row["error"] and not row["waits"] and row["name"] not in applied]
        if bad:
            said = ", ".join(f"{row['name']} ({row['error']})" for row in bad)
            raise PostgresError(f"the server does not take: {said}\n{self._log()}")
        for row in ours:
            name = row["name"]
            if not row["applied"] and not row["error"] and name in applied:
                self.module.warn(
                    f"{name} is overridden; if by ALTER SYSTEM, undo it: ALTER SYSTEM RESET {name}"
                )

    # Helpers

    def _log(self) -> str:
        try:
            lines = self.cluster.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return f"See {self.cluster.log}."
        return "Its last log lines:\n" + "\n".join(lines[-LOG_LINES:])

    def _as_administrator(self, command: list[str], text: str = "") -> tuple[int, str, str]:
        """Run a command as postgres, with a text on its standard input."""
        result: tuple[int, str, str] = self.module.run_command(
            ["runuser", "-u", ADMINISTRATOR, "--", *command], data=text, binary_data=True, cwd="/"
        )
        return result


def main() -> None:
    """Run the module."""
    word = {"type": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "default": "main"},
            "version": {"type": "str", "default": ""},
            "memory": {"type": "int", "default": 0},
            "settings": {"type": "dict", "default": {}},
            "hba": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "type": {"type": "str", "choices": ["host", "hostssl", "hostnossl"], "default": "host"},
                    "database": word,
                    "user": word,
                    "address": word,
                    "method": {
                        "type": "str",
                        "choices": ["scram-sha-256", "cert", "reject"],
                        "default": "scram-sha-256",
                    },
                },
            },
            "drop_in": word,
            "restart": {"type": "bool", "default": True},
            "timeout": {"type": "int", "default": 180},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    try:
        Configuration(module, find_cluster(module.params["name"], module.params["version"])).run()
    except NoServerError as error:
        if not module.check_mode:
            module.fail_json(msg=f"postgresql: {error}")
        module.exit_json(changed=True, changed_files=[], activated="start")
    except (PostgresError, NotAFileError) as error:
        module.fail_json(msg=f"postgresql: {error}")


if __name__ == "__main__":
    main()
