"""The role and the program agree on settings and defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from fleetwatch.collector.settings import COLLECTORS, Settings

ROLE = Path(__file__).parents[2] / "roles" / "metrics_collector"


def load(file: str) -> Any:
    return yaml.safe_load((ROLE / file).read_text(encoding="utf-8"))


def test_defaults_are_those_of_the_program() -> None:
    defaults = load("defaults/main.yml")
    fields = {name: field.default for name, field in Settings.model_fields.items() if name != "log_level"}
    assert {name: defaults[f"metrics_collector_{name}"] for name in fields} == fields


def test_the_role_hands_on_every_setting() -> None:
    handed_on = load("vars/main.yml")["metrics_collector_settings"]
    assert handed_on == {
        name: f"{{{{ metrics_collector_{name} }}}}" for name in Settings.model_fields if name != "log_level"
    }


def test_the_collectors_that_may_be_chosen_are_those_there_are() -> None:
    options = load("meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert tuple(options["metrics_collector_collectors"]["choices"]) == COLLECTORS
