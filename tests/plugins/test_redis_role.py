"""The settings that the role redis writes, given to a real Redis."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.common.services import free_port, wait_until
from tests.plugins.conftest import ROOT

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
SECONDS = 120
PASSWORD = "of the test"  # noqa: S105 - of a test
# Borrows all but the tasks of the role, and writes what these would have put on a host.
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  roles: [redis]
"""
TASKS = """
- ansible.builtin.copy:
    content: "{{ item.content }}"
    dest: "{{ output }}/{{ item.name }}"
    mode: "0600"
  loop:
    - {name: fleetwatch.conf, content: "{{ lookup('ansible.builtin.template', 'redis.conf.j2') }}"}
    - {name: users.acl, content: "{{ redis_users }}"}
    - {name: check.json, content: "{{ redis_check | to_json }}"}
"""


class Redis:
    """What the role writes with some settings, and a Redis that runs with it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None
        role = folder / "roles/redis"
        (role / "tasks").mkdir(parents=True)
        for part in ("defaults", "vars", "templates"):
            (role / part).symlink_to(ROOT / "roles/redis" / part)
        (role / "tasks/main.yml").write_text(TASKS)
        (folder / "play.yml").write_text(PLAY)

    def write(self, **settings: Any) -> None:
        values = settings | {"output": str(self.folder), "redis_port": self.port}
        values |= {"ansible_python_interpreter": sys.executable}
        done = subprocess.run(  # noqa: S603 - our own program
            [BIN / "ansible-playbook", "-i", "localhost,", "play.yml", "-e", json.dumps(values)],
            cwd=self.folder,
            env={**os.environ, "ANSIBLE_LOCALHOST_WARNING": "False", "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()

    def program(self) -> list[str]:
        """Return the command that checks the files, without systemd, which stops it once it is up."""
        command: list[str] = json.loads(self.text("check.json"))
        server = command.index("/usr/bin/redis-server")
        assert command[0] == "systemd-run"
        assert all(word.startswith("--") for word in command[1:server])
        return [word.replace("{config}", str(self.folder)) for word in command[server:]]

    def refusal(self) -> str:
        """Return what Redis says of settings that it does not start with."""
        done = subprocess.run(  # noqa: S603 - redis-server
            self.program(), capture_output=True, text=True, check=False, timeout=SECONDS
        )
        assert done.returncode != 0
        return done.stdout + done.stderr

    def start(self) -> None:
        where = ["--dir", str(self.folder), "--aclfile", str(self.folder / "users.acl"), "--supervised", "no"]
        self._process = subprocess.Popen(  # noqa: S603 - redis-server
            ["/usr/bin/redis-server", self.folder / "fleetwatch.conf", *where], stdout=subprocess.DEVNULL
        )

        def up() -> bool:
            with suppress(redis.ConnectionError):
                return bool(self.client("metrics").ping())
            return False

        wait_until(up, SECONDS, "Redis answers")

    def client(self, user: str = "default", password: str = PASSWORD) -> redis.Redis:
        """Return a client; without a password of its own, Redis takes any."""
        return redis.Redis(port=self.port, username=user, password=password, decode_responses=True)

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redis]:
    made = Redis(tmp_path)
    yield made
    made.stop()


def test_programs_use_the_cache_and_cannot_administer_it(server: Redis) -> None:
    server.write()
    server.start()
    client = server.client()
    assert client.set("key", "value", ex=5)
    assert client.get("key") == "value"
    for command in ("FLUSHALL", "KEYS *", "CONFIG GET *", "SHUTDOWN", "MONITOR", "REPLICAOF other 1"):
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command(*command.split())  # type: ignore[no-untyped-call]


def test_the_exporter_sees_the_server_and_no_key(server: Redis) -> None:
    server.write()
    server.start()
    server.client().set("key", "value")
    exporter = server.client("metrics")
    assert exporter.info()["maxmemory_policy"] == "allkeys-lru"
    assert exporter.config_get("maxclients") == {"maxclients": "1000"}
    assert exporter.slowlog_get() == []
    for command in ("GET key", "SET key other", "SCAN 0", "CONFIG SET maxclients 1"):
        with pytest.raises(redis.exceptions.NoPermissionError):
            exporter.execute_command(*command.split())  # type: ignore[no-untyped-call]


def test_a_password_is_asked_for_and_not_written_down(server: Redis) -> None:
    server.write(redis_password=PASSWORD)
    server.start()
    assert server.client(password=PASSWORD).ping()
    for user in ("default", "metrics"):
        with pytest.raises(redis.AuthenticationError):
            server.client(user, "another").ping()
    assert PASSWORD not in server.text("users.acl") + server.text("fleetwatch.conf")


def test_nothing_is_kept_by_default(server: Redis) -> None:
    server.write()
    assert 'save ""\nappendonly no\n' in server.text("fleetwatch.conf")
    server.write(redis_persistence="snapshots")
    assert "save 3600 1 300 100 60 10000\nappendonly no\n" in server.text("fleetwatch.conf")
    server.write(redis_persistence="log")
    assert 'save ""\nappendonly yes\n' in server.text("fleetwatch.conf")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"redis_extra_settings": {"maxmemroy-samples": 5}}, "maxmemroy-samples"),
        ({"redis_max_memory": "128 elephants"}, "maxmemory 128 elephants"),
        ({"redis_commands": ["+@everything"]}, "+@everything"),
    ],
    ids=["name", "value", "commands"],
)
def test_wrong_settings_are_refused_by_name(server: Redis, settings: dict[str, Any], said: str) -> None:
    server.write(**settings)
    assert said in server.refusal()
