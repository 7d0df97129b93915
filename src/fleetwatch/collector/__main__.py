"""``python3 -m fleetwatch.collector --config FILE``: the host's metrics on /metrics, until SIGTERM."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from threading import Event

from fleetwatch.common import logs
from fleetwatch.common.health import HealthServer, registry
from fleetwatch.common.settings import fail, load

from . import SERVICE
from .collectors import build
from .rounds import Rounds
from .settings import Settings

log = logging.getLogger(__package__)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the collector."""
    settings = load(Settings, SERVICE, argv)
    logs.setup(SERVICE, settings.log_level)
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    metrics = registry()
    rounds = Rounds(build(settings), settings.timeout, settings.round_timeout, settings.interval)
    rounds.run()  # so that the first scrape already knows a use of the processors
    metrics.register(rounds)
    address, port = settings.listen_address, settings.port
    try:
        server = HealthServer(address, port, rounds.ready, metrics)
    except OSError as error:
        fail(SERVICE, f'setting "port": cannot listen on {address} port {port}: {error.strerror}')
    log.info("started", extra={"port": port, "collectors": settings.collectors})
    if settings.interval:
        rounds.keep_running(stop)
    stop.wait()
    server.close()
    log.info("stopped")


if __name__ == "__main__":
    main(sys.argv[1:])
