"""docs/how-to/probe.md: what it shows works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.docs.test_how_tos import checker, follow, inventory, render

__all__ = ["inventory"]  # the fixture

pytestmark = pytest.mark.slow


def test_the_page_gives_these_probes(inventory: Path) -> None:
    follow("probe", inventory)
    hosts = yaml.safe_load((inventory / "hosts.yml").read_text())
    (inventory / "hosts.yml").write_text(
        yaml.safe_dump(hosts | {"web": {"hosts": {"web1": None, "web2": None}}})
    )
    secrets = inventory / "group_vars/all/vault.yml"
    secrets.write_text(secrets.read_text() + "vault_prober_password: of-the-prober\n")
    output = render("prometheus", inventory)
    checker("promtool", "check", "config", output / "prometheus.yml")
    targets = json.loads((output / "targets/blackbox.json").read_text())
    labels = [target["labels"] for target in targets]
    assert {tuple(target["targets"]) for target in targets} == {("192.0.2.10:9115",)}
    assert {(one["host"], one["name"], one["module"], one["target"]) for one in labels} == {
        ("monitor1", "receiver", "http_2xx", "http://192.0.2.10:5001/readyz"),
        ("shop.example.com", "shop", "https_2xx", "https://shop.example.com/"),
        ("mail.example.com", "mail", "smtp_starttls", "mail.example.com:587"),
        ("web1", "shop", "https_2xx", "https://192.0.2.21/health"),
        ("web1", "ssh", "ssh_banner", "192.0.2.21:22"),
        ("web2", "shop", "https_2xx", "https://192.0.2.22/health"),
        ("web2", "ssh", "ssh_banner", "192.0.2.22:22"),
        ("db1", "postgresql", "tcp_connect", "192.0.2.31:5432"),
        *(  # every host of the fleet
            (host, "ssh_banner", "ssh_banner", f"{address}:22")
            for host, address in (
                ("monitor1", "192.0.2.10"),
                ("web1", "192.0.2.21"),
                ("web2", "192.0.2.22"),
                ("db1", "192.0.2.31"),
                ("staging-web1", "192.0.2.41"),
            )
        ),
    }
    (database,) = [one for one in labels if one["name"] == "postgresql"]
    assert (database["team"], database["__scrape_interval__"], database["__scrape_timeout__"]) == (
        "data",
        "1m",
        "10s",
    )
