"""The virtual environment, with exactly what is locked in ``requirements/dev.txt``."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
import tomllib
from pathlib import Path

from lab import ROOT, VENV
from lab.console import Console

LOCK = ROOT / "requirements" / "dev.txt"
STAMP = VENV / "installed"
"""Holds the digest of what was installed last."""


def base_python() -> str:
    """Return the interpreter that makes the environment, never the environment's own."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def can_be_made() -> bool:
    """Tell whether this Python has what ``python3 -m venv`` needs; Debian has it in a package."""
    return all(importlib.util.find_spec(module) is not None for module in ("venv", "ensurepip"))


def digest() -> str:
    """Return what the stamp of an up-to-date environment holds."""
    package = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return hashlib.sha256(LOCK.read_bytes() + json.dumps(package).encode()).hexdigest()


def current() -> bool:
    """Tell whether the environment is complete and up to date."""
    return STAMP.exists() and STAMP.read_text(encoding="utf-8").strip() == digest()


def ensure(console: Console) -> None:
    """Make the environment present and up to date.

    Raises:
        LabError: pip failed.

    """
    if current():
        return
    with console.phase("Python: the locked packages, into .venv"):
        python = VENV / "bin" / "python"
        if not os.access(python, os.X_OK):
            console.run([base_python(), "-m", "venv", "--clear", VENV], log="venv")
        pip: list[str | Path] = [
            python,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "install",
            "--no-compile",
        ]
        console.run([*pip, "--progress-bar=off", "--require-hashes", "--requirement", LOCK], log="venv")
        console.run([*pip, "--no-deps", "--no-build-isolation", "--editable", ROOT], log="venv")
        STAMP.write_text(digest() + "\n", encoding="utf-8")
