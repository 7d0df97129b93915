"""Matchers on labels, written as in Alertmanager: ``severity="critical"``, ``team=~"db|web"``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_FORM = re.compile(r"\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*(.*?)\s*", re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPES = {"n": "\n", '"': '"', "\\": "\\"}


@dataclass(frozen=True)
class Matcher:
    """One condition; a label that is missing counts as empty, as in Alertmanager."""

    label: str
    negated: bool
    pattern: re.Pattern[str]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether the labels meet the condition."""
        found = self.pattern.fullmatch(labels.get(self.label, "")) is not None
        return found != self.negated


def parse(text: str) -> Matcher:
    """Return the matcher that a text describes; raise ValueError when it describes none."""
    form = _FORM.fullmatch(text)
    if form is None:
        raise ValueError(f'"{text}" is not a matcher such as severity="critical" or team=~"db|web"')
    label, operator, value = form.groups()
    if value.startswith('"'):
        quoted = _QUOTED.fullmatch(value)
        if quoted is None:
            raise ValueError(f'matcher "{text}": the quotes do not fit')
        value = re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), quoted[1], flags=re.DOTALL)
    elif '"' in value:
        raise ValueError(f'matcher "{text}": the quotes do not fit')
    try:
        pattern = re.compile(value if "~" in operator else re.escape(value), re.DOTALL)
    except re.error as error:
        raise ValueError(f'matcher "{text}": not a regular expression: {error}') from None
    return Matcher(label, operator.startswith("!"), pattern)
