"""``python3 -m fleetwatch.mailbox --config FILE``: the lab's mailbox, until SIGTERM."""

from __future__ import annotations

import logging
import signal
import sqlite3
import sys
from collections.abc import Sequence
from threading import Event, Thread

from werkzeug.serving import WSGIRequestHandler, make_server

from fleetwatch.common import logs
from fleetwatch.common.settings import fail, load
from fleetwatch.mailbox import smtp
from fleetwatch.mailbox.app import Mailbox, create_app
from fleetwatch.mailbox.settings import MailboxSettings

SERVICE = "lab_mailbox"

log = logging.getLogger("fleetwatch.mailbox")


class _QuietHandler(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Keep requests out of the log; messages are logged when they are kept."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the mailbox."""
    settings = load(MailboxSettings, SERVICE, argv)
    logs.setup(SERVICE, settings.log_level)
    logging.getLogger("mail.log").setLevel(logging.WARNING)  # aiosmtpd tells of each connection
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        mailbox = Mailbox(settings)
    except (sqlite3.Error, OSError) as error:
        fail(SERVICE, f'setting "state_directory": cannot use {settings.state_directory}: {error}')
    address = settings.listen_address
    try:
        mail = smtp.server(settings, mailbox.keep, mailbox.failures)
    except OSError as error:
        file = settings.smtp_certificate_file
        fail(
            SERVICE,
            f'setting "smtp_certificate_file" or "smtp_key_file": cannot use {file}: {error.strerror}',
        )
    try:
        # One process, because failures and messages are shared; werkzeug's server gives the handler the
        # socket, which it needs to hang up without an answer.
        web = make_server(
            address, settings.port, create_app(mailbox), threaded=True, request_handler=_QuietHandler
        )
        mail.start()
    except (OSError, SystemExit) as error:
        fail(SERVICE, f'setting "port" or "smtp_port": cannot listen on {address}: {error}')
    Thread(target=web.serve_forever, name="web", daemon=True).start()
    log.info("started", extra={"address": address, "port": settings.port, "smtp_port": settings.smtp_port})
    stop.wait()
    web.shutdown()
    mail.stop()
    mailbox.messages.close()
    log.info("stopped")


if __name__ == "__main__":
    main(sys.argv[1:])
