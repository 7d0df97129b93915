"""Makes this machine ready for the lab and the tests: Debian packages, virtual environment, checkers.

``python3 -m lab.prepare [--only venv]`` does it for the Makefile. Nothing is changed before everything
that can be checked has been checked, and what will be installed has been said.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator

from lab import CACHE, apt, engine, image, preflight, tools, venv
from lab.console import Console, LabError

PACKAGES = (
    "podman",
    "netavark",
    "aardvark-dns",
    "iptables",  # netavark of Debian 12 calls it
    "nftables",  # netavark of Debian 13 calls it
    "mmdebstrap",
    "debian-archive-keyring",
    "openssh-client",
)
TEST_PACKAGES = (
    "postgresql",  # whose server the tests of the store start for themselves
    "redis-server",  # and those of the demo service
    "rabbitmq-server",
    "chromium",  # in which the receiver's page is tried
    "chromium-driver",
    "libfaketime",  # which sets the clock of the services in a test
    "vagrant",  # which reads the Vagrantfile
    "vagrant-libvirt",  # without whose provider it does not
)


class ProblemsError(LabError):
    """What stands in the way, a line each."""

    def __init__(self, problems: Iterable[str]) -> None:
        """Join the lines."""
        super().__init__("\n".join(problems))


def packages(more: Iterable[str] = ()) -> list[str]:
    """Return the Debian packages that are missing here, for the lab and ``more``."""
    wanted = [*PACKAGES, engine.runtime(), *more]
    if not venv.current() and not venv.can_be_made():
        wanted.append("python3-venv")
    return apt.missing(wanted)


def check_basics() -> None:
    """Check that this machine can be worked with at all.

    Raises:
        ProblemsError: it cannot.

    """
    for check_one in (preflight.platform_problem, preflight.root_problem, preflight.capability_problem):
        if problem := check_one():
            raise ProblemsError([problem])
    if problem := preflight.podman_problem():
        raise ProblemsError([problem])


def check(
    *, hosts: int = 0, releases: Iterable[str] = (), ports: Iterable[int] = (), tests: bool = False
) -> list[str]:
    """Check everything else that can be checked without changing anything.

    Args:
        hosts: how many hosts will be made.
        releases: Debian releases of those hosts.
        ports: ports on 127.0.0.1 that have to be free.
        tests: whether the tests will be run too, not the lab alone.

    Returns:
        The Debian packages to install.

    Raises:
        ProblemsError: something stands in the way.

    """
    missing = packages(TEST_PACKAGES if tests else ())
    if problems := list(_problems(missing, hosts, set(releases), ports)):
        raise ProblemsError(problems)
    return missing


def _problems(missing: list[str], hosts: int, releases: set[str], ports: Iterable[int]) -> Iterator[str]:
    environment = not venv.current()
    images = [release for release in releases if "podman" in missing or not image.is_built(release)]
    yield from filter(None, map(preflight.port_problem, ports))
    yield from preflight.disk_problems(
        preflight.disk_needed(
            packages=bool(missing), environment=environment, images=len(images), hosts=hosts
        )
    )
    if missing or images or not tools.complete():
        offline = preflight.mirror_problem()
        yield from filter(None, [offline or (preflight.package_problem(missing) if missing else None)])
    if environment and (problem := preflight.index_problem()):
        yield problem


def install(missing: list[str], console: Console) -> None:
    """Install Debian packages, saying so first.

    Raises:
        LabError: apt refused.

    """
    if missing:
        with console.phase(f"Debian packages: {' '.join(missing)}"):
            apt.install(missing, console)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python3 -m lab.prepare", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--only", choices=["venv"], help="the virtual environment alone")
    options = parser.parse_args()
    console = Console(CACHE / "log")
    try:
        if options.only and venv.can_be_made():
            venv.ensure(console)
            return 0
        check_basics()
        install(check(tests=True), console)
        venv.ensure(console)
        if not options.only:
            tools.ensure(console)
    except LabError as error:
        console.say(f"\n{error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
