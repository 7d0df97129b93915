# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""Render a component's ``monitoring/rules.yml``.

The file is a Prometheus rule file and a Jinja template at once. It uses ``[[ name ]]`` for values,
``[% if … %]`` for blocks and ``[# … #]`` for comments, so that Prometheus' own ``{{ $labels.host }}``
passes through untouched. This module needs only jinja2: unit tests render rules without Ansible.
"""

from __future__ import annotations

import traceback
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

if TYPE_CHECKING:
    from collections.abc import Mapping


JOBS = "fleetwatch_jobs"
"""Variable that a rule file may use besides those of the roles: the names of the jobs that have targets."""


class RulesError(ValueError):
    """A rule file cannot be rendered; the message names the file, the line and what is wrong."""


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        variable_start_string="[[",
        variable_end_string="]]",
        block_start_string="[%",
        block_end_string="%]",
        comment_start_string="[#",
        comment_end_string="#]",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        autoescape=False,  # the result is YAML, not HTML
    )


def rules_variables(path: str | Path) -> set[str]:
    """Return the names of the variables that the rule file at ``path`` refers to.

    :raises RulesError: the file is not a valid template.
    """
    try:
        return set(meta.find_undeclared_variables(_environment().parse(_read(path))))
    except TemplateSyntaxError as error:
        raise RulesError(f"{path}:{error.lineno}: {error.message}") from error


def render_rules(path: str | Path, variables: Mapping[str, Any]) -> str:
    """Return the text of the rule file at ``path`` with ``variables`` filled in.

    :param path: a ``rules.yml``, in UTF-8.
    :param variables: plain values; Jinja inside a value is not rendered again.
    :raises RulesError: the file is not a valid template, or uses a variable that is not defined.
    """
    try:
        return _environment().from_string(_read(path)).render(variables)
    except TemplateSyntaxError as error:
        raise RulesError(f"{path}:{error.lineno}: {error.message}") from error
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        line = next((frame.lineno for frame in reversed(frames) if frame.filename == "<template>"), 1)
        raise RulesError(f"{path}:{line}: {error}") from error


def _read(path: str | Path) -> str:
    return Path(path).read_text(encoding="utf-8")
