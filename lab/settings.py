"""What the user chose for the lab, and the secrets it was given at its first start."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from lab import STATE, image
from lab.console import LabError

MAX_NODES = 100

SECRETS = {
    "alert_receiver_sendgrid_api_key": "SG.",
    "alert_receiver_webhook_token": "",
    "grafana_admin_password": "",
    "grafana_secret_key": "",
    "lab_password": "",
    "metrics_simulator_control_token": "",
}
"""Secret variables of the lab, and what each begins with."""


@dataclass(frozen=True)
class Settings:
    """The user's choices; a later ``make lab`` keeps them.

    Attributes:
        release: Debian release of the hosts (LAB_RELEASE).
        nodes: number of hosts that are only watched (LAB_NODES).
        grafana: release archive of Grafana, a file or URL (GRAFANA_RELEASE); ``none`` takes it out.

    """

    release: str = image.DEFAULT_RELEASE
    nodes: int = 3
    grafana: str = ""

    @classmethod
    def load(cls, environment: Mapping[str, str], state: Path = STATE) -> Settings:
        """Return the settings: from the environment, else as remembered, else the defaults.

        Raises:
            LabError: a variable has no possible value.

        """
        path = state / "lab.json"
        known = cls(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else cls()
        release = environment.get("LAB_RELEASE") or known.release
        nodes = environment.get("LAB_NODES") or str(known.nodes)
        if release not in image.RELEASES:
            raise LabError(f"LAB_RELEASE is {release!r}: choose one of {', '.join(image.RELEASES)}")
        if not (nodes.isascii() and nodes.isdigit() and int(nodes) <= MAX_NODES):
            raise LabError(f"LAB_NODES is {nodes!r}: choose a number from 0 to {MAX_NODES}")
        grafana = environment.get("GRAFANA_RELEASE") or known.grafana
        if grafana and grafana != "none" and "://" not in grafana:
            grafana = str(Path(grafana).expanduser().absolute())
        return cls(release, int(nodes), grafana)

    def save(self, state: Path = STATE) -> None:
        """Remember the settings."""
        write_private(state / "lab.json", json.dumps(asdict(self)) + "\n")


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody else may read, in a directory that nobody else may enter."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)


def read_secrets(state: Path = STATE) -> dict[str, str]:
    """Return the lab's secrets, by variable; none before its first start."""
    path = state / "secrets.yml"
    if not path.exists():
        return {}
    lines = (line.partition(": ") for line in path.read_text(encoding="utf-8").splitlines() if ": " in line)
    return {name: json.loads(value) for name, _, value in lines}


def ensure_secrets(state: Path = STATE) -> None:
    """Generate the secrets that are still missing, into a file of mode 0600."""
    known = read_secrets(state)
    missing = {
        name: start + secrets.token_urlsafe(32) for name, start in SECRETS.items() if name not in known
    }
    if missing:
        lines = [f"{name}: {json.dumps(value)}\n" for name, value in (known | missing).items()]
        write_private(state / "secrets.yml", "".join(lines))
