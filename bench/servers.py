"""The servers that ``bench.receiver`` compares; each runs as a process of its own.

``python -m bench.servers answering CONFIG``: the receiver itself, same server, same checks, same answer, but
nothing is stored. ``python -m bench.servers naive PORT``: what is often written by hand, a Flask view that
sends a mail for each alert while the request waits; the provider takes 100 ms.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

PROVIDER_SECONDS = 0.1


def answering(config: str) -> None:
    """Run the receiver without its store."""
    from fleetwatch.receiver import __main__ as receiver  # noqa: PLC0415 - the other server has no receiver
    from fleetwatch.receiver.committer import Committer  # noqa: PLC0415
    from fleetwatch.store import Accepted, AlertEvent  # noqa: PLC0415

    def commit(_self: Committer, events: Sequence[AlertEvent], timeout: float) -> Accepted:  # noqa: ARG001
        return Accepted(fired=len(events))

    setattr(Committer, "commit", commit)  # noqa: B010 - mypy does not like the plain way
    receiver.main(["--config", config])


def naive(port: int) -> None:
    """Run the receiver that nobody should write, under gunicorn as it comes: one worker, no threads."""
    from flask import Flask, request  # noqa: PLC0415
    from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]  # noqa: PLC0415

    app = Flask(__name__)

    @app.post("/alerts")
    def alerts() -> tuple[str, int]:
        for _ in request.get_json()["alerts"]:
            time.sleep(PROVIDER_SECONDS)
        return "ok", 200

    class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
        def load_config(self) -> None:
            self.cfg.set("bind", f"127.0.0.1:{port}")
            self.cfg.set("loglevel", "warning")

        def load(self) -> Flask:
            return app

    Server().run()


if __name__ == "__main__":
    if sys.argv[1] == "answering":
        answering(sys.argv[2])
    else:
        naive(int(sys.argv[2]))
