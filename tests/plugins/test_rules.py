from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.rules import (
    RulesError,
    render_rules,
    rules_variables,
)

if TYPE_CHECKING:
    from pathlib import Path

RULES = """\
groups:
  - name: web
    rules:
      [% for level in levels %]
      - alert: Slow
        expr: rate(x{a="b"}[5m]) > [[ limit ]] # [[ level ]]
        annotations: {summary: "{{ $labels.host }} is slow: {{ $value }}"}
      [% endfor %]
[# a comment #]
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yml"
    path.write_text(RULES)
    return path


def test_only_square_brackets_are_rendered(rules: Path) -> None:
    assert render_rules(rules, {"levels": ["info"], "limit": 4}) == (
        "groups:\n"
        "  - name: web\n"
        "    rules:\n"
        "      - alert: Slow\n"
        '        expr: rate(x{a="b"}[5m]) > 4 # info\n'
        '        annotations: {summary: "{{ $labels.host }} is slow: {{ $value }}"}\n'
    )


def test_names_of_variables(rules: Path) -> None:
    assert rules_variables(rules) == {"levels", "limit"}


def test_undefined_variable_names_file_and_line(rules: Path) -> None:
    with pytest.raises(RulesError, match=r"rules\.yml:6: 'limit' is undefined"):
        render_rules(rules, {"levels": ["info"]})


@pytest.mark.parametrize("function", [rules_variables, lambda path: render_rules(path, {})])
def test_syntax_error_names_file_and_line(tmp_path: Path, function: object) -> None:
    path = tmp_path / "rules.yml"
    path.write_text("groups:\n  - [[ name\n")
    with pytest.raises(RulesError, match=r"rules\.yml:2: "):
        function(path)  # type: ignore[operator]


def test_error_in_an_expression_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "rules.yml"
    path.write_text("groups:\n  - [[ 1 / limit ]]\n")
    with pytest.raises(RulesError, match=r"rules\.yml:2: division by zero"):
        render_rules(path, {"limit": 0})
