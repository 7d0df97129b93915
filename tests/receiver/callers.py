"""A receiver with one user for each role, for the tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask

from fleetwatch.receiver.app import create_app
from fleetwatch.receiver.settings import ReceiverSettings
from tests.common.services import MAIL

SECRETS = {"prometheus": "s-prometheus", "rita": "s-rita", "anna": "s-änna"}
ROLES = {"prometheus": ["send"], "rita": ["read"], "anna": ["act"]}


@contextmanager
def run(database: str, **settings: Any) -> Iterator[Flask]:
    """Run the application; ``settings`` replace those of the tests."""
    values = {
        "database_url": database,
        "channels": [MAIL],
        "users": [{"name": name, "roles": roles} for name, roles in ROLES.items()],
        "user_secrets": SECRETS,
        **settings,
    }
    app = create_app(ReceiverSettings.model_validate(values))
    try:
        yield app
    finally:
        app.extensions["receiver"].close()


def bearer(user: str) -> dict[str, str]:
    """Return the headers of a user; the secret goes out as UTF-8."""
    return {"Authorization": "Bearer " + SECRETS[user].encode().decode("latin-1")}
