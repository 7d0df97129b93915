# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""Service level objectives: the rules that Prometheus gets for the list ``fleetwatch_slos``.

The method is that of the Google SRE Workbook, chapter 5, "Alerting on SLOs": multiple windows and burn rates
(https://sre.google/workbook/alerting-on-slos/). Names of the series are those that Sloth made usual.

- A ratio of errors over a window is recorded where there was traffic, and only there. As a counter of errors
  often does not exist before the first one, no errors beside a total count as zero errors.
- Up to 6 hours the ratio comes from the site's own expressions, with the window filled in, so it is exact and
  there at once for the past too. Beyond, such expressions would read millions of samples again and again, so
  1 day, 3 days and 30 days are sums of the recorded rates over 5 minutes. As errors and total are summed
  apart, an hour with much traffic counts for more than one with little. An average
  of ratios would not do that.
- Thresholds are computed in decimals and written as one number, so that a boundary is where it should be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SLOS = "fleetwatch_slos"
FILE = "slo.yml"
"""Name of the rule file."""
WINDOW = "$window"
"""What stands for the window in an expression, as in ``rate(errors_total[$window])``."""
BUDGET_DAYS = 30

SHORT_WINDOWS = ("5m", "30m", "1h", "2h", "6h")
LONG_WINDOWS = ("1d", "3d", f"{BUDGET_DAYS}d")


@dataclass(frozen=True)
class Burn:
    """An alert about a budget that burns too fast."""

    severity: str
    wait: str
    """The alert's ``for``: a single error in a quiet hour is no burn yet."""
    manner: str
    """The end of the summary."""
    windows: tuple[tuple[str, str, Decimal], ...]
    """Long window, short window, and the burn rate that both must exceed; the short one ends it soon."""


ALERTS = {
    "ErrorBudgetBurnFast": Burn(
        "critical", "2m", "burns fast", (("1h", "5m", Decimal("14.4")), ("6h", "30m", Decimal(6)))
    ),
    "ErrorBudgetBurnSlow": Burn(
        "warning", "15m", "burns too fast", (("1d", "2h", Decimal(3)), ("3d", "6h", Decimal(1)))
    ),
}

_REQUIRED = ("name", "service", "objective", "errors", "total")
_OPTIONAL = ("description", "labels", "alerting", "runbook_url")
_WINDOW = re.compile(re.escape(WINDOW) + r"\b")
_RANGE = re.compile(r"\[\s*" + _WINDOW.pattern)
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9 _.-]*[A-Za-z0-9])?")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_OWN_LABELS = ("alertname", "service", "slo", "severity")

Slo = dict[str, Any]


class SloError(ValueError):
    """An entry of the list is wrong; the message names it and the cure."""


def slo_problems(slos: Any) -> list[str]:
    """Return what is wrong with the list, one line for each mistake."""
    if not isinstance(slos, (list, tuple)) or not all(isinstance(slo, dict) for slo in slos):
        return ["must be a list in which each item is a dictionary"]
    found: list[str] = []
    seen: set[tuple[str, str]] = set()
    for number, slo in enumerate(slos, start=1):
        shown = f"entry {number}" + (f" ({slo['name']})" if slo.get("name") else "")
        found += [f"{shown}: {what}" for what in _mistakes(slo)]
        key = (str(slo.get("service")), str(slo.get("name")))
        if key in seen:
            found.append(f"{shown}: the service {key[0]} has two of that name; give one another name")
        seen.add(key)
    return found


def with_brought(slos: Any, brought: Sequence[Slo]) -> Any:
    """Return a site's own objectives, and those that components bring; of two of a name the site's counts."""
    if not isinstance(slos, (list, tuple)) or not all(isinstance(slo, dict) for slo in slos):
        return slos  # wrong, which slo_problems tells
    own = {(str(slo.get("service")), str(slo.get("name"))) for slo in slos}
    return [*slos, *(slo for slo in brought if (str(slo["service"]), str(slo["name"])) not in own)]


def is_objective(value: Any) -> bool:
    """Tell whether a value is a percentage above 0 and below 100."""
    return _objective({"objective": value}) is not None


def slo_rules(slos: Sequence[Slo], runbook_url: str) -> str:
    """Return the text of the rule file.

    :param runbook_url: folder of the runbook pages.
    :raises SloError: an entry is wrong.
    """
    problems = slo_problems(slos)
    if problems:
        raise SloError(f"{SLOS}: {problems[0]}")
    groups = [
        {"name": f"slo {slo['service']}/{slo['name']}", "rules": _rules(slo, runbook_url)} for slo in slos
    ]
    return str(yaml.safe_dump({"groups": groups}, sort_keys=False, allow_unicode=True, width=110))


