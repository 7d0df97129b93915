"""``python3 -m fleetwatch.dispatcher --config FILE``: delivers notifications until SIGTERM."""

from __future__ import annotations

import gc
import logging
import signal
import sys
from collections.abc import Sequence

from sqlalchemy.exc import SQLAlchemyError

from fleetwatch.common import health, logs, tracing
from fleetwatch.common.settings import fail, load
from fleetwatch.dispatcher import channels
from fleetwatch.dispatcher.dispatcher import Dispatcher
from fleetwatch.dispatcher.render import BrokenTemplateError
from fleetwatch.dispatcher.settings import DispatcherSettings
from fleetwatch.store import SchemaError, Store

SERVICE = "alert_dispatcher"

log = logging.getLogger("fleetwatch.dispatcher")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the dispatcher; SIGTERM and SIGINT let the attempts under way finish."""
    settings = load(DispatcherSettings, SERVICE, argv)
    logs.setup(SERVICE, settings.log_level)
    try:
        store = Store(settings.database_url, settings.database_password)
    except SchemaError as error:
        fail(SERVICE, str(error))
    except SQLAlchemyError as error:
        reason = getattr(error, "orig", None) or error
        fail(SERVICE, f'setting "database_url": cannot open {settings.database_url}: {reason}')
    tracing.setup(SERVICE, settings.otlp_endpoint)
    registry = health.registry()
    try:
        dispatcher = Dispatcher(settings, store, channels.build(settings), registry)
    except BrokenTemplateError as error:
        fail(SERVICE, str(error))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: dispatcher.stop())
    address, port = settings.dispatcher_listen_address, settings.dispatcher_port
    try:
        server = health.HealthServer(address, port, dispatcher.ready, registry)
    except OSError as error:
        fail(SERVICE, f'setting "dispatcher_port": cannot listen on {address} port {port}: {error.strerror}')
    # What was made so far stays for good: leave it out of the collector's rounds.
    gc.collect()
    gc.freeze()
    log.info("started", extra={"address": address, "port": port})
    dispatcher.run()
    server.close()
    store.close()
    log.info("stopped")


if __name__ == "__main__":
    main(sys.argv[1:])
