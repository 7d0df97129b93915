from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetwatch.store import Store


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/alerts.db"


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    store = Store(database)
    yield store
    store.close()
