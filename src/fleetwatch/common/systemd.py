"""The watchdog of systemd: it restarts a service whose main loop no longer turns.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress


class ServiceWatchdog:
    """Says to systemd that the service is alive, if its unit sets ``WatchdogSec``."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Read what systemd asks for."""
        self._address = environment.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        # Four times as often as needed, since what is said may come late.
        self._interval = int(environment.get("WATCHDOG_USEC", "0")) / 4e6 if ours else 0.0
        self._next = 0.0

    def alive(self) -> None:
        """Say so if it is time. To be called whenever the loop turns."""
        now = time.monotonic()
        if not self._address or not self._interval or now < self._next:
            return
        self._next = now + self._interval
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.settimeout(1)
            systemd.sendto(b"WATCHDOG=1", self._address)
