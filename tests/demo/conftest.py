"""A real PostgreSQL for API and worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fleetwatch.common import health
from fleetwatch.demo.metrics import PoolMetrics
from fleetwatch.demo.settings import Settings
from fleetwatch.demo.storage import Storage
from tests.databases import PostgresServer, fresh_database

QUIET = {"error_rate": 0, "latency": 0, "payment_latency": 0, "payment_decline_rate": 0}
"""Settings without chance."""

Configure = Callable[..., Settings]


@pytest.fixture
def transactions_database(postgres_server: PostgresServer) -> Iterator[str]:
    """Return the URL of an empty database."""
    with fresh_database(postgres_server) as url:
        yield url


@pytest.fixture
def configure(tmp_path: Path, transactions_database: str) -> Configure:
    """Return a function that makes settings without chance for the database; arguments are settings."""

    def make(**more: Any) -> Settings:
        places = {"state_directory": tmp_path, "socket_directory": tmp_path}
        return Settings.model_validate({"database_url": transactions_database, **places, **QUIET, **more})

    return make


@pytest.fixture
def registry() -> CollectorRegistry:
    return health.registry()


@pytest.fixture
def storage(configure: Configure, registry: CollectorRegistry) -> Iterator[Storage]:
    found = Storage(configure(), PoolMetrics(registry), "tests")
    yield found
    found.close()
