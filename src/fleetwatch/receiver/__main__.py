"""``python3 -m fleetwatch.receiver --config FILE``: the receiver under gunicorn, in production.

All commits go through one thread, so one worker process is enough.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fleetwatch.common.wsgi import Basics, Program

if TYPE_CHECKING:
    from flask import Flask

SERVICE = "alert_receiver"


def check(argv: Sequence[str]) -> Basics:
    """Check settings and store; end the program with one line when they are wrong."""
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - see fleetwatch.common.wsgi

    from fleetwatch.common.settings import fail, load  # noqa: PLC0415
    from fleetwatch.receiver.settings import ReceiverSettings  # noqa: PLC0415
    from fleetwatch.store import SchemaError, Store  # noqa: PLC0415

    settings = load(ReceiverSettings, SERVICE, argv)
    try:
        Store(settings.database_url, settings.database_password).close()
    except SchemaError as error:
        fail(SERVICE, str(error))
    except SQLAlchemyError as error:
        reason = getattr(error, "orig", None) or error
        fail(SERVICE, f'setting "database_url": cannot open {settings.database_url}: {reason}')
    return Basics(settings.listen_address, settings.port, settings.threads, settings.log_level)


def build(argv: Sequence[str]) -> Flask:
    """Build the application."""
    from fleetwatch.common import tracing  # noqa: PLC0415 - see fleetwatch.common.wsgi
    from fleetwatch.common.settings import load  # noqa: PLC0415
    from fleetwatch.receiver.app import create_app  # noqa: PLC0415
    from fleetwatch.receiver.settings import ReceiverSettings  # noqa: PLC0415

    settings = load(ReceiverSettings, SERVICE, argv)
    tracing.setup(SERVICE, settings.otlp_endpoint)
    return create_app(settings)


def close(app: Flask) -> None:
    """Commit what is under way, and close the store."""
    app.extensions["receiver"].close()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the receiver until SIGTERM."""
    Program(SERVICE, check, build, close).run(argv)


if __name__ == "__main__":
    main(sys.argv[1:])
