from __future__ import annotations

from fleetwatch.store import Store


def test_a_commit_goes_through(store: Store) -> None:
    store.check_writable()
