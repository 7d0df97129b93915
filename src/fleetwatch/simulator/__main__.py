"""``python3 -m fleetwatch.simulator --config FILE``."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from threading import Event

from fleetwatch.common import logs
from fleetwatch.common.health import registry
from fleetwatch.common.settings import SettingsError, add_arguments, fail, read

from . import SERVICE, cli
from .fleet import Fleet
from .metrics import HostCollector, OwnMetrics
from .model import Host
from .push import Pusher
from .scenarios import Scenario, ScenarioError, load, plan
from .server import Server
from .settings import Settings
from .state import StateFile

log = logging.getLogger(__package__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the service, check its settings, or control a running one; return the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m fleetwatch.simulator", description=__doc__)
    add_arguments(parser)
    cli.add_parser(parser.add_subparsers(dest="command"))
    options = parser.parse_args(argv)
    if options.command == "incident":
        return cli.run(options)
    try:
        settings = read(Settings, options.config)
        scenarios = _scenarios(settings)
    except (SettingsError, ScenarioError) as error:
        fail(SERVICE, str(error))
    if not options.check:
        logs.setup(SERVICE, settings.log_level)
        _run(settings, scenarios)
    return 0


def _scenarios(settings: Settings) -> dict[str, Scenario]:
    """Read the scenarios and try out the incidents of the settings."""
    scenarios = load(settings.scenario_directories)
    for number, request in enumerate(settings.incidents):
        try:
            plan(request, "", scenarios, settings.host_names(), 0)
        except ScenarioError as error:
            raise ScenarioError(f'setting "incidents.{number}": {error}') from None
    return scenarios


def _run(settings: Settings, scenarios: dict[str, Scenario]) -> None:
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        fleet = Fleet(
            [Host(name, settings.seed, settings.peak_hour) for name in settings.host_names()],
            scenarios,
            file=StateFile(settings.state_file),
        )
    except OSError as error:
        fail(SERVICE, f'setting "state_file": cannot use {settings.state_file}: {error.strerror}')
    metrics = registry()
    own = OwnMetrics(metrics, fleet)
    pusher = None
    if settings.mode == "push":
        pusher = Pusher(fleet, settings.pushgateway_url, settings.interval, own)
    else:
        metrics.register(HostCollector(fleet.snapshot, labelled=True))
    address = (settings.listen_address, settings.port)
    try:
        server = Server(address, fleet, settings.control_token, pusher.ready if pusher else _always, metrics)
    except OSError as error:
        fail(SERVICE, f'setting "port": cannot listen on {address[0]} port {address[1]}: {error.strerror}')
    fleet.play_at_start(settings.incidents)
    log.info("started", extra={"mode": settings.mode, "hosts": len(fleet.names), "port": server.port})
    if pusher:
        pusher.run(stop)
        if settings.delete_on_stop:
            pusher.delete_all()
    else:
        stop.wait()
    server.close()
    log.info("stopped")


def _always() -> None:
    """Say that serving is always ready."""


if __name__ == "__main__":
    sys.exit(main())
