"""promtool, run on rules as the tests render them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

RunPromtool = Callable[..., tuple[int, str]]


@pytest.fixture
def run_promtool(promtool: str, tmp_path: Path) -> RunPromtool:
    """Run promtool on rules and the tests beside their file; returns exit code and output."""

    def run(file: Path, rules: Any, *arguments: str) -> tuple[int, str]:
        (tmp_path / file.name).write_text(yaml.safe_dump(rules), encoding="utf-8")
        shutil.copy(file.with_name(f"{file.stem}_test.yml"), tmp_path)
        done = subprocess.run(  # noqa: S603 - all arguments are ours
            [promtool, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        return done.returncode, done.stdout + done.stderr

    return run
