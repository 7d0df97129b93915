"""Gathers the dashboards of all components and keeps their JSON."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

from grafana_foundation_sdk.models.dashboard import Dashboard

from .style import render

ROOT = Path(__file__).parents[3]
SOURCE = "monitoring/dashboard.py"
FOLDER = "monitoring/dashboards"


class DashboardError(ValueError):
    """A component's dashboards are not as they should be."""


def sources(root: Path = ROOT) -> list[Path]:
    """Return the ``dashboard.py`` of every component that has one."""
    return sorted(root.glob(f"roles/*/{SOURCE}"))


def load(source: Path) -> Sequence[Dashboard]:
    """Return the dashboards that a ``dashboard.py`` defines.

    Raises:
        DashboardError: it has no function ``dashboards``.

    """
    name = f"fleetwatch_dashboards_of_{source.parents[1].name}"
    spec = importlib.util.spec_from_file_location(name, source)
    if not spec or not spec.loader:
        raise DashboardError(f"{source}: is no Python module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, "dashboards", None)):
        raise DashboardError(
            f"{source}: has no function dashboards(); add one that returns a list of dashboards"
        )
    found: Sequence[Dashboard] = module.dashboards()
    return found


def texts(root: Path = ROOT) -> dict[Path, str]:
    """Return the JSON of every dashboard, by its path.

    Raises:
        DashboardError: a dashboard has no uid, or one that another has.

    """
    found: dict[Path, str] = {}
    owners: dict[str, Path] = {}
    for source in sources(root):
        for dashboard in load(source):
            if not dashboard.uid:
                raise DashboardError(f"{source}: dashboard {dashboard.title!r} has no uid")
            if dashboard.uid in owners:
                raise DashboardError(
                    f"{source}: uid {dashboard.uid} is that of {owners[dashboard.uid]} already"
                )
            owners[dashboard.uid] = source
            found[source.parents[1] / FOLDER / f"{dashboard.uid}.json"] = render(dashboard)
    return found


def kept(root: Path = ROOT) -> set[Path]:
    """Return the JSON files that are there."""
    return set(root.glob(f"roles/*/{FOLDER}/*.json"))


def write(root: Path = ROOT) -> Iterator[str]:
    """Write the JSON of every dashboard, and remove what is no dashboard's; yield what was changed."""
    wanted = texts(root)
    for path, text in wanted.items():
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            yield f"wrote {path.relative_to(root)}"
    for path in sorted(kept(root) - wanted.keys()):
        path.unlink()
        yield f"removed {path.relative_to(root)}"
