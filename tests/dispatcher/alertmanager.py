"""The real Alertmanager, as a process of the tests."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.common.services import answers, call, free_port, wait_until

PROGRAM = Path(__file__).parents[2] / ".cache/tools/bin/prometheus-alertmanager"
# Debian's build wants its mail templates under /usr/share, where an unpacked package does not have them.
_IN_NAMESPACE = (
    "mount -t tmpfs none /usr/share && mkdir -p /usr/share/prometheus/alertmanager"
    " && cd /usr/share/prometheus/alertmanager && touch default.tmpl email.tmpl && exec " + '"$@"'
)


@dataclass
class Alertmanager:
    url: str

    def post(self, name: str, starts_at: str, ends_at: str | None = None, **annotations: str) -> None:
        """Tell it of an alert, as Prometheus does."""
        alert = {"labels": {"alertname": name}, "annotations": annotations, "startsAt": starts_at}
        body = [alert | ({"endsAt": ends_at} if ends_at else {})]
        assert call("POST", f"{self.url}/api/v2/alerts", body).status == 200

    def alert(self, name: str) -> dict[str, Any]:
        """Return what it knows of an alert."""
        (found,) = (a for a in self.alerts() if a["labels"]["alertname"] == name)
        return found

    def alerts(self) -> list[dict[str, Any]]:
        return list(call("GET", f"{self.url}/api/v2/alerts").json)

    def silence(self, name: str) -> str:
        now = datetime.now(UTC)
        body = {
            "matchers": [{"name": "alertname", "value": name, "isRegex": False}],
            "startsAt": now.isoformat(),
            "endsAt": (now + timedelta(hours=1)).isoformat(),
            "createdBy": "test",
            "comment": "test",
        }
        number = call("POST", f"{self.url}/api/v2/silences", body).json["silenceID"]
        wait_until(lambda: self.alert(name)["status"]["silencedBy"])
        return str(number)

    def unsilence(self, name: str, silence: str) -> None:
        assert call("DELETE", f"{self.url}/api/v2/silence/{silence}").status == 200
        wait_until(lambda: not self.alert(name)["status"]["silencedBy"])


@contextmanager
def run_alertmanager(directory: Path) -> Iterator[Alertmanager]:
    if not PROGRAM.exists():
        pytest.fail("Alertmanager is not unpacked: `make prepare` does it", pytrace=False)
    config = directory / "alertmanager.yml"
    config.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    port = free_port()
    command = [
        *(
            "setpriv",
            "--pdeathsig=KILL",
            "unshare",
            "--mount",
            "--map-root-user",
            "sh",
            "-c",
            _IN_NAMESPACE,
            "-",
        ),
        str(PROGRAM),
        f"--config.file={config}",
        f"--storage.path={directory}/data",
        "--cluster.listen-address=",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    log = directory / "alertmanager.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)  # noqa: S603 - our own program
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/-/ready"), what="Alertmanager answers")
        yield Alertmanager(f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait(10)
