"""Let every test import the plugins in the way of Ansible itself."""

from __future__ import annotations

from pathlib import Path

from ansible.plugins.loader import init_plugin_loader

# Before any import of ansible_collections: Python's own import would find the plugins too (as mypy does),
# but Ansible cannot load them afterwards.
init_plugin_loader([str(Path(__file__).parents[1] / "collections")])

pytest_plugins = ("tests.databases",)  # a plugin, so that a session has one PostgreSQL server
