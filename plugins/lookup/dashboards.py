# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""Lookup of the dashboards of all components that have hosts, and of the site's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils import grafana
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.fleet import FleetError
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.lookup import FleetLookup

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.fleet import Fleet

DOCUMENTATION = """
name: dashboards
short_description: Dashboards of the components that have hosts, and of the site
description:
  - Returns the JSON files in the folder C(monitoring/dashboards) of every component whose group has hosts,
    below
    C(fleetwatch/), and the site's own below C(site/).
  - Every dashboard is checked. It needs a C(uid) and a C(title), and no two may have the same, because
    Grafana
    then stops updating both.
author: [The Fleetwatch authors]
options:
  _terms:
    description:
      - Folder on the controller with JSON files of the site; a folder in it is a folder in Grafana. A
        relative one
        is looked for beside the playbook and in C(files). Empty for none.
    type: list
    elements: str
  extra:
    description:
      - Further dashboards of the site, as C(name) or C(Folder/name) to the dashboard's JSON model, as a
        dictionary
        or text.
    type: dict
    default: {}
  roles_path:
    description: Folders of roles. The default are the roles of this collection and those beside the playbook.
    type: list
    elements: path
"""

EXAMPLES = """
- name: Show what will be in Grafana
  ansible.builtin.debug:
    msg: "{{ query('fleetwatch.monitoring.dashboards') | map(attribute='title') }}"
"""

RETURN = """
_raw:
  description: The dashboards, sorted by path.
  type: list
  elements: dict
  contains:
    path:
      description: Path of the file below the folder of all dashboards.
      type: str
      sample: fleetwatch/fleetwatch-host.json
    uid:
      description: The uid in Grafana, as in its URL.
      type: str
    title:
      description: The title.
      type: str
    text:
      description: The JSON text.
      type: str
"""


class LookupModule(FleetLookup):
    """Yield one item for each dashboard."""

    def run(
        self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[dict[str, str]]:
        """Return the dashboards."""
        variables = variables or {}
        fleet = self.fleet(variables, kwargs)
        folders = [
            Path(self.find_file_in_search_path(variables, "files", term, ignore_missing=True) or term)
            for term in terms
            if term
        ]
        try:
            found = [
                *_of_components(fleet),
                *(one for folder in folders for one in _of_site(folder)),
                *_of_settings(self.get_option("extra") or {}),
            ]
            checked = grafana.checked_dashboards(found)
        except grafana.GrafanaError as error:
            raise FleetError(str(error)) from error
        return [{"path": one.path, "uid": one.uid, "title": one.title, "text": one.text} for one in checked]


def _of_components(fleet: Fleet) -> Iterator[grafana.Dashboard]:
    for component in fleet.components.values():
        if fleet.hosts(component.name):
            for file in sorted((component.path / "monitoring" / "dashboards").glob("*.json")):
                yield _read(file, f"{grafana.OWN_FOLDER}/{file.name}")


def _of_site(folder: Path) -> Iterator[grafana.Dashboard]:
    if not folder.is_dir():
        raise FleetError(f"grafana_dashboard_dir: there is no folder {folder} on the controller")
    for file in sorted(folder.rglob("*.json")):
        relative = file.relative_to(folder)
        if not any(part.startswith(".") for part in relative.parts):
            yield _read(file, f"{grafana.SITE_FOLDER}/{relative.as_posix()}")


def _of_settings(extra: Mapping[str, Any]) -> Iterator[grafana.Dashboard]:
    for name, content in extra.items():
        yield grafana.dashboard(grafana.site_path(name), content, f"grafana_dashboards: {name}")


def _read(file: Path, path: str) -> grafana.Dashboard:
    return grafana.dashboard(path, file.read_text(encoding="utf-8"), str(file))
