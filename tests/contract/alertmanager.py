"""The real Alertmanager as a process, alone or in a cluster, posting to a receiver."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import tools
from tests.common.services import answers, call, free_port, wait_until

BINARY = tools.BIN / "prometheus-alertmanager"
TOKEN = "the-token-of-alertmanager"  # noqa: S105 - of the test
_BEGAN = datetime.now(UTC) - timedelta(minutes=1)


@dataclass
class Alertmanager:
    """One Alertmanager. Groups wait as little as possible, so that the tests need not."""

    directory: Path
    receiver_url: str
    token: str = TOKEN
    receiver: str = "fleetwatch"
    webhook: dict[str, Any] = field(default_factory=dict)
    """Further settings of the webhook."""
    config: dict[str, Any] = field(default_factory=dict)
    """Further parts of the configuration file."""
    group_by: Sequence[str] = ("alertname",)
    peers: Sequence[int] = ()
    """Ports of the other members of the cluster; empty is no cluster."""
    peer_timeout: str = "1s"
    cluster_port: int = field(default_factory=free_port)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    began: datetime = _BEGAN
    """Since when the alerts fire that it is told of."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        if not tools.complete():
            pytest.fail("Alertmanager is not there: `make tools` fetches it", pytrace=False)
        self.directory.mkdir(exist_ok=True)
        file = self.directory / "alertmanager.yml"
        file.write_text(yaml.safe_dump(self._config()))
        cluster = [
            f"--cluster.listen-address=127.0.0.1:{self.cluster_port}"
            if self.peers
            else "--cluster.listen-address="
        ]
        cluster += [f"--cluster.peer=127.0.0.1:{port}" for port in self.peers]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - a program that was found above
                [
                    *_with_share(tools.SHARE),
                    BINARY,
                    f"--config.file={file}",
                    f"--storage.path={self.directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    f"--cluster.peer-timeout={self.peer_timeout}",
                    "--cluster.settle-timeout=2s",
                    "--log.level=debug",
                    *cluster,
                ],
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: answers(f"{self.url}/-/ready"), what="Alertmanager answers")

    def kill(self) -> None:
        """Kill it with SIGKILL; what it did not write is lost."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def _config(self) -> dict[str, Any]:
        return {
            "route": {
                "receiver": self.receiver,
                "group_by": list(self.group_by),
                "group_wait": "100ms",
                "group_interval": "1s",
                "repeat_interval": "1h",
            },
            "receivers": [
                {
                    "name": self.receiver,
                    "webhook_configs": [
                        {
                            "url": f"{self.receiver_url}/alerts",
                            "send_resolved": True,
                            "http_config": {"authorization": {"credentials": self.token}},
                            **self.webhook,
                        }
                    ],
                }
            ],
            **self.config,
        }

    def fire(self, *alerts: str, ended: bool = False, **labels: str) -> None:
        """Tell it, as Prometheus does, that alerts fire since ``began``, or that they are over."""
        now = datetime.now(UTC)
        body = [
            {
                "labels": {"alertname": name, "severity": "critical", **labels},
                "annotations": {"summary": name},
                "startsAt": self.began.isoformat(),
                "endsAt": (now if ended else now + timedelta(hours=1)).isoformat(),
                "generatorURL": "http://prometheus:9090/graph",
            }
            for name in alerts
        ]
        assert call("POST", f"{self.url}/api/v2/alerts", body).status == 200

    def resolve(self, *alerts: str, **labels: str) -> None:
        """Tell it that alerts are over."""
        self.fire(*alerts, ended=True, **labels)

    def amtool(self, *arguments: str) -> str:
        """Run amtool."""
        command = [str(tools.BIN / "amtool"), f"--alertmanager.url={self.url}", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603

    def silence(self, matcher: str) -> str:
        """Silence alerts; return the silence's id."""
        return self.amtool("silence", "add", "--author=test", "--comment=test", matcher).strip()

    def metric(self, name: str) -> float:
        """Return a counter of the webhook, over all its other labels."""
        text = call("GET", f"{self.url}/metrics").text
        found = re.findall(rf'^{name}{{integration="webhook"[^}}]*}} (\S+)$', text, re.MULTILINE)
        assert found, name
        return sum(map(float, found))

    @property
    def members(self) -> int:
        """Return how many members of its cluster it knows, with itself."""
        return len(call("GET", f"{self.url}/api/v2/status").json["cluster"].get("peers", []))

    @property
    def delivered(self) -> int:
        """Return how many notifications it has begun."""
        return int(self.metric("alertmanager_notifications_total"))


def _with_share(directory: Path) -> list[str]:
    """Return the beginning of a command that sees a directory as /usr/share, where Debian's templates are."""
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return [
        "unshare",
        "--mount",
        *as_root,
        "sh",
        "-c",
        'mount --bind "$0" /usr/share && exec "$@"',
        str(directory),
    ]
