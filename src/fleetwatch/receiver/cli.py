"""``fleetwatch-receiver``: what an administrator does by hand or from a playbook.

``python3 -m fleetwatch.receiver.cli`` is the same. Exit code 0: done; 1: it failed, with one line on stderr
that says why; 2: wrong usage or settings.

A subcommand is a module, or a class, with two functions: ``add_arguments(parser)`` and ``run(options)``,
which returns the exit code. ``options.config`` is the settings file, or ``None`` when there is none. It may
raise SettingsError and whatever ``_failures`` lists. It is imported only when it is called for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Protocol

from fleetwatch.common.settings import EXIT_BAD_SETTINGS, SettingsError

PROGRAM = "fleetwatch-receiver"
DEFAULT_CONFIG = Path("/etc/alert_receiver/receiver.yml")

COMMANDS = {
    "migrate": ("fleetwatch.store.commands:Migrate", "make the database's tables, or bring them up to date"),
    "backup": ("fleetwatch.store.commands:Backup", "write the database into one file, while it is in use"),
    "prune": ("fleetwatch.store.commands:Prune", "delete incidents older than the setting retention"),
    "dead-letters": ("fleetwatch.receiver.deadletters:DeadLetters", "list the messages that were given up"),
    "requeue": ("fleetwatch.receiver.deadletters:Requeue", "try messages again that were given up"),
    "render": ("fleetwatch.dispatcher.preview", "show what a message looks like"),
    "test-channels": ("fleetwatch.dispatcher.probe", "send a test message through each channel"),
}
"""Name of each subcommand, where it is, and what it does."""


class Command(Protocol):
    """A subcommand."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the subcommand's own options, and its description for ``--help``."""

    def run(self, options: argparse.Namespace) -> int:
        """Do what the parsed options say and return the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; return the exit code."""
    options, command = _parse(argv)
    try:
        return command.run(options)
    except SettingsError as error:
        return _tell(str(error), EXIT_BAD_SETTINGS)
    except _failures() as error:
        # The text of SQLAlchemy's own errors quotes the statement with its values.
        return _tell(str(getattr(error, "orig", None) or error), 1)


def _parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, Command]:
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Looks after the alert receiver.",
        epilog="commands:\n"
        + "\n".join(f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items())
        + f"\n\n{PROGRAM} COMMAND --help tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_config(parser, DEFAULT_CONFIG if _is_there(DEFAULT_CONFIG) else None)
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    target, text = COMMANDS[options.command]
    command: Command = resolve_name(target)
    own = argparse.ArgumentParser(
        prog=f"{PROGRAM} {options.command}",
        description=f"{text[0].upper()}{text[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_config(own, argparse.SUPPRESS)
    command.add_arguments(own)
    own.parse_args(options.arguments, options)
    return options, command


def _add_config(parser: argparse.ArgumentParser, default: Path | str | None) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=default,
        help=f"settings file; default {DEFAULT_CONFIG}",
    )


def _is_there(file: Path) -> bool:
    """Tell whether there is a file; one that must not be looked at is told of when it is read."""
    try:
        file.stat()
    except OSError as error:
        return not isinstance(error, FileNotFoundError)
    return True


def _failures() -> tuple[type[Exception], ...]:
    """Return what may go wrong without being a fault of the program; imported when it did."""
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    from fleetwatch.store import SchemaError  # noqa: PLC0415
    from fleetwatch.store.maintenance import BackupError  # noqa: PLC0415

    return BackupError, OSError, SchemaError, SQLAlchemyError


def _tell(message: str, code: int) -> int:
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201 - the command's output
    return code


if __name__ == "__main__":
    sys.exit(main())
