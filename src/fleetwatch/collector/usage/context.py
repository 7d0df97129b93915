"""What each request needs: settings, Prometheus, the receivers, metrics."""

from __future__ import annotations

from flask import current_app

from fleetwatch.collector.usage.forward import Receivers
from fleetwatch.collector.usage.metrics import Metrics
from fleetwatch.collector.usage.prometheus import Prometheus, Watch
from fleetwatch.collector.usage.settings import UsageSettings
from fleetwatch.common import health


class Usage:
    """The parts of a running usage API."""

    def __init__(self, settings: UsageSettings) -> None:
        """Make them, and begin to watch Prometheus."""
        self.settings = settings
        self.registry = health.registry()
        self.metrics = Metrics(self.registry, settings.prometheus_urls)
        self.prometheus = Prometheus(
            settings.prometheus_urls, settings.prometheus_timeout, settings.threads, self.metrics
        )
        self.receivers = Receivers(settings.receiver_urls, settings.receiver_timeout, settings.threads)
        self._watch = Watch(self.prometheus, settings.probe_interval)

    def close(self) -> None:
        """Stop watching and close all connections."""
        self._watch.close()
        self.prometheus.close()
        self.receivers.close()


def usage() -> Usage:
    """Return the usage API that the request at hand is for."""
    found: Usage = current_app.extensions["usage"]
    return found
