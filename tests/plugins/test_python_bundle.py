"""python_bundle: one real build from the package index, the rest on a small tree with a wheel of its own."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils import bundle

REPOSITORY = Path(__file__).parents[2]
TARGET = bundle.Target("3.13", "x86_64")
WHEEL = {
    "thing/__init__.py": b"",
    "thing/_fast.cpython-313-x86_64-linux-gnu.so": b"\x7fELF",
    "thing/tests/test_thing.py": b"",
    "test/__init__.py": b"",
    "thing-1.0.data/purelib/pure.py": b"",
    "thing-1.0.data/scripts/thing": b"#!python",
    "thing-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n",
    "thing-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nTag: cp313-cp313-manylinux_2_34_x86_64\n",
    "thing-1.0.dist-info/RECORD": b"",
}


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A directory with a wheel for the target, which is not this Python."""
    directory = tmp_path / "wheels"
    directory.mkdir()
    with zipfile.ZipFile(directory / "thing-1.0-cp313-cp313-manylinux_2_34_x86_64.whl", "w") as wheel:
        for name, content in WHEEL.items():
            wheel.writestr(name, content)
    return directory


@pytest.fixture
def tree(tmp_path: Path, wheels: Path) -> Path:
    """A tree in the layout of this repository."""
    tree = tmp_path / "tree"
    (tree / "src" / "fleetwatch" / "__pycache__").mkdir(parents=True)
    (tree / "src" / "fleetwatch" / "__init__.py").write_text("")
    (tree / "src" / "fleetwatch" / "__pycache__" / "x.pyc").write_text("")
    (tree / "requirements").mkdir()
    digest = sha256(next(wheels.iterdir()).read_bytes()).hexdigest()
    (tree / "requirements" / "services.txt").write_text(
        f"thing==1.0 ; python_version >= '3.12' \\\n    --hash=sha256:{digest}\n    # via fleetwatch\n"
        f"older==1.0 ; python_version < '3.12' --hash=sha256:{digest}\n"
    )
    (tree / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    return tree


def names(built: bundle.Bundle) -> list[str]:
    with tarfile.open(built.path) as archive:
        return archive.getnames()


@pytest.mark.slow
def test_what_is_in_it(tree: Path, wheels: Path, tmp_path: Path) -> None:
    built = bundle.build(tree, TARGET, tmp_path / "cache", wheels)

    assert built.built
    assert built.path.name == f"fleetwatch-{built.version}.linux-amd64-py3.13.tar.gz"
    assert built.version.startswith("1.2.3+")
    assert built.sha256 == sha256(built.path.read_bytes()).hexdigest()
    assert names(built) == [
        f"lib/fleetwatch-{built.version}.dist-info/METADATA",
        "lib/fleetwatch/__init__.py",
        "lib/pure.py",
        "lib/thing-1.0.dist-info/METADATA",
        "lib/thing-1.0.dist-info/RECORD",
        "lib/thing-1.0.dist-info/WHEEL",
        "lib/thing/__init__.py",
        "lib/thing/_fast.cpython-313-x86_64-linux-gnu.so",
    ]
    with tarfile.open(built.path) as archive:
        assert {(m.uid, m.gid, m.mtime, m.mode, m.uname) for m in archive} == {(0, 0, 0, 0o644, "")}


@pytest.mark.slow
def test_the_same_inputs_give_the_same_bytes(tree: Path, wheels: Path, tmp_path: Path) -> None:
    one = bundle.build(tree, TARGET, tmp_path / "one", wheels)
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy, copy_function=shutil.copy)
    (copy / "src" / "fleetwatch" / "__init__.py").chmod(0o600)
    other = bundle.build(copy, TARGET, tmp_path / "other", wheels)

    assert (one.version, one.sha256) == (other.version, other.sha256)


