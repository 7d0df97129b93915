"""The fixture that every scenario's tests use."""

from __future__ import annotations

import pytest
from support import Fleet


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    """Return the hosts of the scenario."""
    return Fleet()
