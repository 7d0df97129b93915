"""A small load generator: keep-alive connections, one request under way on each, all in one loop.

It costs some 40 microseconds of CPU a request, so on a small machine it leaves the CPU to the server.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Load:
    """What a run measured."""

    seconds: float = 0.0
    statuses: dict[int, int] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    """Seconds from sending a request to its answer, one for each."""

    @property
    def rate(self) -> float:
        """Return answers of 200 a second."""
        return self.statuses.get(200, 0) / self.seconds if self.seconds else 0.0

    def quantile(self, share: float) -> float:
        """Return the latency that this share of the requests did not exceed, in seconds."""
        ordered = sorted(self.latencies)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


class _Connection:
    def __init__(self, port: int, selector: selectors.BaseSelector) -> None:
        self._port = port
        self._selector = selector
        self.sent_at = 0.0
        self.answer = b""
        self._open()

    def _open(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self._port), 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(self.socket, selectors.EVENT_READ, self)

    def close(self) -> None:
        self._selector.unregister(self.socket)
        self.socket.close()

    def send(self, request: bytes) -> None:
        self.answer = b""
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> int | None:
        """Return the status once the answer is complete."""
        part = self.socket.recv(65536)
        if not part:
            raise ConnectionError("the server closed the connection")
        self.answer += part
        head, end, body = self.answer.partition(b"\r\n\r\n")
        if not end:
            return None
        head = head.lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) < length:
            return None
        if b"connection: close" in head:
            self.close()
            self._open()
        return int(head[9:12])


def run(
    port: int,
    make: Callable[[int], bytes],
    *,
    connections: int,
    seconds: float = float("inf"),
    requests: int | None = None,
) -> Load:
    """Send requests until the time is over or so many were sent.

    port: on 127.0.0.1.
    make: returns the bytes of request number n, from 0.
    """
    load = Load()
    sent = 0
    with selectors.DefaultSelector() as selector:
        idle = [_Connection(port, selector) for _ in range(connections)]
        began = time.perf_counter()
        under_way = 0
        while True:
            while idle and time.perf_counter() - began < seconds and (requests is None or sent < requests):
                idle.pop().send(make(sent))
                sent += 1
                under_way += 1
            if not under_way:
                break
            for key, _ in selector.select(30):
                connection = key.data
                status = connection.receive()
                if status is not None:
                    load.latencies.append(time.perf_counter() - connection.sent_at)
                    load.statuses[status] = load.statuses.get(status, 0) + 1
                    under_way -= 1
                    idle.append(connection)
        load.seconds = time.perf_counter() - began
        for connection in idle:
            connection.close()
    return load
