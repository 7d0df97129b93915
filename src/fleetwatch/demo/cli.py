"""The command line: runs API or worker, checks the settings, changes the behaviour of a running API."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fleetwatch.demo import MAX_INSTANCES, WORKER

if TYPE_CHECKING:
    from fleetwatch.demo.settings import Settings

_PROGRAM = "python3 -m fleetwatch.demo"


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    options = parse(argv)
    if options.command == "api":
        # What a process does not need it does not import: see fleetwatch.common.wsgi.
        from fleetwatch.demo import serve  # noqa: PLC0415

        serve.PROGRAM.run(argv)
        return 0
    if options.command == "worker":
        from fleetwatch.demo import worker  # noqa: PLC0415

        return worker.run(settings_of(options, WORKER), options.instance)
    if options.command == "behaviour":
        from fleetwatch.demo import behaviour  # noqa: PLC0415

        return behaviour.command(settings_of(options, "transactions"), options)
    settings_of(options, "transactions")
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; end the program when it is wrong."""
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("api", "serve the API until SIGTERM"),
        ("worker", "settle transactions until SIGTERM"),
        ("check", "check the settings and exit"),
        ("behaviour", "show or change how many requests fail and how slow they are"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--config", type=Path, metavar="FILE", help="settings file (YAML)")
        if name in ("api", "worker"):
            command.add_argument(
                "--instance",
                type=_instance,
                required=True,
                metavar="N",
                help="number of the instance, from 1",
            )
        elif name == "behaviour":
            command.add_argument("--error-rate", type=float, metavar="SHARE", help="0 to 1")
            command.add_argument("--latency", type=float, metavar="SECONDS", help="0 to 10, the median")
            command.add_argument(
                "--seconds", type=float, default=120, help="how long, 1 to 3600; default %(default)s"
            )
            command.add_argument("--reset", action="store_true", help="go back to what the settings say")
    options = parser.parse_args(argv)
    if (
        options.command == "behaviour"
        and options.reset
        and (options.error_rate, options.latency) != (None, None)
    ):
        parser.error("--reset goes alone")
    return options


def settings_of(options: argparse.Namespace, service: str) -> Settings:
    """Read the settings; end the program with one line when they are wrong."""
    from fleetwatch.common.settings import SettingsError, fail, read  # noqa: PLC0415
    from fleetwatch.demo.settings import Settings  # noqa: PLC0415

    try:
        return read(Settings, options.config)
    except SettingsError as error:
        fail(service, str(error))


def _instance(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_INSTANCES:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {MAX_INSTANCES}")
    return int(text)
