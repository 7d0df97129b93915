"""Grafana's secrets are refused when everybody knows them, before any host is touched."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.inventory_check import InventoryCheck

from tests.plugins.conftest import INVENTORY, write

if TYPE_CHECKING:
    from tests.plugins.conftest import MakeFleet

ROLE = Path(__file__).parents[2] / "roles/grafana"
GOOD = {"grafana_admin_password": "a-good-password", "grafana_secret_key": "b" * 64}
GROUP = "grafana: {hosts: {monitor: {}}}\n"


@pytest.fixture
def problems(make_fleet: MakeFleet, roles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Return a check of an inventory with these variables of the group grafana."""
    monkeypatch.chdir(tmp_path)
    names = ("defaults/main.yml", "meta/argument_specs.yml", "monitoring/scrape.yml")
    write(roles, {f"grafana/{name}": (ROLE / name).read_text() for name in names})

    def check(**changes: str) -> list[str]:
        settings = {name: value for name, value in {**GOOD, **changes}.items() if value != "absent"}
        text = "".join(f"{name}: {value!r}\n" for name, value in settings.items())
        return InventoryCheck(make_fleet(INVENTORY + GROUP, group_vars_grafana=text)).run()[0]

    return check


def test_good_ones_pass(problems) -> None:  # type: ignore[no-untyped-def]
    assert problems() == []


@pytest.mark.parametrize("name", list(GOOD))
def test_missing_ones_are_named_once(problems, name: str) -> None:  # type: ignore[no-untyped-def]
    (problem,) = problems(**{name: "absent"})
    assert problem.startswith(f"{name} is missing; set it in a file that ansible-vault encrypts")


@pytest.mark.parametrize("name", list(GOOD))
@pytest.mark.parametrize(
    "value", ["admin", "12345678901", "SW2YcwTIb9zpOOhoPsMm", " with a space at the end "]
)
def test_weak_ones_are_refused_and_not_shown(problems, name: str, value: str) -> None:  # type: ignore[no-untyped-def]
    (problem,) = problems(**{name: value})
    assert problem.startswith(f"{name} must have at least 12 characters")
    assert value not in problem.replace("admin_password", "")
    assert "group_vars/grafana.yml:" in problem


def test_what_a_choice_needs(problems) -> None:  # type: ignore[no-untyped-def]
    assert problems(grafana_scheme="https", grafana_database_type="postgres") == [
        "grafana_tls_certificate is missing; grafana_scheme https needs it (host monitor)",
        "grafana_tls_key is missing; grafana_scheme https needs it (host monitor)",
        "grafana_database_host is missing; grafana_database_type postgres needs it (host monitor)",
    ]
