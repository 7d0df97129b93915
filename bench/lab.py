"""Measure ``make lab``: the first time in a fresh clone, and again when everything is there.

Clones the last commit to a temporary folder, with a home of its own, so that nothing is there that earlier
runs downloaded or built: no virtual environment, no wheels, no host image. Debian packages that this machine
already has are named. In the end ``make lab-down`` has to leave nothing behind. The last line is the two
times and their goals; exit code 1 when one is missed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import end_properly, say, verdict
from bench.fleet import BenchError, conditions
from lab import ROOT, apt, engine, image, preflight, prepare
from lab.components import ENDPOINTS
from lab.console import LabError, output

MAX_FIRST = 600.0
MAX_AGAIN = 60.0
LIMITS = {"lab": 1200, "lab-down": 300}
"""Seconds after which a target has failed."""


def environment(home: Path) -> dict[str, str]:
    """Return this environment as a user has it who has just logged in at the home folder."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LAB_", "MAKE", "MFLAGS", "ANSIBLE_", "XDG_", "VIRTUAL_ENV"))
    }
    path = [folder for folder in os.environ["PATH"].split(":") if not folder.startswith(str(ROOT))]
    settings = Path("~/.config/pip/pip.conf").expanduser()
    pip = {"PIP_CONFIG_FILE": str(settings)} if settings.exists() else {}
    return {**kept, **pip, "PATH": ":".join(path), "HOME": str(home)}


def make(target: str, clone: Path, variables: dict[str, str]) -> float:
    """Run a target of the clone's Makefile, visibly; return the seconds it took.

    Raises:
        BenchError: it failed.

    """
    say(f"--- make {target}")
    began = time.monotonic()
    process = subprocess.Popen(["make", "--no-print-directory", target], cwd=clone, env=variables)  # noqa: S603, S607
    try:
        code = process.wait(timeout=LIMITS[target])
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"make {target} did not end within {LIMITS[target]} s") from error
    finally:
        process.terminate()
        process.wait()
    if code:
        raise BenchError(f"make {target} failed (exit code {code})")
    return time.monotonic() - began


def left_behind(clone: Path) -> list[str]:
    """Return what Podman still holds of a checkout."""
    mark = f"label={engine.OWNER}={engine.checkout_id(clone)}"
    name = f"fleetwatch-{engine.checkout_id(clone)}"
    return [
        *(entry["Names"][0] for entry in engine.podman_json("ps", "--all", "--filter", mark) or []),
        *(entry["name"] for entry in engine.podman_json("network", "ls") or [] if name in entry["name"]),
        *(
            tag
            for entry in engine.podman_json("image", "ls", "--filter", mark) or []
            for tag in entry["Names"]
        ),
    ]


def measure(folder: Path) -> tuple[float, float]:
    """Return the seconds of the first and the second ``make lab`` in a clone below ``folder``.

    Raises:
        BenchError: a target failed, or ``make lab-down`` left something.

    """
    clone, home = folder / "fleetwatch", folder / "home"
    home.mkdir()
    output(["git", "clone", "--quiet", "--no-hardlinks", ROOT, clone])
    variables = environment(home)
    try:
        first = make("lab", clone, variables)
        again = make("lab", clone, variables)
    finally:
        make("lab-down", clone, variables)
    if left := left_behind(clone):
        raise BenchError(f"make lab-down left behind: {', '.join(left)}")
    return first, again


def main() -> int:
    """Run the benchmark and return the exit code."""
    end_properly()
    problems = [problem for entry in ENDPOINTS if (problem := preflight.port_problem(entry.default))]
    if problems:
        say("the benchmark needs the ports of the lab:\n  " + "\n  ".join(problems))
        return 1
    wanted = [*prepare.PACKAGES, engine.runtime()]
    missing = apt.missing(wanted)
    there = [package for package in wanted if package not in missing]
    commit = output(["git", "log", "-1", "--format=%h %s"], cwd=ROOT).strip()
    say(f"commit {commit}; {conditions()}")
    say(f"Debian packages already here: {' '.join(there) or 'none'}")
    say(f"Debian packages to be installed: {' '.join(missing) or 'none'}")
    say("nothing else is: no virtual environment, no downloaded wheels, no host image, no hosts")
    if wheels := os.environ.get("PIP_FIND_LINKS"):
        say(f"pip is told to look for wheels in {wheels} too")
    try:
        with tempfile.TemporaryDirectory(prefix="fleetwatch-bench-", dir=image.BUILD) as folder:
            first, again = measure(Path(folder))
    except (BenchError, LabError) as error:
        say(str(error))
        return 1
    good = first <= MAX_FIRST and again <= MAX_AGAIN
    return verdict(
        f"make lab: {first:.0f} s (goal: at most {MAX_FIRST:.0f} s), again: {again:.0f} s"
        f" (goal: at most {MAX_AGAIN:.0f} s)",
        reached=good,
    )


if __name__ == "__main__":
    sys.exit(main())
