"""``python3 -m fleetwatch.collector.usage --config FILE``: the usage API under gunicorn, in production."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fleetwatch.common.wsgi import Basics, Program

if TYPE_CHECKING:
    from flask import Flask

SERVICE = "metrics_api"


def check(argv: Sequence[str]) -> Basics:
    """Check the settings; end the program with one line when they are wrong."""
    from fleetwatch.collector.usage.settings import UsageSettings  # noqa: PLC0415 - see fleetwatch.common.wsgi
    from fleetwatch.common.settings import load  # noqa: PLC0415

    settings = load(UsageSettings, SERVICE, argv)
    return Basics(settings.listen_address, settings.port, settings.threads, settings.log_level)


def build(argv: Sequence[str]) -> Flask:
    """Build the application."""
    from fleetwatch.collector.usage.app import create_app  # noqa: PLC0415 - see fleetwatch.common.wsgi
    from fleetwatch.collector.usage.settings import UsageSettings  # noqa: PLC0415
    from fleetwatch.common.settings import load  # noqa: PLC0415

    return create_app(load(UsageSettings, SERVICE, argv))


def close(app: Flask) -> None:
    """Close the connections."""
    app.extensions["usage"].close()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the usage API until SIGTERM."""
    Program(SERVICE, check, build, close).run(argv)


if __name__ == "__main__":
    main(sys.argv[1:])
