"""Logs: JSON, one line an event, to stderr.

    from fleetwatch.common import logs
    logs.setup("metrics_simulator", settings.log_level)
    log = logging.getLogger(__name__)
    log.info("pushed", extra={"hosts": 12, "seconds": 0.03})

writes ``{"time": "2026-01-02T03:04:05.678Z", "level": "INFO", "service": "metrics_simulator",
"logger": "…", "event": "pushed", "hosts": 12, "seconds": 0.03}``. A traceback is in ``exception``.
Keep ``event`` constant and put what varies into ``extra``. Never log a secret.
"""

from __future__ import annotations

import logging
import logging.config
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.json import JsonFormatter as _JsonFormatter

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request at hand; each event that is logged meanwhile carries it."""
trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)
"""The same of its trace, for services that have one."""


class JsonFormatter(_JsonFormatter):
    """A log record as one line of JSON; the time is UTC with milliseconds."""

    def __init__(self, service: str) -> None:
        """Name each event's service."""
        super().__init__(
            "{levelname}{name}{message}",
            style="{",
            rename_fields={
                "levelname": "level",
                "name": "logger",
                "message": "event",
                "exc_info": "exception",
            },
            static_fields={"service": service},
            json_ensure_ascii=False,
        )

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Put the time first."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        log_data["time"] = time.replace("+00:00", "Z")
        super().add_fields(log_data, record, message_dict)
        if request := request_id.get():
            log_data["request_id"] = request
        if trace := trace_id.get():
            log_data["trace_id"] = trace


def config(service: str, level: str = "INFO") -> dict[str, Any]:
    """Return a ``logging.config.dictConfig`` mapping (gunicorn's ``logconfig_dict`` takes it as well)."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter, "service": service}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"level": level, "handlers": ["stderr"]},
        "loggers": {},
    }


def setup(service: str, level: str = "INFO") -> None:
    """Send every log event of this process to stderr as JSON."""
    logging.config.dictConfig(config(service, level))
    logging.captureWarnings(capture=True)
