from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.contract.alertmanager import TOKEN, Alertmanager
from tests.faults.provider import Provider, run_provider
from tests.faults.stack import Stack, run_stack

Start = Callable[..., Alertmanager]


@pytest.fixture
def provider() -> Iterator[Provider]:
    with run_provider() as provider:
        yield provider


@pytest.fixture
def stack(
    tmp_path: Path, sqlite_database: str, provider: Provider, settings: dict[str, Any]
) -> Iterator[Stack]:
    """Run receiver and dispatcher; only who has the token may send."""
    with run_stack(
        tmp_path,
        sqlite_database,
        provider,
        secrets={"user.alertmanager": TOKEN},
        users=[{"name": "alertmanager", "roles": ["send"]}],
        **{"anonymous_roles": [], **settings},
    ) as stack:
        yield stack


@pytest.fixture
def settings() -> dict[str, Any]:
    """Return further settings; a test file may have its own."""
    return {}


@pytest.fixture
def start(tmp_path: Path, stack: Stack) -> Iterator[Start]:
    """Return a function that starts an Alertmanager, called "am" unless it gets another name."""
    with ExitStack() as running:

        def start(name: str = "am", **options: Any) -> Alertmanager:
            alertmanager = Alertmanager(tmp_path / name, stack.url, **options)
            running.callback(alertmanager.kill)
            alertmanager.start()
            return alertmanager

        yield start
