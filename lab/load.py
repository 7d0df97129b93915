"""Puts load on the lab's transactions service for a while, with Locust.

    python3 -m lab.load          # LAB_LOAD_SECONDS=60 LAB_LOAD_RATE=20 LAB_LOAD_USERS=10

What is asked, and how often, is in ``locustfile.py`` beside this. Here is the rest: the limits, the target,
which must be of this machine, and what is told of it. Locust runs in this process's place.
"""

from __future__ import annotations

import http.client
import ipaddress
import math
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from lab import ROOT, STATE, VENV
from lab.console import LabError
from lab.hosts import Fleet
from lab.settings import number

URL = "http://127.0.0.1:8000"
"""Where the lab publishes the service."""
LONGEST, FASTEST, MOST_USERS = 3600, 200, 100
"""Limits of the variables."""
INTERVAL = 5.0
"""Seconds between two lines of the summary."""

_TIMEOUT = 10.0  # seconds


@dataclass(frozen=True)
class Load:
    """How much load there is to be.

    Attributes:
        url: of the service (LAB_TRANSACTIONS_URL).
        seconds: how long (LAB_LOAD_SECONDS).
        rate: requests a second at most, all users together (LAB_LOAD_RATE).
        users: how many ask at the same time, each one request after the other (LAB_LOAD_USERS).

    """

    url: str = URL
    seconds: int = 60
    rate: int = 20
    users: int = 10

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Return what the environment says, else the defaults.

        Raises:
            LabError: a variable has no possible value.

        """
        return cls(
            url=(environment.get("LAB_TRANSACTIONS_URL") or cls.url).rstrip("/"),
            seconds=number(environment, "LAB_LOAD_SECONDS", cls.seconds, 1, LONGEST),
            rate=number(environment, "LAB_LOAD_RATE", cls.rate, 1, FASTEST),
            users=number(environment, "LAB_LOAD_USERS", cls.users, 1, MOST_USERS),
        )


def check_target(url: str, state: Path = STATE) -> None:
    """Check that the load stays in this machine, and that the service is there.

    Args:
        url: of the service.
        state: the lab's; tells the addresses of its hosts.

    Raises:
        LabError: the URL is not of loopback or of a host of the lab, or nothing answers there.

    """
    parts = urlsplit(url)
    try:
        address = ipaddress.ip_address("127.0.0.1" if parts.hostname == "localhost" else parts.hostname or "")
        _ = parts.port
    except ValueError:
        address = None
    if parts.scheme != "http" or address is None or parts.path or parts.query or parts.username:
        raise LabError(f"LAB_TRANSACTIONS_URL is {url!r}: write it like {URL}, with an address and no path")
    if not address.is_loopback and str(address) not in Fleet.addresses(state).values():
        raise LabError(
            f"LAB_TRANSACTIONS_URL is {url!r}: load is put on 127.0.0.1 and the lab's own hosts only"
        )
    try:
        opener = build_opener(ProxyHandler({}))  # it is on this machine: no proxy
        opener.open(Request(f"{url}/health"), timeout=_TIMEOUT).close()  # noqa: S310 - checked above
    except HTTPError as error:  # it answers, though not well: load may be just what shall be seen then
        error.close()
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise LabError(f"{url}/health does not answer: {reason}. Is the lab up? (make lab)") from None


@dataclass
class Count:
    """What is known of some requests."""

    seconds: list[float] = field(default_factory=list)
    """How long each answer took; those without an answer are not among them."""
    requests: int = 0
    errors: int = 0

    def add(self, seconds: float | None, error: bool) -> None:
        """Count a request; ``None`` seconds without an answer."""
        self.requests += 1
        self.errors += error
        if seconds is not None:
            self.seconds.append(seconds)

    def percentile(self, percent: float) -> str:
        """Return the time that so many of the answers took at most, in words."""
        if not self.seconds:
            return "-"
        rank = math.ceil(percent / 100 * len(self.seconds))
        return f"{sorted(self.seconds)[max(rank, 1) - 1] * 1000:.0f} ms"

    def cells(self, duration: float) -> tuple[str, ...]:
        """Return the columns of a table: rate, errors, percentiles."""
        share = f"{100 * self.errors / self.requests:.1f} %" if self.requests else "-"
        rate = f"{self.requests / duration:.1f}/s" if duration > 0 else "-"
        return rate, share, self.percentile(50), self.percentile(95), self.percentile(99)


class Summary:
    """Counts requests; tells of them from time to time and in the end."""

    COLUMNS = ("rate", "errors", "p50", "p95", "p99")

    def __init__(self, write: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        """Start the clock.

        write: gets one line after the other.
        clock: returns seconds that only ever grow.
        """
        self._write = write
        self._clock = clock
        self._began = self._line_began = clock()
        self._recent = Count()
        self._all = Count()
        self._routes: dict[str, Count] = {}
        self._answers: Counter[str] = Counter()

    @property
    def reached(self) -> bool:
        """Whether any request had an answer; it counts as one that there was no request."""
        return not self._all.requests or bool(self._all.seconds)

    def add(self, route: str, seconds: float, status: int, *, error: bool) -> None:
        """Count a request.

        Args:
            route: what was asked.
            seconds: how long it took.
            status: of the answer; 0 when there was none.
            error: whether it counts as an error of the service.

        """
        for count in (self._recent, self._all, self._routes.setdefault(route, Count())):
            count.add(seconds if status else None, error)
        self._answers[str(status) if status else "no answer"] += 1

    def begin(self, load: Load) -> None:
        """Tell what is done, and the columns of the lines that come."""
        users = f"{load.users} users" if load.users > 1 else "1 user"
        self._write(f"{load.url}: {load.seconds} s, up to {load.rate} requests/s from {users}")
        self._write(_row(("time", *self.COLUMNS), 0))

    def line(self) -> None:
        """Tell what was since the last line."""
        now = self._clock()
        cells = self._recent.cells(now - self._line_began)
        self._write(_row((f"{now - self._began:.0f} s", *cells), 0))
        self._recent, self._line_began = Count(), now

    def end(self) -> None:
        """Tell what was in all."""
        duration = self._clock() - self._began
        width = max((len(route) for route in self._routes), default=0) + 2
        self._write("")
        self._write(_row(("request", "count", *self.COLUMNS), width))
        for route, count in [*sorted(self._routes.items()), ("all", self._all)]:
            self._write(_row((route, str(count.requests), *count.cells(duration)), width))
        answers = ", ".join(f"{answer}: {count}" for answer, count in sorted(self._answers.items()))
        self._write(f"answers by status: {answers or 'none'}")


def _row(cells: Sequence[str], width: int) -> str:
    """Return a line of a table, the first column left and so wide."""
    first, *others = cells
    return (f"{first:{width}}" if width else f"{first:>9}") + "".join(f"{cell:>10}" for cell in others)


def command(load: Load) -> list[str]:
    """Return Locust's command line."""
    options: Iterable[tuple[str, object]] = (
        ("--locustfile", ROOT / "lab" / "locustfile.py"),
        ("--host", load.url),
        ("--users", load.users),
        ("--spawn-rate", load.users),
        ("--run-time", f"{load.seconds}s"),
        ("--stop-timeout", 5),
    )
    words = [str(word) for option in options for word in option]
    # Its own summary goes to its own log.
    return [str(VENV / "bin" / "python"), "-m", "locust", "--headless", "--skip-log-setup", *words]


def main() -> None:
    """Run the command line; the exit code is 1 when the service cannot be reached."""
    try:
        load = Load.read(os.environ)
        check_target(load.url)
    except LabError as error:
        print(f"lab-load: {error}", file=sys.stderr)  # noqa: T201 - the command's output
        sys.exit(1)
    known = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    with Path(os.devnull).open() as nothing:  # keys would change the number of users
        os.dup2(nothing.fileno(), 0)
    words = command(load)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # it waits until Locust has begun
    # In place of this process, so that signals and exit code are Locust's.
    os.execve(words[0], words, known | {"PYTHONPATH": str(ROOT)})  # noqa: S606 - no shell


if __name__ == "__main__":
    main()