@pytest.mark.slow
def test_unchanged_needs_neither_pip_nor_wheels(
    tree: Path, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bundle.build(tree, TARGET, tmp_path / "cache", wheels)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    shutil.rmtree(wheels)

    again = bundle.build(tree, TARGET, tmp_path / "cache")
    assert not again.built
    assert again.sha256 == first.sha256

    # Nor does a changed source, for the wheels are in the cache.
    (tree / "src" / "fleetwatch" / "__init__.py").write_text("changed = True")
    changed = bundle.build(tree, TARGET, tmp_path / "cache")
    assert changed.built
    assert changed.version != first.version
    assert changed.sha256 != first.sha256


def test_each_input_counts(tree: Path) -> None:
    versions = {bundle.Tree.read(tree).version}
    (tree / "src" / "fleetwatch" / "new.py").write_text("")
    versions.add(bundle.Tree.read(tree).version)
    (tree / "src" / "fleetwatch" / "new.py").rename(tree / "src" / "fleetwatch" / "renamed.py")
    versions.add(bundle.Tree.read(tree).version)
    (tree / "requirements" / "services.txt").open("a").write("# another lock\n")
    versions.add(bundle.Tree.read(tree).version)
    assert len(versions) == 4
    (tree / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n[tool.ruff]\nline-length = 1\n')
    assert bundle.Tree.read(tree).version in versions


@pytest.mark.slow
def test_a_damaged_bundle_is_built_again(tree: Path, wheels: Path, tmp_path: Path) -> None:
    first = bundle.build(tree, TARGET, tmp_path / "cache", wheels)
    first.path.write_bytes(first.path.read_bytes()[:-10])

    again = bundle.build(tree, TARGET, tmp_path / "cache", wheels)

    assert again.built
    assert again.sha256 == first.sha256 == sha256(again.path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_a_killed_build_is_no_obstacle(tree: Path, wheels: Path, tmp_path: Path) -> None:
    left = tmp_path / "cache" / "wheels" / ".new"
    left.mkdir(parents=True)
    (left / "thing-0.9-py3-none-any.whl").write_bytes(b"cut")

    assert "lib/thing/__init__.py" in names(bundle.build(tree, TARGET, tmp_path / "cache", wheels))
    assert not left.exists()


@pytest.mark.slow
def test_the_cache_does_not_grow_for_ever(tree: Path, wheels: Path, tmp_path: Path) -> None:
    for number in range(bundle.KEPT + 2):
        (tree / "src" / "fleetwatch" / "__init__.py").write_text(f"number = {number}")
        last = bundle.build(tree, TARGET, tmp_path / "cache", wheels)

    assert len(list(last.path.parent.iterdir())) == 2 * bundle.KEPT
    assert last.path.is_file()


@pytest.mark.slow
def test_builds_at_the_same_time_are_one(tree: Path, wheels: Path, tmp_path: Path) -> None:
    run = run_playbook(
        tmp_path,
        {"cache_dir": "cache", "source": str(tree), "wheel_dir": str(wheels)},
        hosts=4,
    )

    assert run.returncode == 0, run.stdout
    results = [json.loads(line.partition("RESULT ")[2].rstrip('"')) for line in reports(run.stdout)]
    assert sorted(result["built"] for result in results) == [False, False, False, True]
    assert len({result["sha256"] for result in results}) == 1
    assert run.stdout.count("changed=0") == 4


@pytest.mark.parametrize(
    ("python", "machine", "message"),
    [
        ("3.1x", "x86_64", "python_version: '3.1x' must be like '3.13'"),
        ("3.13.1", "x86_64", "python_version"),
        ("3.13", "amd64", "machine: 'amd64' is not known; known are .*x86_64"),
    ],
)
def test_targets_that_cannot_be(python: str, machine: str, message: str) -> None:
    with pytest.raises(bundle.BundleError, match=message):
        bundle.Target(python, machine)


@pytest.mark.slow
def test_failures_say_what_to_do(
    tree: Path, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(bundle.BundleError, match="there is no directory /nowhere on the controller"):
        bundle.build(tree, TARGET, cache, Path("/nowhere"))
    with pytest.raises(
        bundle.BundleError, match=r"source: there is no .*pyproject.toml; is .* the Fleetwatch tree"
    ):
        bundle.build(tmp_path, TARGET, cache)

    lock = tree / "requirements" / "services.txt"
    locked = lock.read_text()
    lock.write_text(locked.partition(" ")[0] + "\n")
    with pytest.raises(bundle.BundleError, match="Hashes are required"):
        bundle.build(tree, TARGET, cache, wheels)
    lock.write_text(locked)

    wheel = next(wheels.iterdir())
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    with pytest.raises(
        bundle.BundleError, match=r"pip could not collect .*DO NOT MATCH THE HASHES.* Without int"
    ):
        bundle.build(tree, TARGET, cache, wheels)
    wheel.unlink()
    with pytest.raises(
        bundle.BundleError, match=r"from /\S+wheels: .*thing==1.0.*\. Without internet, set wheel_dir"
    ):
        bundle.build(tree, TARGET, cache, wheels)

    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(bundle.BundleError, match=rf"{python}, which runs Ansible, has no pip; install it"):
        bundle.build(tree, TARGET, cache, wheels)


# --- The real tree -------------------------------------------------------------------------------


def run_playbook(
    directory: Path, options: dict[str, str], hosts: int = 1
) -> subprocess.CompletedProcess[str]:
    """Run the action for hosts that cannot be connected to."""
    bundled = {"python_version": "3.13", "machine": "x86_64", **options}
    report = "RESULT {{ it | to_json }}"
    play = {
        "hosts": "all",
        "gather_facts": False,
        "become": True,
        "tasks": [
            {"fleetwatch.monitoring.python_bundle": bundled, "register": "it"},
            {"ansible.builtin.debug": {"msg": report}},
        ],
    }
    (directory / "play.json").write_text(json.dumps([play]))
    inventory = ",".join(f"unreachable{number}.invalid" for number in range(hosts)) + ","
    return subprocess.run(  # noqa: S603 - the ansible-playbook beside this Python
        [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, "play.json"],
        cwd=directory,
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "collections"),
            "ANSIBLE_NOCOLOR": "1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def reports(output: str) -> list[str]:
    return [line for line in output.replace('\\"', '"').splitlines() if "RESULT " in line]


@pytest.mark.slow
def test_the_services_bundle(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a copy, for the time of the test
    for name in ("src", "requirements", "pyproject.toml"):
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        source.mkdir(exist_ok=True)
        copy(REPOSITORY / name, source / name)
    built = bundle.build(source, TARGET, tmp_path / "cache")

    started = time.perf_counter()
    assert not bundle.build(source, TARGET, tmp_path / "cache").built
    assert time.perf_counter() - started < 0.2

    found = names(built)
    # Every compiled part is one that Python 3.13 looks for, on this architecture.
    compiled = [name for name in found if name.endswith(".so")]
    suffixes = (".cpython-313-x86_64-linux-gnu.so", ".abi3.so")
    assert [name for name in compiled if not name.endswith(suffixes)] == []
    for module in (
        "pydantic_core/_pydantic_core.cpython-313-x86_64-linux-gnu.so",
        "yaml/_yaml.cpython-313-x86_64-linux-gnu.so",
        "markupsafe/_speedups.cpython-313-x86_64-linux-gnu.so",
        "cryptography/hazmat/bindings/_rust.abi3.so",
    ):
        assert f"lib/{module}" in compiled
    for module in ("fleetwatch", "flask", "sqlalchemy", "cryptography", "gunicorn", "sendgrid"):
        assert f"lib/{module}/__init__.py" in found
    assert [name for name in found if "__pycache__" in name or "/tests/" in name or "/bin/" in name] == []

    # What is not compiled runs in this Python too, from the bundle alone.
    with tarfile.open(built.path) as archive:
        archive.extractall(tmp_path)  # noqa: S202 - our own; Python 3.11.2 knows no filter
    lib = tmp_path / "lib"
    code = "import fleetwatch, flask, gunicorn; print(fleetwatch.__file__, flask.__file__)"
    run = subprocess.run(  # noqa: S603 - this Python
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": str(lib)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == [f"{lib}/fleetwatch/__init__.py", f"{lib}/flask/__init__.py"]
    own = next(iter(importlib.metadata.distributions(name="fleetwatch", path=[str(lib)])))
    assert own.version == built.version
