# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""systemctl for modules that change a service and see that it stays up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

JOURNAL_LINES = 15


class SystemdError(Exception):
    """systemd refused a command, or a unit does not stay up; with the last that was logged of it."""


class Systemd:
    """The host's systemctl."""

    def __init__(self, module: Any, log: Callable[[str], str] | None = None) -> None:
        """Run commands by an ``AnsibleModule``; ``log`` tells of a unit's last words, if not the journal."""
        self.module = module
        self.log = log or self.journal

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Return the exit code and the output, standard and of errors."""
        result: tuple[int, str, str] = self.module.run_command(["systemctl", *arguments])
        return result

    def must(self, *arguments: str) -> None:
        """Run a command whose last argument is a unit, if any is.

        :raises SystemdError: it fails.
        """
        code, out, err = self(*arguments)
        if code:
            words = f"systemctl {' '.join(arguments)} failed: {err.strip() or out.strip()}"
            unit = arguments[-1]
            raise SystemdError(f"{words}\n{self.log(unit)}" if "." in unit else words)

    def show(self, unit: str) -> dict[str, str]:
        """Return the state of a unit."""
        _, out, _ = self("show", "-p", "ActiveState,UnitFileState,MainPID,NRestarts,NeedDaemonReload", unit)
        return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)

    def stays_up(self, unit: str) -> None:
        """Look whether a unit that was started has failed or was restarted since.

        :raises SystemdError: it has.
        """
        state = self.show(unit)
        if state.get("ActiveState") == "failed" or int(state.get("NRestarts") or 0) > 0:
            raise SystemdError(f"{unit} does not stay up.\n{self.log(unit)}")

    def journal(self, unit: str) -> str:
        """Return the last that a unit logged."""
        _, out, _ = self.module.run_command(
            ["journalctl", "--no-pager", "-o", "cat", "-n", str(JOURNAL_LINES), "-u", unit]
        )
        return f"Its last log lines:\n{out.strip()}"
