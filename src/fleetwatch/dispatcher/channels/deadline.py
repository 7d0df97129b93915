"""An end to what a socket's time-out cannot end.

A time-out bounds each read by itself: a server that sends one byte now and then holds its client for ever.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Protocol

_AGAIN = 0.1  # seconds; the connection may be one that is made after the deadline


class HasSocket(Protocol):
    """A client with at most one connection, such as those of http.client and smtplib."""

    sock: socket.socket | None


@contextmanager
def deadline(seconds: float, client: HasSocket) -> Iterator[Event]:
    """Hang up on a client that takes longer than so many seconds in all; then raise TimeoutError.

    The event is set when it was hung up on: a client may take the broken end of an answer for a proper one.
    """
    done, expired = Event(), Event()

    def watch() -> None:
        pause = seconds
        while not done.wait(pause):
            expired.set()
            if client.sock is not None:
                with suppress(OSError):
                    # Not SSLSocket's own shutdown, which changes the object under its reader.
                    socket.socket.shutdown(client.sock, socket.SHUT_RDWR)
            pause = _AGAIN

    Thread(target=watch, name="deadline", daemon=True).start()
    try:
        yield expired
    except Exception:
        if expired.is_set():
            raise TimeoutError(f"no complete answer within {seconds:.3g} s") from None
        raise
    finally:
        done.set()
