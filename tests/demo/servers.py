"""Real servers for the tests of the demo, each a private process on loopback: Redis and RabbitMQ."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from tests.common.services import free_port, wait_until

_START_TIMEOUT = 120.0


class Server(ABC):
    """A server that can be started, stopped, frozen and killed."""

    def __init__(self, directory: Path) -> None:
        """Choose a port; ``start`` starts it. directory: of its files."""
        self.directory = directory
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def start(self) -> None:
        """Start it and wait until it answers."""

    def kill(self) -> None:
        """Kill it, and all that it started."""
        process, self._process = self._process, None
        if process is not None:
            self._signal(process, signal.SIGKILL)
            process.wait(_START_TIMEOUT)

    def freeze(self) -> None:
        """Let it say nothing more; its sockets stay open."""
        assert self._process is not None
        self._signal(self._process, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._signal(self._process, signal.SIGCONT)

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    @staticmethod
    def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)

    def _spawn(self, *command: str | Path, env: Mapping[str, str] | None = None) -> None:
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - programs of this module
                ["/usr/bin/setpriv", "--pdeathsig=TERM", *command],  # ends with the tests, however they end
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )

    def _wait(self, sign: str) -> None:
        """Wait until it listens and its log, from now on, has a sign."""
        process, began = self._process, time.monotonic()
        assert process is not None

        def up() -> bool:
            assert process.poll() is None, f"it died: {self.log[-3000:]}"
            return listens(self.port) and sign in self.log

        wait_until(up, _START_TIMEOUT - (time.monotonic() - began), "the server answers")


class RedisServer(Server):
    """Redis, without a disk: what it knew is gone after a kill."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        arguments = {"bind": "127.0.0.1", "port": str(self.port), "save": "", "appendonly": "no"}
        words = [word for name, value in arguments.items() for word in (f"--{name}", value)]
        self._spawn(program("redis-server"), *words)
        self._wait("Ready to accept connections")


class RabbitServer(Server):
    """RabbitMQ, with an Erlang port mapper of its own, so that none stays behind."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._mapper: subprocess.Popen[bytes] | None = None
        self._mapper_port = free_port()

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"

    def start(self) -> None:
        (self.directory / "log").unlink(missing_ok=True)
        self._mapper = subprocess.Popen(  # noqa: S603 - a program of this module
            [
                "/usr/bin/setpriv",
                "--pdeathsig=KILL",
                program("epmd"),
                "-address",
                "127.0.0.1",
                "-port",
                str(self._mapper_port),
            ]
        )
        # Otherwise RabbitMQ would start one itself, which outlives it.
        wait_until(lambda: listens(self._mapper_port), _START_TIMEOUT, "the port mapper listens")
        files = {name: self.directory / name for name in ("plugins", "rabbitmq.conf", "environment")}
        files["plugins"].write_text("[].\n")
        files["rabbitmq.conf"].write_text("")
        environment = {
            "HOME": self.directory,  # of the cookie
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": self._mapper_port,
            "RABBITMQ_CONF_ENV_FILE": files["environment"],  # not that of the machine
            "RABBITMQ_CONFIG_FILE": files["rabbitmq.conf"],
            "RABBITMQ_DIST_PORT": free_port(),
            "RABBITMQ_ENABLED_PLUGINS_FILE": files["plugins"],
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_LOG_BASE": self.directory,
            "RABBITMQ_MNESIA_BASE": self.directory / "data",
            "RABBITMQ_NODENAME": "tests@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": self.port,
        }
        # Not the wrapper in /usr/sbin, which insists on the user rabbitmq.
        self._spawn(
            "/usr/lib/rabbitmq/bin/rabbitmq-server",
            env={name: str(value) for name, value in environment.items()},
        )
        self._wait("Server startup complete")

    def kill(self) -> None:
        super().kill()
        mapper, self._mapper = self._mapper, None
        if mapper is not None:
            mapper.kill()
            mapper.wait(_START_TIMEOUT)


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is not installed: `make prepare` installs it", pytrace=False)
    return found
