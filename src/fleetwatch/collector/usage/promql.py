"""Writing PromQL. What callers give gets into a query only through ``hosts``, quoted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

HOSTS = "$hosts"
"""Where an expression takes the hosts that are asked for."""
SOURCE = "fleetwatch_source"
"""Label that says which expression a value comes from: its position among those of the resource."""

_SPECIAL = re.compile(r"[^A-Za-z0-9_-]")


class _Source(Protocol):
    @property
    def expression(self) -> str: ...


def quote(text: str) -> str:
    r"""Return a PromQL string of any text. Whatever is not plain is written as its bytes, ``\xNN``."""
    plain = (
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\' else f"\\x{byte:02x}"  # noqa: PLR2004 - ASCII
        for byte in text.encode()
    )
    return f'"{"".join(plain)}"'


def hosts(names: Sequence[str] | None) -> str:
    """Return the label matcher that finds these hosts and no others; ``None`` finds all that have a name."""
    if names is None:
        return 'host!=""'
    if len(names) == 1:
        return f"host={quote(names[0])}"
    return f"host=~{quote('|'.join(_literally(name) for name in names))}"


def _literally(name: str) -> str:
    """Return a regular expression, in Prometheus' RE2, that matches this text only."""
    return _SPECIAL.sub(lambda found: f"\\x{{{ord(found[0]):x}}}", name)


def usage(sources: Sequence[_Source], names: Sequence[str] | None) -> str:
    """Return an expression with one value for each host, from the first source that has the host.

    A host that is seen through several targets counts with the highest value. What is not a number is left
    out, and so is infinity.
    """
    parts = (
        f'label_replace(max by (host) {own}, "{SOURCE}", "{number}", "", "")'
        for number, own in enumerate(_each(sources, names))
    )
    return f"({' or on (host) '.join(parts)}) > -Inf < Inf"


def values(sources: Sequence[_Source], names: Sequence[str] | None) -> str:
    """Return what ``usage`` is made of, at a tenth of the cost: maybe several values of a host, or NaN."""
    return " or on (host) ".join(_each(sources, names))


def sums(expression: str, steps: int, step: int) -> str:
    """Return an instant query for sum and number of so many values of ``usage``, ``step`` seconds apart.

    It is to be evaluated half a step after the last of them: whether a Prometheus counts the borders of a
    range in or not (it did until version 3), none of the values lies on one.
    """
    return " or ".join(_sum_and_count(expression, steps, step))


def quick_sums(sources: Sequence[_Source], names: Sequence[str] | None, steps: int, step: int) -> str:
    """Return a query that answers as ``sums`` and costs a tenth, if each host has one number in it."""
    each = _each(sources, names)
    parts: list[str] = []
    for number, own in enumerate(each):
        before = " or ".join(each[:number])
        rest = f"{own} unless on (host) ({before})" if before else own
        parts += [
            f'label_replace({query}, "{SOURCE}", "{number}", "", "")'
            for query in _sum_and_count(rest, steps, step)
        ]
    return " or ".join(parts)


def _each(sources: Sequence[_Source], names: Sequence[str] | None) -> list[str]:
    matcher = hosts(names)
    return [f"({source.expression.replace(HOSTS, matcher)})" for source in sources]


def _sum_and_count(expression: str, steps: int, step: int) -> list[str]:
    window = f"({expression})[{steps * step}s:{step}s]"
    return [
        f'label_replace({name}_over_time({window}), "fleetwatch_of", "{name}", "", "")'
        for name in ("sum", "count")
    ]


def average(expression: str, seconds: int, step: int) -> str:
    """Return the query that people can try in Prometheus for what ``sums`` leads to."""
    return f"avg_over_time(({expression})[{seconds}s:{step}s])"
