"""A provider for the channel ``webhook`` that remembers what it took and fails in every way HTTP knows."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_HANG = 3.0  # seconds


class Fate(Enum):
    """What becomes of a request. In those of ``TAKEN`` the message has arrived."""

    OK = "taken and answered"
    CUT_BODY = "taken, and the answer breaks off after its status"
    LOST_ANSWER = "taken, and the connection cut without an answer"
    LATE_ANSWER = "taken, and the answer comes after the client's time-out"
    TOO_MANY = "429 with Retry-After"
    ERROR = "500"
    TIME_OUT = "no answer, not taken"
    HALF_CLOSED = "half a status line, then the end of the stream while reading goes on"
    RESET = "connection reset before the request is read"


TAKEN = {Fate.OK, Fate.CUT_BODY, Fate.LOST_ANSWER, Fate.LATE_ANSWER}
UNKNOWN = {Fate.LOST_ANSWER, Fate.LATE_ANSWER}
"""Those that make a duplicate, since the client cannot know that the message was taken."""


@dataclass(frozen=True)
class Taken:
    """A message that the provider has."""

    key: str
    body: dict[str, Any]

    @property
    def told(self) -> list[tuple[str, str]]:
        """Return name and transition of each incident that it tells of."""
        return [
            (incident["labels"]["alertname"], incident["transition"]) for incident in self.body["incidents"]
        ]


class Provider:
    """The server; ``fate`` decides about each request, ``pause`` is how long each takes, in seconds."""

    def __init__(self, fate: Callable[[], Fate] = lambda: Fate.OK, pause: float = 0.0) -> None:
        self.fate = fate
        self.pause = pause
        self.taken: list[Taken] = []
        self.known: set[tuple[str, str]] = set()
        """Name and transition of what was told so far."""
        self.fates: Counter[Fate] = Counter()
        self._lock = threading.Lock()
        self._crash: tuple[Callable[[], None], bool, threading.Event] | None = None
        provider = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_POST(self) -> None:
                provider.handle(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def told(self) -> Counter[tuple[str, str]]:
        """Return how often each transition of each incident was told."""
        return Counter(each for message in list(self.taken) for each in message.told)

    def duplicates(self) -> int:
        """Return how many tellings were one too many."""
        return sum(times - 1 for times in self.told().values())

    def crash_client(self, kill: Callable[[], None], *, taken: bool) -> None:
        """Kill the client while it waits for its next answer, just before or after its message is taken."""
        done = threading.Event()
        self._crash = (kill, taken, done)
        assert done.wait(120), "nothing more was sent"

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        with self._lock:
            crash, self._crash = self._crash, None
            fate = self.fate()
            self.fates[fate] += 1
        connection = request.connection
        request.close_connection = True
        if fate is Fate.RESET:
            return  # the system resets a connection that is closed with something unread
        body = request.rfile.read(int(request.headers["Content-Length"]))
        if self.pause:
            time.sleep(self.pause)
        if fate in TAKEN if crash is None else crash[1]:
            message = Taken(request.headers["Idempotency-Key"], json.loads(body))
            with self._lock:
                self.taken.append(message)
                self.known.update(message.told)
        if crash:
            kill, _, done = crash
            kill()
            done.set()
            return
        match fate:
            case Fate.OK:
                _answer(request, 202)
            case Fate.TOO_MANY:
                _answer(request, 429, {"Retry-After": "1"})
            case Fate.ERROR:
                _answer(request, 500)
            case Fate.CUT_BODY:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly so")
            case Fate.LOST_ANSWER:
                pass
            case Fate.HALF_CLOSED:
                connection.sendall(b"HTTP/1.1 20")
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1)  # until the client, too, has closed
            case Fate.TIME_OUT | Fate.LATE_ANSWER:
                time.sleep(_HANG)


def _answer(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str] | None = None) -> None:
    request.send_response(status)
    for name, value in (headers or {}).items():
        request.send_header(name, value)
    request.send_header("Content-Length", "0")
    request.end_headers()


@contextmanager
def run_provider(fate: Callable[[], Fate] = lambda: Fate.OK, pause: float = 0.0) -> Iterator[Provider]:
    provider = Provider(fate, pause)
    try:
        yield provider
    finally:
        provider.close()
