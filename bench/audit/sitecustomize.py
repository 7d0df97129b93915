"""Notes what Python processes reach for: connections, look-ups of names, and programs they start.

Python imports it by itself when its folder is on ``PYTHONPATH``. Each event is a line of JSON in the file
that ``FLEETWATCH_AUDIT`` names.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

LOG = Path(os.environ["FLEETWATCH_AUDIT"])
REACHES = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg")
STARTS = {"subprocess.Popen": 1, "os.exec": 1, "os.posix_spawn": 1, "os.system": 0}
"""Event -> which of its arguments holds the command."""


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return [_text(item) for item in value] if isinstance(value, list | tuple) else str(value)


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event in STARTS:
        what = arguments[STARTS[event]]
    elif event in REACHES:
        what = arguments[-1] if event in ("socket.connect", "socket.sendto") else arguments
        if isinstance(what, str | bytes):  # a Unix socket
            return
    else:
        return
    with LOG.open("a", encoding="utf-8") as log:
        log.write(json.dumps([event, _text(what)]) + "\n")


sys.addaudithook(_note)
