"""What each request needs: settings, database, cache, queue, payment gateway, metrics."""

from __future__ import annotations

import logging
from typing import Literal

from flask import current_app

from fleetwatch.common import health
from fleetwatch.demo import API
from fleetwatch.demo.behaviour import Behaviour
from fleetwatch.demo.cache import PageCache
from fleetwatch.demo.gateway import Gateway
from fleetwatch.demo.metrics import ApiMetrics, PoolMetrics
from fleetwatch.demo.queue import Publisher
from fleetwatch.demo.settings import Settings
from fleetwatch.demo.storage import Storage, UnavailableError

log = logging.getLogger(__name__)


class Api:
    """The parts of a running API."""

    def __init__(self, settings: Settings) -> None:
        """Make them. Nothing of it needs to be reachable yet."""
        self.settings = settings
        self.registry = health.registry()
        self.metrics = ApiMetrics(self.registry)
        self.storage = Storage(settings, PoolMetrics(self.registry), API)
        self.behaviour = Behaviour(settings)
        self.gateway = Gateway(settings, self.metrics)
        looks, messages = self.metrics.cache_requests, self.metrics.published
        self.cache = PageCache(settings, lambda result: looks.labels(result).inc())
        self.publisher = Publisher(
            settings.queue_url.get_secret_value(), lambda outcome: messages.labels(outcome).inc()
        )
        current = self.behaviour.current
        self.metrics.behaviour_error_rate.set_function(lambda: current().error_rate)
        self.metrics.behaviour_latency.set_function(lambda: current().latency)

    def database(self) -> Literal["up", "down"]:
        """Return how the database is."""
        try:
            self.storage.ping()
        except UnavailableError as error:
            log.warning("database is away", extra={"reason": str(error)})
            return "down"
        return "up"

    def ready(self) -> str | None:
        """Return why no request can be done now, or ``None``."""
        return None if self.database() == "up" else "the database does not answer"

    def close(self) -> None:
        """Close all connections."""
        self.publisher.close()
        self.cache.close()
        self.storage.close()


def api() -> Api:
    """Return the API that the request at hand is for."""
    found: Api = current_app.extensions["transactions"]
    return found