def _mistakes(slo: Slo) -> Iterator[str]:
    known = (*_REQUIRED, *_OPTIONAL)
    missing = [field for field in _REQUIRED if slo.get(field) in (None, "")]
    if missing:
        yield f"{', '.join(missing)} missing"
    if unknown := [str(field) for field in slo if field not in known]:
        yield f"{', '.join(unknown)} not known; there are {', '.join(known)}"
    for field in ("name", "service"):
        if field not in missing and not _NAME.fullmatch(str(slo[field])):
            yield f"{field} must be of letters, digits, spaces, hyphens, dots and underscores"
    if "objective" not in missing and _objective(slo) is None:
        yield "objective must be a percentage above 0 and below 100, such as 99.9"
    for field in ("errors", "total"):
        if field not in missing and not _RANGE.search(str(slo[field])):
            yield f"{field} must have [{WINDOW}] as its time range, as in rate(requests_total[{WINDOW}])"
    if not isinstance(slo.get("alerting", True), bool):
        yield "alerting must be true or false"
    labels = slo.get("labels") or {}
    if not isinstance(labels, dict):
        yield "labels must be a dictionary"
        return
    for label in labels:
        if label in _OWN_LABELS or not _LABEL.fullmatch(str(label)):
            yield f"labels: {label} cannot be used; take another name of letters, digits and underscores"


def _objective(slo: Mapping[str, Any]) -> Decimal | None:
    """Return the objective as a ratio, or None if it is none."""
    text = str(slo["objective"])
    if isinstance(slo["objective"], bool) or not re.fullmatch(r"\d{1,2}(\.\d+)?", text):
        return None
    return Decimal(text) / 100 or None


def _rules(slo: Slo, runbook_url: str) -> list[dict[str, Any]]:
    objective = _objective(slo) or Decimal()
    rules = list(_recordings(slo, objective))
    if slo.get("alerting", True):
        rules += _alerts(slo, 1 - objective, runbook_url)
    return rules


def _recordings(slo: Slo, objective: Decimal) -> Iterator[dict[str, Any]]:
    budget = 1 - objective

    def record(name: str, expression: str) -> dict[str, Any]:
        return {"record": name, "expr": expression, "labels": _labels(slo)}

    def series(name: str) -> str:
        return f"{name}{_selector(slo)}"

    yield record("slo:objective:ratio", f"vector({_number(objective)})")
    yield record("slo:error_budget:ratio", f"vector({_number(budget)})")

    base = SHORT_WINDOWS[0]
    errors, total = f"slo:sli_errors:rate{base}", f"slo:sli_total:rate{base}"
    yield record(total, _sum(slo["total"], base))
    yield record(errors, f"{_sum(slo['errors'], base)} or 0 * sum({series(total)})")
    yield record(_ratio(base), f"{series(errors)} / ({series(total)} > 0)")
    for window in SHORT_WINDOWS[1:]:
        some = f"({_sum(slo['errors'], window)} or vector(0))"
        yield record(_ratio(window), f"{some} / ({_sum(slo['total'], window)} > 0)")
    for window in LONG_WINDOWS:
        ratio = " / ".join(
            (f"sum_over_time({series(errors)}[{window}])", f"(sum_over_time({series(total)}[{window}]) > 0)")
        )
        yield record(_ratio(window), ratio)

    spent = f"{series(_ratio(LONG_WINDOWS[-1]))} / {_number(budget)}"
    yield record("slo:current_burn_rate:ratio", f"{series(_ratio('1h'))} / {_number(budget)}")
    yield record("slo:period_error_budget_remaining:ratio", f"1 - {spent}")


def _alerts(slo: Slo, budget: Decimal, runbook_url: str) -> Iterator[dict[str, Any]]:
    selector = _selector(slo)
    about = f" {str(slo['description']).strip()}" if slo.get("description") else ""
    # Plain text: Ansible's own kind of string, which knows where it was written, cannot be dumped.
    own = {str(label): str(value) for label, value in (slo.get("labels") or {}).items()}
    for alert, burn in ALERTS.items():
        windows = " or ".join(long for long, _, _ in burn.windows)
        yield {
            "alert": alert,
            "expr": " or ".join(
                f"({_ratio(long)}{selector} > {_number(rate * budget)}"
                f" and {_ratio(short)}{selector} > {_number(rate * budget)})"
                for long, short, rate in burn.windows
            ),
            "for": burn.wait,
            "labels": {**own, **_labels(slo), "severity": burn.severity},
            "annotations": {
                "summary": f"Error budget of {slo['service']}, {slo['name']}, {burn.manner}",
                "description": (
                    f"{{{{ $value | humanizePercentage }}}} failed within {windows}; the objective of"
                    f" {slo['objective']}% allows {_number(budget * 100)}%."
                    f"{{{{ with query `slo:period_error_budget_remaining:ratio{selector}` }}}}"
                    f" {{{{ . | first | value | humanizePercentage }}}} of the budget of {BUDGET_DAYS} days"
                    f" is left.{{{{ end }}}}{about}"
                ),
                "runbook_url": str(slo.get("runbook_url") or f"{runbook_url}/{alert}.md"),
            },
        }


def _labels(slo: Slo) -> dict[str, str]:
    return {"service": str(slo["service"]), "slo": str(slo["name"])}


def _selector(slo: Slo) -> str:
    return f'{{service="{slo["service"]}", slo="{slo["name"]}"}}'


def _ratio(window: str) -> str:
    return f"slo:sli_error:ratio_rate{window}"


def _sum(expression: str, window: str) -> str:
    text = _WINDOW.sub(window, str(expression).strip())
    end = "\n)" if "#" in text else ")"  # it may end with a comment
    return f"sum({text}{end}"


def _number(value: Decimal) -> str:
    """Return a number without an exponent and without zeros at its end."""
    return f"{value.normalize():f}"
