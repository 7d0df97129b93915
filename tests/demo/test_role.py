"""The role and the program agree on settings and defaults; nginx is told what the settings say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from pydantic import SecretStr

from fleetwatch.demo import MAX_INSTANCES
from fleetwatch.demo.settings import Settings

ROOT = Path(__file__).parents[2]
ROLE = ROOT / "roles/transactions"
# The role knows better: folders that the units make, one address for both, and the Redis of the same host.
OF_THE_ROLE = {"socket_directory", "state_directory", "listen_address", "redis_url"}


def load(name: str) -> Any:
    return yaml.safe_load((ROLE / name).read_text(encoding="utf-8"))


def test_defaults_are_those_of_the_program() -> None:
    defaults = load("defaults/main.yml")
    for name, value in Settings.model_validate({}).model_dump().items():
        plain = value.get_secret_value() if isinstance(value, SecretStr) else value
        if name == "log_level":
            plain = plain.lower()
        if name not in OF_THE_ROLE:
            assert defaults[f"transactions_{name}"] == ("" if plain is None else plain), name


def test_the_role_hands_on_every_setting_and_keeps_secrets_apart() -> None:
    variables = load("vars/main.yml")
    secrets = {name for name, field in Settings.model_fields.items() if field.annotation is SecretStr}
    assert {
        name.removeprefix("credentials/") for name in variables["transactions_possible_secrets"]
    } == secrets
    assert variables["transactions_settings"].keys() == Settings.model_fields.keys() - secrets
    for name, value in variables["transactions_settings"].items():
        if name not in OF_THE_ROLE:
            assert value == f"{{{{ transactions_{name} }}}}"


def test_the_role_takes_as_many_instances_as_the_program() -> None:
    text = (ROOT / "plugins/plugin_utils/fleet.py").read_text(encoding="utf-8")
    assert f"_MAX_INSTANCES = {MAX_INSTANCES}\n" in text


def nginx(**changes: Any) -> str:
    """Return nginx' configuration with the role's defaults, and ``changes`` to them."""
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 - no HTML
    template = environment.from_string((ROLE / "templates/nginx.conf.j2").read_text(encoding="utf-8"))
    values = load("defaults/main.yml") | {
        "transactions_listener": {"address": "0.0.0.0:8000"},
        "transactions_socket_directory": "/run/transactions",
    }
    return template.render(values | changes)


@pytest.mark.parametrize("count", [1, 3])
def test_nginx_knows_each_instance_and_tries_all_when_it_trusts_none(count: int) -> None:
    servers = [
        line.split()
        for line in nginx(transactions_api_instances=count).splitlines()
        if " server unix:" in line
    ]
    sockets = [f"unix:/run/transactions/api-{number}.sock" for number in range(1, count + 1)]
    assert [words[1] for words in servers if words[-1] != "backup;"] == sockets
    assert [words[1] for words in servers if words[-1] == "backup;"] == sockets


def test_nginx_speaks_tls_only_with_a_certificate() -> None:
    assert "ssl" not in nginx()
    text = nginx(transactions_tls_certificate="/etc/ssl/shop.pem", transactions_tls_key="/etc/ssl/shop.key")
    assert "listen 0.0.0.0:8000 ssl default_server;" in text
    assert "ssl_certificate /etc/ssl/shop.pem;" in text
    assert "ssl_certificate_key /etc/ssl/shop.key;" in text


def test_nginx_listens_on_all_addresses_when_told_so() -> None:
    text = nginx(transactions_listener={"address": "[::]:8000"})
    assert "listen [::]:8000 default_server ipv6only=off;" in text


def test_nginx_limits_the_rate_unless_told_not_to() -> None:
    assert "rate=7r/s" in nginx(transactions_rate_limit=7)
    assert "limit_req" not in nginx(transactions_rate_limit=0)
