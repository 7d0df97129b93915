"""A disk that is really full: a small file system, mounted for the test."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetwatch.store import migrations
from tests.common.services import alert, call, wait_until
from tests.databases import PostgresServer
from tests.faults.provider import run_provider
from tests.faults.stack import Posters, names, run_stack

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount; tests/receiver does without"),
]

_MEGABYTE = 1024 * 1024
_ALERTS = 500  # of 8 kB each, where one megabyte is left


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """Return an empty file system of 24 MB, where PostgreSQL's user gets too."""
    disk = Path(tempfile.mkdtemp(prefix="fleetwatch-disk-"))
    disk.chmod(0o755)
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=24m,mode=0777", "tmpfs", disk], check=True)  # noqa: S603
    try:
        yield disk
    finally:
        # Lazily: it goes even while a process still has a file open.
        subprocess.run(["/bin/umount", "--lazy", disk], check=True)  # noqa: S603
        disk.rmdir()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_on_disk(request: pytest.FixtureRequest, small_disk: Path) -> Iterator[str]:
    """Return the URL of a database whose tables are on the small disk."""
    if request.param == "sqlite":
        url = f"sqlite:///{small_disk}/alerts.db"
        migrations.upgrade(url)
        yield url
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    folder = small_disk / "tablespace"
    folder.mkdir()
    shutil.chown(folder, "postgres", "postgres")
    server.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
    server.execute("CREATE DATABASE on_small TABLESPACE small")
    migrations.upgrade(server.url("on_small"))
    yield server.url("on_small")
    server.execute("DROP DATABASE on_small WITH (FORCE)")
    server.execute("DROP TABLESPACE small")


def test_a_full_disk_is_503_until_there_is_space(
    database_on_disk: str, small_disk: Path, tmp_path: Path
) -> None:
    with (
        run_provider() as provider,
        # Nothing that was sent while the disk was full is sent again: its claim lasts longer.
        run_stack(tmp_path, database_on_disk, provider, lease=60) as stack,
    ):
        ballast = small_disk / "ballast"
        free = os.statvfs(small_disk)
        ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - _MEGABYTE))
        posters = Posters(stack.url, names(_ALERTS, 10), bytes_each=8000)
        posters.start()
        wait_until(lambda: posters.answered[503] > 20, 30, "the disk is full")
        assert 0 < len(posters.accepted) < _ALERTS
        assert call("GET", f"{stack.url}/healthz").status == 200
        receiver, dispatcher = stack.receiver.service.process, stack.dispatcher.service.process

        ballast.unlink()
        posters.join()
        stack.wait_delivered()
        stack.check(posters.accepted, provider)
        assert set(posters.answered) == {200, 503}
        # By themselves: nobody started them again.
        assert stack.receiver.service.process is receiver
        assert stack.dispatcher.service.process is dispatcher
        assert call("POST", f"{stack.url}/alerts", {"alerts": [alert("Last")]}).status == 200
    assert provider.duplicates() == 0
