"""``python3 -m lab up|status|down``: the lab, see the Makefile."""

from __future__ import annotations

import argparse
import os
import sys

from lab import STATE, up
from lab.console import Console, LabError


def main() -> int:
    """Run the command line; the exit code is 1 when something is not as it should be."""
    parser = argparse.ArgumentParser(prog="python3 -m lab", description=__doc__)
    parser.add_argument("command", choices=["up", "status", "down"])
    command = parser.parse_args().command
    os.umask(0o022)
    console = Console(STATE / "log")
    try:
        if command == "up":
            up.up(console)
        elif command == "down":
            up.down(console)
        else:
            return 0 if up.status(console) else 1
    except LabError as error:
        console.say(f"\n{error}")
        return 1
    except KeyboardInterrupt:
        console.say("\nInterrupted. The same command goes on where this one stopped.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
