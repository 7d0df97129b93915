"""Let every test import the plugins in the way of Ansible itself."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from ansible.plugins.loader import init_plugin_loader

from lab import tools

# Before any import of ansible_collections: Python's own import would find the plugins too (as mypy does),
# but Ansible cannot load them afterwards.
init_plugin_loader([str(Path(__file__).parents[1] / "collections")])

pytest_plugins = ("tests.databases",)  # a plugin, so that a session has one PostgreSQL server

collect_ignore = ["vagrant"]  # needs virtual machines: make test-vagrant


@pytest.fixture(scope="session")
def promtool() -> str:
    """Return the path of promtool."""
    program = shutil.which("promtool", path=f"{os.environ['PATH']}{os.pathsep}{tools.BIN}")
    if program is None:
        pytest.fail("promtool is missing: run `make tools`", pytrace=False)
    return program
