"""Finishes the JSON of the SDK: identifiers, places on the grid, and what it leaves out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from string import ascii_uppercase
from typing import Any

Json = dict[str, Any]

COLUMNS = 24
"""Width of Grafana's grid."""
ROW_HEIGHT = 1


def ref_id(index: int) -> str:
    """Return the letter of a panel's query: A is the first."""
    return ascii_uppercase[index]


def finish(dashboard: Json) -> Json:
    """Complete a dashboard in place and return it."""
    _number(dashboard["panels"])
    _place(dashboard["panels"])
    _show(dashboard)
    for panel in _all(dashboard["panels"]):
        _complete(panel)
    return dashboard


def _all(panels: Iterable[Json]) -> Iterator[Json]:
    for panel in panels:
        yield panel
        yield from panel.get("panels", [])


def _show(node: Any) -> None:
    """Take links and annotations out of the menu where the SDK puts them; they belong in sight."""
    if isinstance(node, dict):
        if node.get("placement") == "inControlsMenu":
            del node["placement"]
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            _show(item)


def _number(panels: list[Json]) -> None:
    for number, panel in enumerate(_all(panels), start=1):
        panel["id"] = number


def _complete(panel: Json) -> None:
    for index, target in enumerate(panel.get("targets", [])):
        target["refId"] = ref_id(index)
        target.setdefault("datasource", panel["datasource"])
    options = panel.get("options", {})
    if "showLegend" in options.get("legend", {}):
        options["legend"]["showLegend"] = True
    if "reduceOptions" in options:
        options["reduceOptions"]["calcs"] = options["reduceOptions"].get("calcs") or ["lastNotNull"]
        options["reduceOptions"].setdefault("fields", "")
        options["reduceOptions"].setdefault("values", False)
    if "fieldConfig" in panel:
        panel["fieldConfig"].setdefault("defaults", {})
        panel["fieldConfig"].setdefault("overrides", [])


def _place(panels: list[Json]) -> None:
    """Set the panels on the grid from left to right; a line is filled, and as high as its highest."""
    y = 0
    line: list[Json] = []
    for panel in panels:
        if panel["type"] == "row":
            y = _close(line, y)
            panel["gridPos"] = {"h": ROW_HEIGHT, "w": COLUMNS, "x": 0, "y": y}
            y += ROW_HEIGHT
            # Those of a collapsed row have places of their own, for when it is opened.
            _place_below(panel["panels"], y)
        else:
            y = _append(line, panel, y)
    _close(line, y)


def _place_below(panels: list[Json], y: int) -> None:
    line: list[Json] = []
    for panel in panels:
        y = _append(line, panel, y)
    _close(line, y)


def _append(line: list[Json], panel: Json, y: int) -> int:
    if sum(other["gridPos"]["w"] for other in line) + panel["gridPos"]["w"] > COLUMNS:
        y = _close(line, y)
    line.append(panel)
    return y


def _close(line: list[Json], y: int) -> int:
    """Place a line of panels and empty it; return where the next begins."""
    if not line:
        return y
    height: int = max(panel["gridPos"]["h"] for panel in line)
    spare = COLUMNS - sum(panel["gridPos"]["w"] for panel in line)
    share, more = divmod(spare, len(line))
    x = 0
    for index, panel in enumerate(line):
        width = panel["gridPos"]["w"] + share + (1 if index < more else 0)
        panel["gridPos"] = {"h": height, "w": width, "x": x, "y": y}
        x += width
    line.clear()
    return y + height
