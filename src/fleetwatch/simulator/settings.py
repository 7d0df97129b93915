"""Settings of the simulator."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from fleetwatch.common.settings import Port, Seconds, ServiceSettings, StringList

from .model import default_names
from .scenarios import Play

SHORTEST_TOKEN = 16
"""Characters."""


def _state_file() -> Path | None:
    """Return a file in the directory that systemd's StateDirectory= provides, if it does."""
    directory = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(directory, "state.json") if directory else None


class Settings(ServiceSettings):
    """What can be set, in ``--config FILE`` or as ``METRICS_SIMULATOR_<SETTING>``."""

    model_config = SettingsConfigDict(env_prefix="METRICS_SIMULATOR_")

    mode: Literal["push", "serve"] = Field(
        "push", description="push to the Pushgateway, or serve the simulated hosts on /metrics"
    )
    pushgateway_url: str = Field("http://127.0.0.1:9091", description="Base URL of the Pushgateway")
    interval: Seconds = Field(5, description="Seconds between two pushes")
    delete_on_stop: bool = Field(
        True, description="Delete the groups from the Pushgateway when the service stops"
    )

    host_count: int = Field(3, ge=1, le=1000, description="How many hosts to simulate")
    hosts: StringList = Field(
        [], description="Names of the simulated hosts; empty = host_count made-up names"
    )
    seed: int = Field(1, description="Hosts with the same seed and name behave the same")
    peak_hour: float = Field(
        14, ge=0, lt=24, description="Hour of the day, UTC, at which most hosts are busiest"
    )

    incidents: list[Play] = Field([], description="Incidents to play at start")
    scenario_directories: StringList = Field([], description="Directories with scenario files of your own")

    listen_address: str = Field("0.0.0.0", description="Address to listen on")  # noqa: S104 - Prometheus scrapes it
    port: Port = Field(9101, description="TCP port of /metrics, /healthz, /readyz and /incidents")
    control_token: SecretStr | None = Field(
        None, description="Token that /incidents asks for; without one it answers only this machine"
    )
    state_file: Path | None = Field(
        default_factory=_state_file,
        description="File that keeps counters over a restart; default state.json in $STATE_DIRECTORY",
    )

    @field_validator("pushgateway_url")
    @classmethod
    def _is_a_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("must look like http://host:9091")
        return url

    @field_validator("hosts")
    @classmethod
    def _are_host_names(cls, hosts: list[str]) -> list[str]:
        for host in hosts:
            if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?", host):
                raise ValueError(f'"{host}" is not a host name')
        if len(set(hosts)) < len(hosts):
            raise ValueError("a name is there twice")
        return hosts

    @field_validator("control_token")
    @classmethod
    def _is_long(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and len(token.get_secret_value()) < SHORTEST_TOKEN:
            raise ValueError(f"must have at least {SHORTEST_TOKEN} characters")
        return token

    def host_names(self) -> list[str]:
        """Return the names of the simulated hosts."""
        return self.hosts or default_names(self.host_count)
