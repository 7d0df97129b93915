"""Channels and users of an inventory, parted from their secrets."""

from __future__ import annotations

from typing import get_args

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.fleetwatch.monitoring.plugins.filter.secrets import (
    CHANNEL_SECRETS,
    split_channels,
    split_users,
)

from fleetwatch.alerting.channels import AnyChannel, ChannelSettings
from tests.plugins.conftest import ROOT

MODELS: dict[str, type[ChannelSettings]] = {
    get_args(model.model_fields["type"].annotation)[0]: model for model in get_args(get_args(AnyChannel)[0])
}


def options() -> dict[str, dict[str, object]]:
    """Return what the role says of the options of a channel."""
    specs = yaml.safe_load((ROOT / "roles/alert_receiver/meta/argument_specs.yml").read_text())
    found: dict[str, dict[str, object]] = specs["argument_specs"]["main"]["options"][
        "alert_receiver_channels"
    ]["options"]
    return found


def test_a_secret_is_a_file_and_everything_else_a_setting() -> None:
    parts = split_channels(
        [
            {"name": "mail", "type": "smtp", "host": "mx", "username": "u", "password": "p"},
            {"name": "team", "type": "slack", "url": "https://hooks/x"},
            {"name": "hook", "type": "webhook", "url": "https://h", "hmac_key": "k", "token": ""},
        ]
    )
    assert parts["settings"] == [
        {"name": "mail", "type": "smtp", "host": "mx", "username": "u"},
        {"name": "team", "type": "slack"},
        {"name": "hook", "type": "webhook", "url": "https://h"},
    ]
    assert parts["files"] == {
        "credentials/channel.mail.password": "p",
        "credentials/channel.team.url": "https://hooks/x",
        "credentials/channel.hook.hmac_key": "k",
    }


def test_users_keep_their_password_out_of_the_settings() -> None:
    parts = split_users([{"name": "ops", "password": "p", "roles": ["read"]}])
    assert parts == {"settings": [{"name": "ops", "roles": ["read"]}], "files": {"credentials/user.ops": "p"}}


def test_a_type_whose_secrets_are_not_known_is_refused_without_them() -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        split_channels([{"name": "team", "type": "slak", "url": "hush"}])
    assert "type of the channel team must be one of: sendgrid, smtp" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_the_secrets_are_those_of_the_services() -> None:
    assert {name: set(model.SECRETS) for name, model in MODELS.items()} == CHANNEL_SECRETS


def test_the_role_takes_every_option_of_every_channel() -> None:
    known = {name for model in MODELS.values() for name in (*model.model_fields, *model.SECRETS)}
    assert set(options()) == known
    assert options()["type"]["choices"] == list(MODELS)


def test_what_only_a_secret_can_be_is_never_logged() -> None:
    secret = {name for model in MODELS.values() for name in model.SECRETS}
    public = {name for model in MODELS.values() for name in model.model_fields}
    assert {name for name, option in options().items() if option.get("no_log")} == secret - public
