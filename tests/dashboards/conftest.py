"""The committed dashboards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fleetwatch.dashboards.files import ROOT, kept

Json = dict[str, Any]


def committed() -> dict[str, Path]:
    """Return the files of all dashboards by their uid."""
    return {path.stem: path for path in sorted(kept(ROOT))}


def read(uid: str) -> Json:
    """Return the JSON of a dashboard."""
    found: Json = json.loads(committed()[uid].read_text(encoding="utf-8"))
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes ``each_dashboard`` with every one."""
    if "each_dashboard" in metafunc.fixturenames:
        metafunc.parametrize("each_dashboard", committed(), indirect=True)


@pytest.fixture
def each_dashboard(request: pytest.FixtureRequest) -> Json:
    return read(request.param)


@pytest.fixture
def prometheus() -> Json:
    """A dashboard to break."""
    return read("fleetwatch-prometheus")
