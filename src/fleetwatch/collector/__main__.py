"""``python3 -m fleetwatch.collector --config FILE``: the host's metrics on /metrics, until SIGTERM.

It runs on every host, so it shall be small: a child checks the settings, and what that takes goes with it.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from threading import Event
from typing import Any

from fleetwatch.common import logs
from fleetwatch.common.child import in_child
from fleetwatch.common.health import HealthServer, registry

from . import SERVICE
from .collectors import build
from .plan import Plan
from .rounds import Rounds

log = logging.getLogger(__package__)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the collector."""
    plan = Plan(**in_child(lambda: _settings(argv)))
    logs.setup(SERVICE, plan.log_level)
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    metrics = registry()
    rounds = Rounds(build(plan), plan.timeout, plan.round_timeout, plan.interval)
    rounds.run()  # so that the first scrape already knows a use of the processors
    metrics.register(rounds)
    try:
        server = HealthServer(plan.listen_address, plan.port, rounds.ready, metrics)
    except OSError as error:
        from fleetwatch.common.settings import fail  # noqa: PLC0415 - see the module's description

        address = f"{plan.listen_address} port {plan.port}"
        fail(SERVICE, f'setting "port": cannot listen on {address}: {error.strerror}')
    log.info("started", extra={"port": plan.port, "collectors": plan.collectors})
    if plan.interval:
        rounds.keep_running(stop)
    stop.wait()
    server.close()
    log.info("stopped")


def _settings(argv: Sequence[str] | None) -> dict[str, Any]:
    from fleetwatch.common.settings import load  # noqa: PLC0415 - see the module's description

    from .settings import Settings  # noqa: PLC0415

    return load(Settings, SERVICE, argv).model_dump()


if __name__ == "__main__":
    main(sys.argv[1:])
