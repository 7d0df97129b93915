"""The tree builds and installs as a collection that has all that a playbook needs, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SHIPPED = {
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "docs",
    "inventory",
    "meta",
    "playbooks",
    "plugins",
    "pyproject.toml",
    "requirements",
    "roles",
    "site.yml",
    "src",
}
FOR_THE_SERVICES = {"pyproject.toml", "README.md", "requirements/services.txt", "src/fleetwatch/__init__.py"}
"""What python_bundle builds from."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("build")
    subprocess.run(  # noqa: S603 (our own command)
        [BIN / "ansible-galaxy", "collection", "build", ROOT, "--output-path", output],
        check=True,
        cwd=output,
        env=os.environ | {"ANSIBLE_HOME": str(output / "home")},
    )
    return next(output.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def installed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of collections; only the archive is in it."""
    folder = tmp_path_factory.mktemp("collections")
    run(folder, "ansible-galaxy", "collection", "install", "--offline", "--collections-path", folder, archive)
    return folder


def run(collections: Path, program: str, *arguments: str | Path) -> str:
    """Run a program of Ansible outside of the tree, so that nothing but the collection is found."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE")}
    own = {"ANSIBLE_COLLECTIONS_PATH": str(collections), "ANSIBLE_HOME": str(collections / "home")}
    done = subprocess.run(  # noqa: S603 (our own command)
        [BIN / program, *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=collections,
        env=environment | own,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_archive_holds_what_is_needed_and_nothing_else(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        names = {member.name for member in tar if member.isfile()} - {"MANIFEST.json", "FILES.json"}
    assert {name.split("/")[0] for name in names} <= SHIPPED
    assert names >= FOR_THE_SERVICES
    assert {name for name in names if name.startswith(("requirements/", "inventory/lab"))} == {
        "requirements/services.txt"
    }
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_playbooks_run_from_the_installed_collection(installed: Path) -> None:
    inventory = installed / "ansible_collections/fleetwatch/monitoring/inventory/example"
    for playbook in ("site", "verify", "silence", "upgrade"):
        run(
            installed,
            "ansible-playbook",
            f"fleetwatch.monitoring.{playbook}",
            "--inventory",
            inventory,
            "--syntax-check",
        )


@pytest.mark.parametrize("kind", ["module", "lookup", "filter"])
def test_every_plugin_is_documented(installed: Path, kind: str) -> None:
    names = json.loads(run(installed, "ansible-doc", "-t", kind, "-l", "--json", "fleetwatch.monitoring"))
    assert names
    assert "UNDOCUMENTED" not in names.values()
    documented = json.loads(run(installed, "ansible-doc", "-t", kind, "--json", *names))
    for name in names:
        entry = documented[name]
        assert entry["doc"]["description"], name
        assert entry["examples"], name
