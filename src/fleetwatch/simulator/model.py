"""The quiet life of a simulated host.

Nothing here remembers anything: every value is a function of seed, host, metric and time (seconds since the
epoch). No quiet value crosses a default alert threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

VERSION = 1
"""Raised with every change of the formulas, so that a counter starts anew instead of going backwards."""

DAY = 86400.0
DISK_SIZE = 100 * 10**9
"""Bytes of the root filesystem of every host."""

_QUIET_TRAFFIC = 0.4  # of the mean rate, plus what the time of day adds
# (seconds between two random points, greatest share of the mean rate that the noise adds or takes). The
# shares sum to less than _QUIET_TRAFFIC: the rate stays above zero and the counter never goes backwards.
_TRAFFIC_NOISE = ((30.0, 0.15), (300.0, 0.20))


@dataclass
class Reading:
    """What one host shows at one moment."""

    cpu: float
    """Percent of all cores in use."""
    memory: float
    """Percent of memory in use."""
    disk: float
    """Percent of the root filesystem in use."""
    load: float
    """Load average over one minute."""
    received: float
    """Bytes received since the simulation began; never falls."""


class _Kind(NamedTuple):
    """What hosts of a kind have in common: the ranges from which each draws its own figures."""

    cpu_quiet: tuple[float, float]  # percent
    cpu_rise: tuple[float, float]  # percent added at the busiest hour
    memory: tuple[float, float]  # percent
    disk: tuple[float, float]  # percent
    traffic: tuple[float, float]  # mean bytes/s
    peak_shift: float = 0.0  # hours after the fleet's busiest hour


KINDS = {
    "web": _Kind((4, 9), (24, 34), (24, 32), (25, 40), (2e6, 6e6)),
    "db": _Kind((8, 14), (14, 22), (34, 40), (40, 55), (1e6, 3e6)),
    "batch": _Kind((2, 5), (34, 42), (18, 28), (30, 50), (0.5e6, 2e6), peak_shift=12),
}
"""A host is of the kind that its name contains as a word (``sim-db-01``), otherwise ``web``."""


def default_names(count: int) -> list[str]:
    """Return names for ``count`` hosts: ``sim-web-01``, ``sim-db-01``, ``sim-batch-01``, ``sim-web-02``."""
    kinds = list(KINDS)
    return [f"sim-{kinds[i % len(kinds)]}-{i // len(kinds) + 1:02}" for i in range(count)]


class Host:
    """One simulated host."""

    def __init__(self, name: str, seed: int, peak_hour: float = 14.0) -> None:
        """Draw the host's own figures.

        peak_hour: hour of the day, UTC, at which most hosts are busiest.
        """
        self.name = name
        self.origin = f"{VERSION}/{seed}/{peak_hour:g}"
        """What its figures and those of the whole fleet are drawn from."""
        self._seed = seed
        kind = KINDS[next((word for word in name.split("-") if word in KINDS), "web")]

        def draw(what: str, between: tuple[float, float]) -> float:
            low, high = between
            return low + (high - low) * _random(self._key(what), 0)

        self._cpu_quiet = draw("cpu_quiet", kind.cpu_quiet)
        self._cpu_rise = draw("cpu_rise", kind.cpu_rise)
        self._memory = draw("memory", kind.memory)
        self._disk = draw("disk", kind.disk)
        self._traffic = draw("traffic", kind.traffic)
        self._peak = (peak_hour + kind.peak_shift + draw("peak", (-1.5, 1.5))) * 3600
        self._noise_keys = {what: self._key(f"{what} noise") for what in ("cpu", "memory", "load", "traffic")}

    def at(self, time: float, since: float) -> Reading:
        """Return the host's reading at a time.

        since: the time at which the counter stood at zero.
        """
        busy = self._busy(time)
        cpu = max(0.5, self._cpu_quiet + self._cpu_rise * busy + 5 * self._wander("cpu", time))
        return Reading(
            cpu=cpu,
            memory=self._memory + 4 * busy + 1.5 * self._wander("memory", time),
            # Files pile up over the day and the nightly rotation removes them.
            disk=self._disk + 2 * ((time - self._peak) % DAY) / DAY,
            load=max(0.0, cpu / 50 * (1 + 0.3 * self._wander("load", time))),
            received=self._bytes_until(time) - self._bytes_until(since),
        )

    def _busy(self, time: float) -> float:
        """Return how busy the time of day is, from 0 to 1: a long day, a short night."""
        x = 2 * math.pi * (time - self._peak) / DAY
        return 0.5 + 0.42 * math.cos(x) + 0.08 * math.cos(2 * x + 0.6)

    def _bytes_until(self, time: float) -> float:
        """Integrate the rate of traffic: exact, so that the counter needs no memory of its own."""
        x = 2 * math.pi * (time - self._peak) / DAY
        waves = (0.42 * math.sin(x) + 0.04 * math.sin(2 * x + 0.6)) * DAY / (2 * math.pi)
        smooth = _QUIET_TRAFFIC * time + (1 - _QUIET_TRAFFIC) * (0.5 * time + waves)
        # The noise is added to the integral; 3 / step is the steepest that _noise gets, see there.
        rough = sum(
            share * step / 3 * _noise(self._noise_keys["traffic"], time, step)
            for step, share in _TRAFFIC_NOISE
        )
        return self._traffic * (smooth + rough)

    def _wander(self, what: str, time: float) -> float:
        """Return noise between -1 and 1 with a quick, a slow and an hourly part."""
        key = self._noise_keys[what]
        return 0.25 * _noise(key, time, 20) + 0.35 * _noise(key, time, 300) + 0.4 * _noise(key, time, 3600)

    def _key(self, what: str) -> bytes:
        return blake2b(f"{self._seed}/{self.name}/{what}".encode(), digest_size=16).digest()


def _random(key: bytes, index: int) -> float:
    """Return the number at an index of an endless random sequence, 0 <= x < 1; the same on every machine."""
    digest = blake2b(index.to_bytes(8, "little", signed=True), key=key, digest_size=6).digest()
    return int.from_bytes(digest, "little") / 2**48


def _noise(key: bytes, time: float, step: float) -> float:
    """Return smooth noise between -1 and 1: random points, ``step`` seconds apart, with an S-curve between.

    The S-curve is at most 1.5 / step steep and two points at most 2 apart: the slope stays within 3 / step.
    """
    index = math.floor(time / step)
    part = time / step - index
    before, after = 2 * _random(key, index) - 1, 2 * _random(key, index + 1) - 1
    return before + (after - before) * part * part * (3 - 2 * part)
