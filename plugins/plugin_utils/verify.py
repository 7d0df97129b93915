# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""What the hosts told ``verify_host``, as one table: judging their clocks, merging and drawing lines."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

OK, FAILED, SKIPPED = "ok", "FAILED", "skipped"
HOST = "host"
"""Stands in the column of the components for what concerns a host as a whole."""
HOSTS_NAMED = 3
_MIN_WIDTH = 60
_HEADER = ("STATE", "COMPONENT", "CHECK", "HOSTS", "DETAIL")
_CURE = "Turn on a time service such as systemd-timesyncd or chrony."


@dataclass(frozen=True, slots=True)
class Line:
    """One check of one host, or of several if they give the same line of the table."""

    component: str
    check: str
    state: str
    hosts: tuple[str, ...]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Offset:
    """How many seconds a clock is ahead of the controller's: somewhere between two bounds."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """The best guess, in seconds."""
        return (self.low + self.high) / 2

    def __str__(self) -> str:
        """Return the offset for people to read."""
        return f"{self.middle:+.2f} s (± {(self.high - self.low) / 2:.2f} s)"


def clock_lines(offsets: Mapping[str, Offset], tolerance: float) -> list[Line]:
    """Judge the clocks against the controller's and against one another.

    Only what the round trips leave no doubt about fails.

    :param offsets: host -> offset of its clock.
    :param tolerance: seconds by which two clocks may differ.
    """
    if not offsets:
        return []
    between = max(offset.low for offset in offsets.values()) - min(offset.high for offset in offsets.values())
    agree = between <= tolerance
    right = {host: offset for host, offset in offsets.items() if -offset.high <= tolerance >= offset.low}
    lines = []
    if right:
        worst = max(right.values(), key=lambda offset: abs(offset.middle))
        detail = f"at most {worst} from the controller" if len(right) > 1 else f"{worst} from the controller"
        lines.append(Line(HOST, "clock", OK, tuple(right), detail))
    for host, offset in offsets.items():
        if host not in right:
            cure = "The hosts agree, so mend the controller's." if agree and len(offsets) > 1 else _CURE
            lines.append(Line(HOST, "clock", FAILED, (host,), f"{offset} from the controller. {cure}"))
    if len(offsets) > 1 and not agree:
        first = min(offsets, key=lambda host: offsets[host].high)
        last = max(offsets, key=lambda host: offsets[host].low)
        detail = f"The clocks of {last} and {first} differ by at least {between:.2f} s. {_CURE}"
        lines.append(Line(HOST, "clocks between hosts", FAILED, (last, first), detail))
    elif len(offsets) > 1:
        lines.append(
            Line(HOST, "clocks between hosts", OK, tuple(offsets), f"in step within {tolerance:g} s")
        )
    return lines


def merge(lines: Iterable[Line]) -> list[Line]:
    """Join the lines that differ only in their hosts, and good ones in their detail too.

    So the table of ten thousand healthy hosts is as long as that of ten.
    """
    merged: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        key = (line.component, line.check, line.state, "" if line.state == OK else line.detail)
        merged.setdefault(key, []).append(line)
    result = []
    for same in merged.values():
        details = {line.detail for line in same}
        hosts = tuple(host for line in same for host in line.hosts)
        first = same[0]
        detail = first.detail if len(details) == 1 else ""
        result.append(Line(first.component, first.check, first.state, hosts, detail))
    return sorted(result, key=lambda line: (line.component != HOST, line.component))


def table(lines: Sequence[Line], width: int) -> list[tuple[str, str]]:
    """Draw the lines, each with its state; a failure's detail stands below it, wrapped.

    :param width: of the terminal, in characters.
    """
    cells = [_HEADER, *((line.state, line.component, line.check, _hosts(line.hosts), "") for line in lines)]
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    drawn = [("", _row(_HEADER, widths))]
    for line, cell in zip(lines, cells[1:], strict=True):
        detail = line.detail if line.state != FAILED else ""
        drawn.append((line.state, _row((*cell[:4], detail), widths)))
        if line.state == FAILED:
            indent = " " * (widths[0] + 2)
            wrapped = textwrap.wrap(
                line.detail,
                max(width, _MIN_WIDTH),
                initial_indent=indent,
                subsequent_indent=indent,
                break_long_words=False,  # they are URLs
                break_on_hyphens=False,
            )
            drawn += [(line.state, text) for text in wrapped]
    return drawn


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=False)]
    return "  ".join([*padded, cells[-1]]).rstrip()


def _hosts(hosts: Sequence[str]) -> str:
    return ", ".join(hosts) if len(hosts) <= HOSTS_NAMED else f"{len(hosts)} hosts"
