# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""A PostgreSQL cluster as Debian lays it out, and SQL by ``psql`` as its administrator.

No driver is needed on the host: ``psql`` is there with the server, and the user ``postgres`` may log in
over the socket without a password. Every failure a user can cause is a :class:`PostgresError` of one line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

CONFIG_ROOT = Path("/etc/postgresql")
PROGRAMS = Path("/usr/lib/postgresql")
LOGS = Path("/var/log/postgresql")
ADMINISTRATOR = "postgres"
_SAID = re.compile(r"^(?:psql: )?(?:error|ERROR|FATAL|DETAIL|HINT|connection to server)\b.*$", re.MULTILINE)

RunCommand = Callable[..., tuple[int, str, str]]
"""AnsibleModule.run_command."""


class PostgresError(Exception):
    """What went wrong, and where it can be said, the cure."""


class NoServerError(PostgresError):
    """The cluster does not exist, or does not run, yet."""


class Cluster(NamedTuple):
    """One cluster: a server with its databases."""

    version: str
    name: str

    @property
    def config_dir(self) -> Path:
        """Where its configuration is."""
        return CONFIG_ROOT / self.version / self.name

    @property
    def unit(self) -> str:
        """Its systemd unit."""
        return f"postgresql@{self.version}-{self.name}.service"

    @property
    def program(self) -> Path:
        """The server's program."""
        return PROGRAMS / self.version / "bin/postgres"

    @property
    def log(self) -> Path:
        """Where the server logs."""
        return LOGS / f"postgresql-{self.version}-{self.name}.log"

    def data_dir(self) -> Path:
        """Return where its data are.

        :raises PostgresError: the configuration does not say.
        """
        text = (self.config_dir / "postgresql.conf").read_text(encoding="utf-8", errors="replace")
        found = re.search(r"^\s*data_directory\s*=\s*'([^']+)'", text, re.MULTILINE)
        if not found:
            raise PostgresError(f"{self.config_dir}/postgresql.conf does not name its data_directory")
        return Path(found[1])

    def socket(self) -> tuple[str, str] | None:
        """Return folder and port of the running server's socket, or None when it is not ready for clients."""
        try:
            lines = (self.data_dir() / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            port, folder, state = lines[3], lines[4], lines[7].strip()
        except (OSError, IndexError):
            return None
        return (folder, port) if state == "ready" else None


def find_cluster(name: str, version: str = "") -> Cluster:
    """Return the cluster of a name.

    :param version: its major version, such as ``17``; empty: the only one that there is.
    :raises NoServerError: there is none.
    :raises PostgresError: there are several, as after an upgrade of Debian.
    """
    found = [path.parent.parent.name for path in CONFIG_ROOT.glob(f"*/{name}/postgresql.conf")]
    if version:
        found = [one for one in found if one == version]
    if not found:
        which = f"{version} {name}" if version else f"VERSION {name}"
        raise NoServerError(f"there is no cluster {name}; make it with pg_createcluster {which}")
    if len(found) > 1:
        versions = " and ".join(sorted(found, key=float))
        raise PostgresError(
            f"there are clusters {name} of versions {versions}; set postgresql_version to the one to use, or "
            "bring them together with pg_upgradecluster and pg_dropcluster"
        )
    return Cluster(found[0], name)


class Session:
    """SQL for one running cluster."""

    def __init__(self, run_command: RunCommand, cluster: Cluster) -> None:
        """Take how commands are run, and the cluster."""
        self._run_command = run_command
        self.cluster = cluster

    def execute(self, sql: str, database: str = "postgres") -> str:
        """Run statements and return what they print.

        The SQL goes by standard input, so that it is in no list of processes.

        :raises NoServerError: the server does not run.
        :raises PostgresError: it refuses; its words, without the statement.
        """
        socket = self.cluster.socket()
        if socket is None:
            raise NoServerError(f"{self.cluster.unit} is not ready")
        command = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", socket[0], "-p", socket[1]]
        code, out, err = self._run_command(
            ["runuser", "-u", ADMINISTRATOR, "--", *command, "-d", database],
            data=sql,
            cwd="/",
            environ_update={"PGCLIENTENCODING": "UTF8", "PGCONNECT_TIMEOUT": "10", "PGAPPNAME": "ansible"},
        )
        if code:
            said = "; ".join(line.strip() for line in _SAID.findall(err)) or "psql failed without a word"
            raise PostgresError(f"database {database}: {said}")
        return out

    def rows(self, sql: str, database: str = "postgres") -> list[dict[str, Any]]:
        """Return the rows of one query, column to value.

        :raises PostgresError: as :meth:`execute`.
        """
        text = self.execute(f"SELECT coalesce(json_agg(r), '[]') FROM ({sql}) AS r", database)  # noqa: S608
        rows: list[dict[str, Any]] = json.loads(text)
        return rows

    def is_standby(self) -> bool:
        """Whether the server only follows another one, so that nothing can be written to it."""
        return bool(self.rows("SELECT pg_is_in_recovery() AS standby")[0]["standby"])


def identifier(name: str) -> str:
    """Return a name as SQL, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as SQL, whatever is in it."""
    return "'" + text.replace("'", "''") + "'"
